//! What a user asks for.

use std::collections::BTreeMap;

use contract::device::DeviceClass;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LlmDeploymentStatus;
use crate::api::schema;
use crate::api::shared::{LocalReference, Source, VolumeSpec};

/// A language model that is served: which one, for how much work, on what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "llmfleet.dev",
    version = "v1alpha1",
    kind = "LlmDeployment",
    namespaced,
    status = "LlmDeploymentStatus",
    doc = "A language model that is served at an OpenAI-compatible endpoint of the cluster.",
    shortname = "llm",
    category = "all",
    category = "llmfleet",
    derive = "PartialEq",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    validation = (
        "self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name must be at most 40 lower-case letters, digits and hyphens, begin with a letter and not end with a hyphen"
    ),
    printcolumn(name = "Model", type_ = "string", json_path = ".status.servedName"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "VRAM", type_ = "string", json_path = ".status.memory.perReplica"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision.current"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = (
    "!has(self.volume) || (has(self.model.source) && has(self.model.source.http))",
    "volume describes the claim that fetched files are kept on, so it needs model.source.http"
))]
#[x_kube(validation = (
    "self.accelerator.class != 'CPU' || (!has(self.accelerator.memory) && !has(self.accelerator.products))",
    "accelerator.memory and accelerator.products describe cards; class CPU has none"
))]
#[x_kube(validation = (
    "self.accelerator.class != 'CPU' || !has(self.serving) || !has(self.serving.resources) || !(has(self.serving.resources.requests) && has(self.serving.resources.requests.memory) || has(self.serving.resources.limits) && has(self.serving.resources.limits.memory))",
    "the memory of class CPU is planned from the model: set capacity instead of serving.resources memory"
))]
#[serde(rename_all = "camelCase")]
pub struct LlmDeploymentSpec {
    /// Which model; required.
    pub model: ModelSpec,
    /// How much work a replica must be able to hold. The memory of a replica follows from it.
    #[serde(default)]
    pub capacity: CapacitySpec,
    /// Number of replicas, from 0 to 999. Default: 1.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 999))]
    pub replicas: u32,
    /// What a replica runs on. Default: one NVIDIA card.
    #[serde(default)]
    pub accelerator: AcceleratorSpec,
    /// Which nodes may be chosen. Default: all that have what a replica needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementSpec>,
    /// The claim that fetched weights are kept on; only with `model.source.http`. A change makes another LlmModel with
    /// a claim of its own, which is fetched and rolled out as another source would be. Default: 10Gi of the cluster's
    /// default storage class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeSpec>,
    /// What the pods carry beside the model. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<ServingSpec>,
    /// Stops all pods and frees what they hold; weights and configuration stay. Default: false.
    #[serde(default)]
    pub suspend: bool,
    /// Opaque: a change restarts every replica once. At most 64 characters; default: empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub restart: String,
}

/// Which model. Exactly one of `source` and `modelRef` is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = ("has(self.source) != has(self.modelRef)", "exactly one of source and modelRef must be set"))]
#[serde(rename_all = "camelCase")]
pub struct ModelSpec {
    /// Where the weights come from; an LlmModel of that source is made, or found. Default: not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// An LlmModel of the same namespace. Default: not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_ref: Option<LocalReference>,
    /// Name that clients ask for: letters, digits, `.`, `_`, `-`, `/` and `:`. At most 128 characters.
    /// Default: the object's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[x_kube(validation = (
        "self.matches('^[A-Za-z0-9][A-Za-z0-9._:/-]*$')",
        "servedName must begin with a letter or digit and be made of letters, digits, dots, hyphens, underscores, slashes and colons"
    ))]
    pub served_name: Option<String>,
}

/// How much work a replica must be able to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapacitySpec {
    /// Tokens that one sequence may have, prompt and answer together, from 32 to 16777216.
    /// Default: what the model was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 32, max = 16_777_216))]
    pub context_length: Option<u32>,
    /// Sequences in flight at full length, from 1 to 1024. Default: 4.
    #[serde(default = "default_concurrency")]
    #[schemars(range(min = 1, max = 1024))]
    pub concurrency: u32,
    /// Element type of the KV cache. Auto is F32 on class CPU and F16 on cards. Default: Auto.
    #[serde(default)]
    pub kv_cache_type: KvCacheType,
}

impl Default for CapacitySpec {
    fn default() -> Self {
        Self { context_length: None, concurrency: default_concurrency(), kv_cache_type: KvCacheType::Auto }
    }
}

/// Element type of the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KvCacheType {
    /// F32 on class CPU, F16 on cards.
    #[default]
    Auto,
    /// 4 bytes an element.
    F32,
    /// 2 bytes an element, IEEE half precision.
    F16,
    /// 34 bytes for 32 elements: signed bytes with a scale in half precision.
    #[serde(rename = "Q8_0")]
    Q8,
}

/// What a replica runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct AcceleratorSpec {
    /// Class of device: an NVIDIA card, or the node's own cores and memory. Default: Nvidia.
    #[serde(default)]
    pub class: DeviceClass,
    /// Product names of the cards that may be used, as GPU feature discovery labels nodes with them.
    /// At most 32; default: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub products: Vec<String>,
    /// Bytes of one card as a quantity, such as `24Gi`; only for cards whose memory no node label tells.
    /// Default: what the labels tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = (
        "self.matches('^[1-9][0-9]*(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$')",
        "memory must be a whole number of bytes, such as 24Gi"
    ))]
    pub memory: Option<String>,
}

/// Which nodes may be chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacementSpec {
    /// Labels that a node must have. At most 32; default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated. At most 32; default: those of cards, on class Nvidia.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Name of the PriorityClass of the pods, and of the job that fetches the model. Default: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

/// A taint that is tolerated, as in a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = (
    "self.operator == 'Equal' ? has(self.key) : !has(self.value)",
    "a toleration with operator Equal needs a key, and one with operator Exists has no value"
))]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Key of the taint. Default: every key, with operator Exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub key: Option<String>,
    /// Whether the value counts. Default: Equal.
    #[serde(default)]
    pub operator: TolerationOperator,
    /// Value of the taint. Default: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// Effect of the taint. Default: every effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // The schema of the enum itself: an optional one would lose this field's description to the enum's.
    #[schemars(with = "TaintEffect")]
    pub effect: Option<TaintEffect>,
    /// Seconds for which a NoExecute taint is tolerated. Default: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub toleration_seconds: Option<i64>,
}

/// Whether the value of a taint counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// The taint has this value.
    #[default]
    Equal,
    /// The taint may have any value.
    Exists,
}

/// What a taint does to pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// New pods are kept away.
    NoSchedule,
    /// New pods are kept away if there is another node.
    PreferNoSchedule,
    /// Running pods are evicted too.
    NoExecute,
}

/// What the pods carry beside the model. A change reaches pods that are made later; those that run stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServingSpec {
    /// Cores, and the host memory of class Nvidia. Default: on class CPU 500m cores, on class Nvidia one core and one
    /// more a card, and the host memory that loading takes; no limit of cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceSpec>,
    /// Labels of the pods, such as `kueue.x-k8s.io/queue-name`; llm-fleet's own cannot be given. At most 32;
    /// default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    #[x_kube(validation = (
        "self.all(key, !key.startsWith('llmfleet.dev/') && !key.contains('.llmfleet.dev/') && !(key in ['app.kubernetes.io/name', 'app.kubernetes.io/instance', 'app.kubernetes.io/component', 'app.kubernetes.io/managed-by']))",
        "labels of llmfleet.dev, and app.kubernetes.io/name, instance, component and managed-by, are llm-fleet's own: they decide about traffic and bookings"
    ))]
    pub pod_labels: BTreeMap<String, String>,
    /// Annotations of the pods; llm-fleet's own cannot be given, and those by which Prometheus finds the pods are
    /// replaced where llm-fleet sets them. At most 32; default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    #[x_kube(validation = (
        "self.all(key, !key.startsWith('llmfleet.dev/') && !key.contains('.llmfleet.dev/'))",
        "annotations of llmfleet.dev are llm-fleet's own"
    ))]
    pub pod_annotations: BTreeMap<String, String>,
    /// Secrets of the namespace with which images are pulled, for the job that fetches the model too, beside those that
    /// the operator was given. At most 16; default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<LocalReference>,
}

/// Requests and limits, as in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceSpec {
    /// What is set aside. Default: see `serving.resources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<ResourceAmounts>,
    /// What is never exceeded. Default: no limit of cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ResourceAmounts>,
}

/// Amounts of cores and memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ResourceAmounts {
    /// Cores, such as `2` or `1500m`. Default: see above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = (
        "self.matches('^([1-9][0-9]*m?|[0-9]+[.][0-9]{1,3})$')",
        "cpu must be a number of cores, such as 2 or 1500m"
    ))]
    pub cpu: Option<String>,
    /// Host memory in bytes as a quantity, such as `4Gi`; class Nvidia only. Default: see above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = (
        "self.matches('^[1-9][0-9]*(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$')",
        "memory must be a whole number of bytes, such as 4Gi"
    ))]
    pub memory: Option<String>,
}

fn default_replicas() -> u32 {
    1
}

fn default_concurrency() -> u32 {
    4
}
