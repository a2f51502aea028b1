//! Why a runtime process ended: one JSON line in the container's termination message.

use serde::{Deserialize, Serialize};

/// Where Kubernetes reads a container's last words, and the most bytes that it keeps of them.
pub const TERMINATION_LOG: &str = "/dev/termination-log";
/// Bytes that Kubernetes keeps of a termination message.
pub const TERMINATION_LOG_BYTES: usize = 4096;

/// Closed set of reasons; the operator shows them in conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ExitReason {
    /// The configuration cannot be read or contradicts itself.
    ConfigInvalid,
    /// The checkpoint is truncated, hostile, or contradicts itself.
    WeightsCorrupt,
    /// The architecture or a tensor format is not one that this runtime serves.
    ModelUnsupported,
    /// Weights, activations and one sequence do not fit in the byte budget.
    BudgetTooSmall,
    /// Less device memory is free than the budget: something else took it.
    DeviceMemoryTaken,
    /// The built-in model gave wrong numbers on this device.
    SelfTestFailed,
    /// A source answered with an error, cannot be reached, or does not have what was asked for.
    SourceUnavailable,
    /// A file is not the one that was asked for (sha256 or size).
    DigestMismatch,
    /// The volume has no room.
    VolumeFull,
    /// The volume refused a read or a write for another reason.
    VolumeFailed,
    /// Anything else; the message says what.
    Internal,
}

impl ExitReason {
    /// As it stands in the line and in conditions.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConfigInvalid => "ConfigInvalid",
            Self::WeightsCorrupt => "WeightsCorrupt",
            Self::ModelUnsupported => "ModelUnsupported",
            Self::BudgetTooSmall => "BudgetTooSmall",
            Self::DeviceMemoryTaken => "DeviceMemoryTaken",
            Self::SelfTestFailed => "SelfTestFailed",
            Self::SourceUnavailable => "SourceUnavailable",
            Self::DigestMismatch => "DigestMismatch",
            Self::VolumeFull => "VolumeFull",
            Self::VolumeFailed => "VolumeFailed",
            Self::Internal => "Internal",
        }
    }
}

/// The line itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReport {
    /// One of the closed set.
    pub reason: ExitReason,
    /// One sentence for a person: what happened and what to do.
    pub message: String,
}

impl ExitReport {
    /// One line of JSON, cut to what Kubernetes keeps.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut message = self.message.clone();
        loop {
            let report = Self { reason: self.reason, message: message.clone() };
            let line = serde_json::to_string(&report).expect("a string and a unit variant serialize");
            if line.len() <= TERMINATION_LOG_BYTES {
                return line;
            }
            // An escaped character takes up to six bytes, so a sixth of the excess is never too much.
            let cut = ((line.len() - TERMINATION_LOG_BYTES) / 6).max(1);
            let keep = message.floor_char_boundary(message.len().saturating_sub(cut));
            message.truncate(keep);
        }
    }

    /// Reads the line back; `None` when the container's last words are not ours.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        serde_json::from_str(line.trim()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_is_written() {
        for reason in [ExitReason::VolumeFull, ExitReason::ModelUnsupported, ExitReason::Internal] {
            let line = ExitReport { reason, message: String::new() }.to_line();
            assert!(line.contains(&format!("\"{}\"", reason.name())), "{line}");
        }
    }

    #[test]
    fn long_messages_are_cut_and_read_back() {
        let message = "é\"".repeat(4000);
        let line = ExitReport { reason: ExitReason::VolumeFull, message }.to_line();
        assert!(line.len() <= TERMINATION_LOG_BYTES && line.len() > TERMINATION_LOG_BYTES / 2);
        assert_eq!(ExitReport::from_line(&line).map(|r| r.reason), Some(ExitReason::VolumeFull));
        assert_eq!(ExitReport::from_line("Killed"), None);
    }
}
