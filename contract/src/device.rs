//! Device classes, what a process on such a device takes beside the model, and what it asks of driver and card.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bytes::{Bytes, BytesError};

/// Bytes that the tokenizer takes for a token of the vocabulary.
const TOKEN_BYTES: u64 = 384;

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
    /// Bytes that a runtime process takes on the device beside weights, cache and activations, for a vocabulary of so
    /// many tokens.
    ///
    /// On CPU: the program, its stacks and the HTTP buffers, and the tokenizer, which keeps each token twice and the
    /// merges that lead to it. Measured for SmolLM2 (49,152 tokens): 29 MiB after loading, 20 MiB later. On CUDA:
    /// context and libraries.
    pub fn runtime_bytes(self, vocab: u32) -> Result<Bytes, BytesError> {
        match self {
            Self::Cpu => Bytes(u64::from(vocab)).times(TOKEN_BYTES)?.plus(Bytes::mib(32)),
            Self::Nvidia => Ok(Bytes::mib(512)),
        }
    }
}

/// A version of which the first two numbers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What a program for cards needs of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaNeeds {
    /// The oldest driver.
    pub driver: Version,
    /// The oldest CUDA that the driver must be made for.
    pub cuda: Version,
    /// The least compute capability of a card.
    pub compute: Version,
}

/// What the runtime's image for cards needs. Who builds that image with another CUDA, or for other cards, says so here.
///
/// It is built with CUDA 13.0. Within a major release, programs run with any driver of that release or a later one, and
/// the first driver of CUDA 13 is 580.65 (NVIDIA, "CUDA Compatibility", minor version compatibility). Its kernels are
/// PTX for compute capability 8.0, which the driver compiles for that card or any later one.
pub const CUDA_IMAGE: CudaNeeds = CudaNeeds {
    driver: Version { major: 580, minor: 65 },
    cuda: Version { major: 13, minor: 0 },
    compute: Version { major: 8, minor: 0 },
};
