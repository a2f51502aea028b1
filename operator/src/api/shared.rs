//! What both kinds have: sources of weights, their volume, and how far work is.
//!
//! In: nothing. Out: types with schemas. It must not know where weights are put.

use contract::Bytes;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where weights come from. Exactly one member is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = (
    "[has(self.http), has(self.persistentVolumeClaim)].exists_one(is_set, is_set)",
    "exactly one of http and persistentVolumeClaim must be set"
))]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Files at HTTP or HTTPS addresses, fetched once into a claim of the namespace. Default: not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSource>,
    /// A folder or file of an existing claim of the namespace, mounted read-only. Default: not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimSource>,
}

/// Files at HTTP or HTTPS addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HttpSource {
    /// The files of the checkpoint: one GGUF file, or safetensors with config.json and tokenizer.json.
    /// From 1 to 256 files; required.
    #[schemars(length(min = 1, max = 256))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"]))]
    pub files: Vec<HttpFile>,
}

/// One file to fetch and verify.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct HttpFile {
    /// Address, http or https, without credentials. At most 2048 characters; required.
    #[schemars(length(max = 2048))]
    #[x_kube(validation = (
        "self.startsWith('http://') || self.startsWith('https://')",
        "url must begin with http:// or https://"
    ))]
    #[x_kube(validation = ("!self.matches('^https?://[^/?#]*@')", "url must not carry credentials"))]
    pub url: String,
    /// sha256 of the content, as 64 lower-case hex digits; required. Another content is never served.
    #[schemars(length(max = 64))]
    #[x_kube(validation = ("self.matches('^[0-9a-f]{64}$')", "sha256 must be 64 lower-case hex digits"))]
    pub sha256: String,
    /// Where the file goes below the checkpoint's folder, such as `model.gguf`. At most 255 characters; required.
    #[schemars(length(max = 255))]
    #[x_kube(validation = (
        "self.matches('^[A-Za-z0-9_][A-Za-z0-9._+@=-]*(/[A-Za-z0-9_][A-Za-z0-9._+@=-]*)*$')",
        "path must be relative and made of plain names, such as model.gguf or onnx/model.gguf"
    ))]
    pub path: String,
}

/// A folder or file of an existing claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSource {
    /// Name of the PersistentVolumeClaim, in the same namespace; required.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = (
        "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
        "claimName must be the name of a PersistentVolumeClaim"
    ))]
    pub claim_name: String,
    /// Folder of the checkpoint, or one GGUF file, below the volume's root.
    /// At most 255 characters; default: the root itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 255))]
    #[x_kube(validation = (
        "self == '' || self.matches('^[A-Za-z0-9_][A-Za-z0-9._+@=-]*(/[A-Za-z0-9_][A-Za-z0-9._+@=-]*)*$')",
        "path must be relative and made of plain names, such as models/tiny or tiny.gguf"
    ))]
    pub path: String,
}

/// The claim that fetched weights are kept on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSpec {
    /// Name of the StorageClass. Default: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// Size of the claim as a quantity of bytes, such as `20Gi`. It must hold the files and what a fetch leaves
    /// unfinished. Default: 10Gi.
    #[serde(default = "default_size")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = (
        "self.matches('^[1-9][0-9]*(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$')",
        "size must be a whole number of bytes, such as 20Gi"
    ))]
    pub size: String,
}

/// The size of a claim that nobody asked a size for.
#[must_use]
pub fn default_size() -> String {
    "10Gi".to_owned()
}

/// Name of an object of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LocalReference {
    /// Name of the object; required.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// How far a download or a load is. Written at most every 5 seconds, and gone when it has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What is being done.
    #[schemars(length(max = 64))]
    pub phase: String,
    /// Bytes done.
    #[schemars(range(min = 0))]
    pub bytes_done: Bytes,
    /// Bytes in all; 0 while it is not known.
    #[schemars(range(min = 0))]
    pub bytes_total: Bytes,
    /// Bytes a second since it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Seconds left at that speed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}
