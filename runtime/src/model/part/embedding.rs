//! Token embeddings, and the selection of the rows that want logits.

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Result, Tensor};
use kernels::{Kernels, Packed};

use super::linear::{Linear, PackedWeight};
use super::{Context, floats, floats_mut};

/// The embedding, and the projection onto the vocabulary: the same bytes where the checkpoint ties them.
#[derive(Debug)]
pub enum Vocabulary {
    /// One matrix for both.
    Tied(Linear),
    /// Two matrices.
    Apart {
        /// Rows are the tokens' embeddings.
        embedding: PackedWeight,
        /// From hidden states to logits.
        output: Linear,
    },
}

impl Vocabulary {
    /// Looks up the step's tokens.
    ///
    /// # Shapes
    /// - `hidden`: `[tokens, hidden]`
    pub fn embed(&self, context: &Context<'_>, hidden: &Tensor) -> Result<()> {
        let weights = match self {
            Self::Tied(both) => both.first(),
            Self::Apart { embedding, .. } => embedding.view(),
        };
        hidden.inplace_op1(&Embed { kernels: context.kernels, weights, tokens: &context.step.tokens })
    }

    /// Projects selected hidden states onto the vocabulary.
    ///
    /// # Shapes
    /// - `selected`: `[rows, hidden]`; `logits`: `[rows, vocabulary]`
    pub fn logits(&self, context: &Context<'_>, selected: &Tensor, logits: &Tensor) -> Result<()> {
        match self {
            Self::Tied(output) | Self::Apart { output, .. } => output.forward(context, selected, logits),
        }
    }
}

/// Copies rows `context.step.logits_at` of `x` to `y`.
///
/// # Shapes
/// - `x`: `[tokens, hidden]`; `y`: `[logits_at.len(), hidden]`
pub fn select(context: &Context<'_>, x: &Tensor, y: &Tensor) -> Result<()> {
    y.inplace_op2(x, &Select { rows: &context.step.logits_at })
}

struct Embed<'a> {
    kernels: &'a Kernels,
    weights: Packed<'a>,
    tokens: &'a [u32],
}

impl InplaceOp1 for Embed<'_> {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn cpu_fwd(&self, hidden: &mut CpuStorage, layout: &Layout) -> Result<()> {
        self.kernels.embed(self.weights, self.tokens, floats_mut(hidden, layout)?);
        Ok(())
    }
}

struct Select<'a> {
    rows: &'a [u32],
}

impl InplaceOp2 for Select<'_> {
    fn name(&self) -> &'static str {
        "select"
    }

    fn cpu_fwd(&self, y: &mut CpuStorage, yl: &Layout, x: &CpuStorage, xl: &Layout) -> Result<()> {
        let (x, y) = (floats(x, xl)?, floats_mut(y, yl)?);
        let width = y.len() / self.rows.len();
        for (row, y) in self.rows.iter().zip(y.chunks_exact_mut(width)) {
            y.copy_from_slice(&x[*row as usize * width..][..width]);
        }
        Ok(())
    }
}
