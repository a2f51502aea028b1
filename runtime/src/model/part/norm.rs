//! Root mean square norm with a gain (Zhang and Sennrich 2019).

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor};
use kernels::Kernels;

use super::{Context, floats, floats_mut};

/// `y = x / √(mean(x²) + ε) · weight`.
#[derive(Debug)]
pub struct RmsNorm {
    /// The gain, `[hidden]`.
    pub weight: Vec<f32>,
    /// What keeps the root away from zero.
    pub epsilon: f32,
}

impl RmsNorm {
    /// Normalises each row.
    ///
    /// # Shapes
    /// - `x`, `y`: `[rows, hidden]`
    pub fn forward(&self, context: &Context<'_>, x: &Tensor, y: &Tensor) -> Result<()> {
        y.inplace_op2(x, &Normalise { kernels: context.kernels, norm: self })
    }
}

struct Normalise<'a> {
    kernels: &'a Kernels,
    norm: &'a RmsNorm,
}

impl InplaceOp2 for Normalise<'_> {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, y: &mut CpuStorage, yl: &Layout, x: &CpuStorage, xl: &Layout) -> Result<()> {
        let RmsNorm { weight, epsilon } = self.norm;
        self.kernels.rms_norm(floats(x, xl)?, weight, *epsilon, floats_mut(y, yl)?);
        Ok(())
    }
}
