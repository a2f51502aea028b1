//! Gated feed-forward network, SwiGLU (Shazeer 2020).

use candle_core::{CpuStorage, InplaceOp2, Layout, Result};
use kernels::Kernels;

use super::buffers::Views;
use super::linear::Linear;
use super::{Context, floats, floats_mut};

/// `down(silu(gate(x)) · up(x))`.
#[derive(Debug)]
pub struct Mlp {
    /// Gate and up, stacked.
    pub gate_up: Linear,
    /// Back to the hidden state.
    pub down: Linear,
}

impl Mlp {
    /// Reads `views.normed` and leaves the result there.
    pub fn forward(&self, context: &Context<'_>, views: &Views) -> Result<()> {
        self.gate_up.forward(context, &views.normed, &views.gate_up)?;
        let width = self.gate_up.outputs() / 2;
        views.gated.inplace_op2(&views.gate_up, &SiluMul { kernels: context.kernels, width })?;
        self.down.forward(context, &views.gated, &views.normed)
    }
}

struct SiluMul<'a> {
    kernels: &'a Kernels,
    width: usize,
}

impl InplaceOp2 for SiluMul<'_> {
    fn name(&self) -> &'static str {
        "silu-mul"
    }

    fn cpu_fwd(&self, y: &mut CpuStorage, yl: &Layout, x: &CpuStorage, xl: &Layout) -> Result<()> {
        self.kernels.silu_mul(floats(x, xl)?, self.width, floats_mut(y, yl)?);
        Ok(())
    }
}
