//! `LlmModel`: weights at rest.
//!
//! In: nothing. Out: the kind with its schema. It must not know who serves the weights.

use contract::inspect::Inspection;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shared::{Progress, Source, VolumeSpec};

/// What weights, from where. All of it is immutable: other weights are another LlmModel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "llmfleet.dev",
    version = "v1alpha1",
    kind = "LlmModel",
    namespaced,
    status = "LlmModelStatus",
    doc = "Weights of a language model: where they come from, what they are, and on which volume they lie.",
    shortname = "llmm",
    category = "all",
    category = "llmfleet",
    derive = "PartialEq",
    validation = (
        "self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name must be at most 40 lower-case letters, digits and hyphens, begin with a letter and not end with a hyphen"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "Claim", type_ = "string", json_path = ".status.claimName"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.inspection.digest", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = ("self.source == oldSelf.source", "source is immutable: other weights are another LlmModel"))]
#[x_kube(validation = (
    "has(self.volume) == has(oldSelf.volume) && (!has(self.volume) || self.volume == oldSelf.volume)",
    "volume is immutable: another volume is another LlmModel"
))]
#[x_kube(validation = (
    "!has(self.volume) || has(self.source.http)",
    "volume describes the claim that fetched files are kept on, so it needs source.http"
))]
#[serde(rename_all = "camelCase")]
pub struct LlmModelSpec {
    /// Where the weights come from; required, immutable.
    pub source: Source,
    /// The claim that fetched weights are kept on; only with `source.http`, immutable.
    /// Default: 10Gi of the cluster's default storage class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeSpec>,
}

/// What is known of the weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LlmModelStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds, since when, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Name of the claim that holds the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub claim_name: Option<String>,
    /// Folder or file of the weights below the claim's root; empty for the root itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 320))]
    pub path: Option<String>,
    /// What was found in the verified files: digest, bytes, geometry, tensors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inspection: Option<Inspection>,
    /// Bytes of the files, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub size: Option<String>,
    /// How far the fetch is; absent when none runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}
