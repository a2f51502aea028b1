//! Ports, paths and bodies of the runtime's two HTTP listeners.

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::memory::MemoryPlan;

/// The OpenAI-compatible API.
pub const API_PORT: u16 = 8000;
/// Name of the API port in pods and services.
pub const API_PORT_NAME: &str = "http";
/// Health, progress, metrics, drain. Also the operator's own port.
pub const ADMIN_PORT: u16 = 8001;
/// Name of the admin port in pods.
pub const ADMIN_PORT_NAME: &str = "admin";

/// Lists the served models.
pub const MODELS: &str = "/v1/models";
/// Chat completions.
pub const CHAT_COMPLETIONS: &str = "/v1/chat/completions";
/// Text completions.
pub const COMPLETIONS: &str = "/v1/completions";

/// Messages, as Anthropic's API has them.
pub const MESSAGES: &str = "/v1/messages";
/// Counts the tokens of such messages.
pub const COUNT_TOKENS: &str = "/v1/messages/count_tokens";
/// Responses, as OpenAI's newer API has them; nothing is stored.
pub const RESPONSES: &str = "/v1/responses";
/// Vectors of texts.
pub const EMBEDDINGS: &str = "/v1/embeddings";
/// Tokens of a text or of messages.
pub const TOKENIZE: &str = "/tokenize";
/// Text of tokens.
pub const DETOKENIZE: &str = "/detokenize";
/// The program's version.
pub const VERSION: &str = "/version";
/// Requests that are being answered.
pub const LOAD: &str = "/load";
/// 200 on the API's port while requests are served there; else 503.
pub const HEALTH: &str = "/health";
/// The same, as other servers name it.
pub const PING: &str = "/ping";
/// Header that names a request: a client's own name is kept, others get one.
pub const REQUEST_ID_HEADER: &str = "x-request-id";
/// Header that a client of Anthropic's API puts its key into.
pub const API_KEY_HEADER: &str = "x-api-key";

/// Header that names whose a request is, set by whoever stands before the runtime and knows. Without it, requests of
/// one API key are of one tenant.
pub const TENANT_HEADER: &str = "x-llmfleet-tenant";
/// 200 while the process lives.
pub const HEALTHZ: &str = "/healthz";
/// 200 once the model is loaded and the self-test has passed, and until draining begins; else 503.
pub const READYZ: &str = "/readyz";
/// [`Progress`] of loading.
pub const PROGRESS: &str = "/progress";
/// [`RuntimeStatus`].
pub const STATUS: &str = "/status";
/// Prometheus text format.
pub const METRICS: &str = "/metrics";
/// POST: stops admission, answers when nothing is in flight or the deadline has passed.
pub const DRAIN: &str = "/drain";

/// What a runtime is doing before, while and after it serves. In this order, never backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Reading configuration and headers.
    Starting,
    /// The built-in model is checked on this device.
    SelfTest,
    /// Weights are read and packed.
    Loading,
    /// A first pass through the model, so that the first request is not the slow one.
    WarmingUp,
    /// Requests are served.
    Ready,
    /// No new requests; those in flight are finished.
    Draining,
}

impl Phase {
    /// As it stands in JSON, metrics and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "Starting",
            Self::SelfTest => "SelfTest",
            Self::Loading => "Loading",
            Self::WarmingUp => "WarmingUp",
            Self::Ready => "Ready",
            Self::Draining => "Draining",
        }
    }
}

/// How far loading is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Current phase.
    pub phase: Phase,
    /// Bytes of weights loaded so far.
    pub bytes_done: Bytes,
    /// Bytes of weights in all; 0 until known.
    pub bytes_total: Bytes,
    /// Seconds spent in each phase that has ended, in order.
    pub seconds: Vec<(Phase, f64)>,
}

/// Measured bytes, component by component as the plan has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeStatus {
    /// What the budget was cut into.
    pub planned: MemoryPlan,
    /// What was allocated.
    pub measured: MemoryPlan,
    /// Whether the device is a simulated one.
    pub simulated: bool,
    /// UUIDs of the devices in use; empty on CPU.
    pub device_uuids: Vec<String>,
    /// Requests being served.
    pub running: u64,
    /// Requests waiting.
    pub waiting: u64,
}
