//! Projections over packed weights, several of them stacked into one output where they share their input.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor};
use kernels::{Format, Kernels, Packed};

use super::{Context, floats, floats_mut};
use crate::weights::packed::PackedBytes;

/// Most projections that are stacked: queries, keys and values.
const MAX_STACKED: usize = 3;

/// One packed weight matrix and its memory.
#[derive(Debug)]
pub struct PackedWeight {
    /// How it is stored.
    pub format: Format,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub columns: usize,
    /// The tiles, as `kernels` packed them.
    pub bytes: PackedBytes,
}

impl PackedWeight {
    pub(super) fn view(&self) -> Packed<'_> {
        Packed::new(self.format, self.rows, self.columns, &self.bytes).expect("it was packed with this shape")
    }
}

/// `y = x · Wᵀ`, with the outputs of all stacked weights side by side.
#[derive(Debug)]
pub struct Linear {
    weights: Vec<PackedWeight>,
}

impl Linear {
    /// Stacks one to three weights that take the same input.
    ///
    /// # Panics
    /// On none, more than three, or different inputs: the family file states them.
    #[must_use]
    pub fn new(weights: Vec<PackedWeight>) -> Self {
        assert!((1..=MAX_STACKED).contains(&weights.len()), "one to three weights are stacked");
        assert!(weights.iter().all(|weight| weight.columns == weights[0].columns), "they share their input");
        Self { weights }
    }

    /// The only weight of a linear that is not stacked; the first otherwise.
    pub(super) fn first(&self) -> Packed<'_> {
        self.weights[0].view()
    }

    /// Output features of all stacked weights.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.weights.iter().map(|weight| weight.rows).sum()
    }

    /// Projects each row. All sequences use the base model, which [`StepInput::check`] made sure of.
    ///
    /// # Shapes
    /// - `x`: `[rows, inputs]`; `y`: `[rows, outputs]`
    ///
    /// [`StepInput::check`]: crate::model::StepInput::check
    pub fn forward(&self, context: &Context<'_>, x: &Tensor, y: &Tensor) -> Result<()> {
        let mut views = [self.weights[0].view(); MAX_STACKED];
        for (view, weight) in views.iter_mut().zip(&self.weights) {
            *view = weight.view();
        }
        y.inplace_op2(x, &Multiply { kernels: context.kernels, weights: &views[..self.weights.len()] })
    }
}

struct Multiply<'a> {
    kernels: &'a Kernels,
    weights: &'a [Packed<'a>],
}

impl InplaceOp2 for Multiply<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, y: &mut CpuStorage, yl: &Layout, x: &CpuStorage, xl: &Layout) -> Result<()> {
        self.kernels.linear(self.weights, floats(x, xl)?, floats_mut(y, yl)?);
        Ok(())
    }
}
