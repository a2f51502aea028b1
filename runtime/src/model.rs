//! What a model is to the engine: a step of tokens in, logits out, with the cache outside of it.
//!
//! A step is a flat ragged batch without padding: tokens of several sequences one after the other.
//! Nothing here knows of requests, sampling parameters or text.

pub mod cache;
pub mod family;
pub mod part;
pub mod step;

use candle_core::Tensor;
use kernels::Kernels;

pub use cache::{Cache, CacheGroup, CacheSpec, PagedGroup};
pub use family::{Description, LoadRequest, Loaded, ModelError, check, load};
pub use step::{BASE_MODEL, GroupInput, Part, StepError, StepInput};

/// A decoder with its weights in memory.
pub trait Model: Send {
    /// The cache that [`Model::forward`] wants, group by group.
    fn cache_spec(&self) -> CacheSpec;

    /// The kernels that it computes with, for whoever has work for their threads between two steps.
    fn kernels(&self) -> Option<&Kernels> {
        None
    }

    /// Runs one step: writes the tokens' keys and values into `cache` and returns logits.
    ///
    /// A row's bits depend on nothing but its own sequence: not on the other sequences of the step, nor on how
    /// the sequence was cut into steps.
    ///
    /// # Shapes
    /// - result: `[step.logits_at.len(), vocabulary]` in `f32`; it is overwritten by the next step
    ///
    /// # Errors
    /// Where the step contradicts itself, the model's limits or the cache. The cache is then as before.
    fn forward(&mut self, step: &StepInput, cache: &mut Cache) -> Result<Tensor, ForwardError>;

    /// The last step's states that its logits were computed from. What is said of a row of logits holds for them.
    ///
    /// # Shapes
    /// - result: `[rows, hidden]` in `f32`, of the first so many of the step's rows; the next step overwrites it
    ///
    /// # Errors
    /// Where a step cannot have had so many rows.
    fn states(&self, rows: usize) -> candle_core::Result<Tensor>;
}

/// Why a step was not run.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The step is not one that this model can run on this cache.
    #[error("the step is not valid")]
    Step(#[from] StepError),
    /// The tensor library refused an operation.
    #[error("a tensor operation failed")]
    Tensor(#[from] candle_core::Error),
}

/// Calls `read` with the numbers of a contiguous `f32` tensor on the CPU, such as the logits, without a copy.
///
/// # Errors
/// Where the tensor is of another kind.
pub fn with_floats<T>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> T) -> candle_core::Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        candle_core::Storage::Cpu(storage) => Ok(read(part::floats(storage, layout)?)),
        _ => candle_core::bail!("the tensor is not on the CPU"),
    }
}

#[cfg(test)]
mod tests;
