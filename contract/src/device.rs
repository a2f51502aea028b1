//! Device classes and what a process on such a device takes beside the model.

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;

/// Class of accelerator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum DeviceClass {
    /// An NVIDIA card offered as `nvidia.com/gpu`.
    #[default]
    Nvidia,
    /// The node's own cores and memory.
    #[serde(rename = "CPU")]
    Cpu,
}

impl DeviceClass {
    /// Bytes that a runtime process takes on the device beside weights, cache and activations.
    ///
    /// On CPU: the program, its stacks, the tokenizer and the HTTP buffers. On CUDA: context and libraries.
    #[must_use]
    pub const fn runtime_constant(self) -> Bytes {
        match self {
            Self::Cpu => Bytes::mib(96),
            Self::Nvidia => Bytes::mib(512),
        }
    }
}
