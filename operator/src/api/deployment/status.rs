//! What is true of it.

use contract::{Bytes, KvDType, MemoryPlan};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::shared::Progress;

/// What is true of a deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LlmDeploymentStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds, since when, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Which replica of which revision spends what, and where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2000))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["replica", "revision"]))]
    pub placement: Vec<PlacementStatus>,
    /// Memory of one replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryStatus>,
    /// What a replica holds, defaults included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<CapacityStatus>,
    /// Revisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionStatus>,
    /// Name of the LlmModel that is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub model: Option<String>,
    /// Name that clients ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub served_name: Option<String>,
    /// Address of the OpenAI-compatible API inside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub endpoint: Option<String>,
    /// How far loading is; absent when nothing loads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// How long the way to the first answer took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
    /// Pods of the current and the target revision that are not going away.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that are ready. They get traffic.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Label selector of the pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub selector: Option<String>,
    /// Whether the device is a simulated one, as in tests.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub simulated: bool,
}

/// One booking: what one replica of one revision spends, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacementStatus {
    /// Index of the replica, from 0.
    pub replica: u32,
    /// Revision, 8 hex digits.
    #[schemars(length(max = 16))]
    pub revision: String,
    /// Booking, 8 hex digits; a pod that is replaced gets another.
    #[schemars(length(max = 16))]
    pub booking: String,
    /// How many bookings this replica of this revision has had before.
    pub attempt: u32,
    /// Node that was chosen.
    #[schemars(length(max = 253))]
    pub node: String,
    /// Whole cards; 0 on class CPU.
    pub devices: u32,
    /// Sequences in flight that the bytes are planned for.
    pub concurrency: u32,
    /// Planned bytes of each component, on each device.
    pub memory: MemoryPlan,
    /// Bytes of the node's memory that the pod may take.
    #[schemars(range(min = 0))]
    pub host_memory: Bytes,
    /// Thousandths of a core that the pod requests.
    pub cpu_millis: u64,
}

/// Memory of one replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemoryStatus {
    /// The plan's total, for a person.
    #[schemars(length(max = 32))]
    pub per_replica: String,
    /// The plan's total, in bytes: the hard budget of a replica.
    #[schemars(range(min = 0))]
    pub budget: Bytes,
    /// What the formula gives, in bytes of each component.
    pub planned: MemoryPlan,
    /// What the first ready replica measured. Written when it moves by more than 1 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<MemoryPlan>,
}

/// What a replica holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapacityStatus {
    /// Tokens that one sequence may have.
    pub context_length: u32,
    /// Sequences in flight.
    pub concurrency: u32,
    /// Element type of the KV cache.
    pub kv_cache_type: KvDType,
}

/// Revisions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RevisionStatus {
    /// The one that gets traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub current: Option<String>,
    /// The one that the spec asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub target: Option<String>,
    /// Digest of the weights that the target serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub weights: Option<String>,
}

/// Milliseconds from the creation of the object to the first time that something held. The creation is known to
/// the second, so each figure may be up to a second too large.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timings {
    /// The weights were verified and their headers read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_ready_milliseconds: Option<u64>,
    /// A place was booked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed_milliseconds: Option<u64>,
    /// The first container was running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_milliseconds: Option<u64>,
    /// The first pod was ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_milliseconds: Option<u64>,
}
