//! Architectures: one file each, which maps a checkpoint's names and settings onto parts.

mod dense;
mod llama;
mod qwen3;

use std::sync::Arc;

use contract::ModelGeometry;
use contract::device::DeviceClass;
use contract::geometry::Family;
use contract::header::gguf::Metadata;
use kernels::Kernels;
use serde_json::Value as Json;

use super::Model;
use crate::weights::{LoadError, Tensors};

/// What a checkpoint says of its model, beside the weights.
#[derive(Clone, Copy, Debug)]
pub enum Description<'a> {
    /// Metadata of a GGUF file.
    Gguf(&'a Metadata),
    /// A Hugging Face `config.json`.
    Config(&'a Json),
}

/// What to load and for what.
#[derive(Clone, Debug)]
pub struct LoadRequest<'a> {
    /// The model's shape.
    pub geometry: &'a ModelGeometry,
    /// The checkpoint's settings.
    pub description: Description<'a>,
    /// Its tensors.
    pub tensors: &'a Tensors,
    /// The class whose resident formats apply.
    pub device: DeviceClass,
    /// Tokens of the largest step.
    pub step_tokens: usize,
    /// Rows of logits of the largest step.
    pub logit_rows: usize,
}

/// A model, and what it takes.
pub struct Loaded {
    /// The model.
    pub model: Box<dyn Model>,
    /// Bytes of its weights.
    pub weights: contract::Bytes,
    /// Bytes of its buffers.
    pub activations: contract::Bytes,
}

/// Why a model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A setting that we would get wrong.
    #[error("{setting} is {found}; supported: {supported}")]
    Setting {
        /// Its name in the checkpoint.
        setting: String,
        /// Its value.
        found: String,
        /// What would be accepted.
        supported: &'static str,
    },
    /// A tensor that cannot be used.
    #[error("the weights do not make a model")]
    Weights(#[from] LoadError),
    /// No memory for the buffers.
    #[error("the buffers cannot be allocated")]
    Buffers(#[from] candle_core::Error),
}

/// Finds whatever `load` would refuse, without reading the matrices.
///
/// # Errors
/// The same as those of [`load`], but for what only the numbers show.
pub fn check(request: &LoadRequest<'_>) -> Result<(), ModelError> {
    dense::check(architecture(request.geometry.family), request)
}

/// Loads the model that `request` describes; `progress` is told the bytes of each tensor as it is done.
///
/// # Errors
/// Where the checkpoint contradicts itself or asks for what we do not have.
pub fn load(
    request: &LoadRequest<'_>,
    kernels: Arc<Kernels>,
    progress: &mut dyn FnMut(u64),
) -> Result<Loaded, ModelError> {
    dense::load(architecture(request.geometry.family), request, kernels, progress)
}

const fn architecture(family: Family) -> &'static dense::Architecture {
    match family {
        Family::Llama => &llama::LLAMA,
        Family::Qwen3 => &qwen3::QWEN3,
    }
}
