//! What is known of a checkpoint from its headers: one line from the fetch job to the LlmModel's status.

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::geometry::ModelGeometry;
use crate::tensors::TensorGroup;

/// Most bytes of the line.
pub const MAX_LINE_BYTES: usize = 16 << 10;
/// What the line begins with in the job's log, so that it is found among others.
pub const LINE_PREFIX: &str = "llmfleet-inspect: ";

/// Container format of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One GGUF file.
    Gguf,
    /// safetensors with `config.json` and `tokenizer.json`.
    Safetensors,
}

/// A verified checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// Container format.
    pub format: Format,
    /// Digest of the manifest: `sha256:` and 64 hex digits.
    pub digest: String,
    /// Bytes of all files.
    pub bytes: Bytes,
    /// Number of files.
    pub files: u32,
    /// Number of weights.
    pub parameters: u64,
    /// Licence as the checkpoint states it, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Shape of the model.
    pub geometry: ModelGeometry,
    /// Its tensors, grouped.
    pub tensors: Vec<TensorGroup>,
}

/// Why there is no such line.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// More distinct tensors than a status should hold.
    #[error("the inspection takes {0} bytes, more than the {MAX_LINE_BYTES} that a status holds")]
    TooLong(usize),
    /// The line is not what this version writes.
    #[error("the inspection cannot be read")]
    Malformed(#[source] serde_json::Error),
}

impl Inspection {
    /// The line, prefix included.
    pub fn to_line(&self) -> Result<String, LineError> {
        let json = serde_json::to_string(self).map_err(LineError::Malformed)?;
        if json.len() > MAX_LINE_BYTES {
            Err(LineError::TooLong(json.len()))
        } else {
            Ok(format!("{LINE_PREFIX}{json}"))
        }
    }

    /// Finds and reads the line in a job's log; `None` when there is none.
    #[must_use]
    pub fn from_log(log: &str) -> Option<Result<Self, LineError>> {
        let json = log.lines().rev().find_map(|line| line.strip_prefix(LINE_PREFIX))?;
        if json.len() > MAX_LINE_BYTES {
            return Some(Err(LineError::TooLong(json.len())));
        }
        Some(serde_json::from_str(json).map_err(LineError::Malformed))
    }
}
