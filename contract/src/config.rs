//! `RuntimeConfig`: frozen by a revision in a ConfigMap, read by `llm-fleet-runtime serve --config`.
//!
//! What belongs to one booking (budget, concurrency, device) is not here: it reaches the pod as environment.

use serde::{Deserialize, Serialize};

use crate::device::DeviceClass;
use crate::dtype::KvDType;

/// Version that this code writes; older ones are read.
pub const CONFIG_VERSION: u32 = 1;
/// Key of the ConfigMap and name of the mounted file.
pub const CONFIG_FILE: &str = "runtime.json";
/// Folder that the ConfigMap is mounted at.
pub const CONFIG_DIR: &str = "/etc/llm-fleet";
/// Folder that the model volume is mounted at.
pub const MODELS_DIR: &str = "/models";

/// Environment: the booking's hard byte budget.
pub const ENV_BUDGET: &str = "LLMFLEET_BUDGET_BYTES";
/// Environment: the booking's sequences in flight.
pub const ENV_CONCURRENCY: &str = "LLMFLEET_CONCURRENCY";
/// Environment: bytes of the simulated device; absent on real ones.
pub const ENV_SIMULATED_DEVICE: &str = "LLMFLEET_SIMULATED_DEVICE_BYTES";
/// Requests that may wait before others are refused.
pub const DEFAULT_QUEUE: u32 = 64;
/// Tokens of the prompts of those who wait before others are refused; one that is longer may wait alone.
pub const DEFAULT_QUEUE_TOKENS: u32 = 64 * 1024;
/// Seconds that streams in flight get to finish after SIGTERM.
pub const DEFAULT_DRAIN_SECONDS: u32 = 60;

/// Everything that changes the answer or the memory of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeConfig {
    /// [`CONFIG_VERSION`].
    pub version: u32,
    /// Name that clients ask for.
    pub served_name: String,
    /// Folder of the checkpoint, or a single GGUF file.
    pub model_path: String,
    /// Digest that the checkpoint's manifest must have; absent for unmanaged folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Class of device.
    pub device: DeviceClass,
    /// Tokens that one sequence may have; absent: the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u32>,
    /// Element type of the KV cache.
    #[serde(default)]
    pub kv_dtype: KvDType,
    /// Seconds for draining.
    pub drain_seconds: u32,
}

/// What every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the JSON that it should be.
    #[error("the runtime configuration is not valid")]
    Malformed(#[source] serde_json::Error),
    /// Written by a newer operator.
    #[error("the runtime configuration has version {0}; this runtime reads up to {CONFIG_VERSION}")]
    Version(u32),
}

impl RuntimeConfig {
    /// Pretty JSON with fields in a fixed order: equal values give equal bytes.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and numbers serialize")
    }

    /// Reads what an operator of this or an older version wrote.
    pub fn from_json(json: &str) -> Result<Self, ConfigError> {
        // The version first: a newer one may have fields that this one refuses.
        let Versioned { version } = serde_json::from_str(json).map_err(ConfigError::Malformed)?;
        if version > CONFIG_VERSION {
            return Err(ConfigError::Version(version));
        }
        serde_json::from_str(json).map_err(ConfigError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let config = RuntimeConfig {
            version: CONFIG_VERSION,
            served_name: "smollm2".into(),
            model_path: MODELS_DIR.into(),
            digest: None,
            device: DeviceClass::Cpu,
            context_length: Some(2048),
            kv_dtype: KvDType::F16,
            drain_seconds: DEFAULT_DRAIN_SECONDS,
        };
        assert_eq!(RuntimeConfig::from_json(&config.to_json()).unwrap(), config);
        let newer = config.to_json().replace("\"version\": 1", "\"version\": 2, \"unheard\": true");
        assert!(matches!(RuntimeConfig::from_json(&newer), Err(ConfigError::Version(2))));
        assert!(matches!(RuntimeConfig::from_json("{\"x\":1}"), Err(ConfigError::Malformed(_))));
    }
}
