//! Root mean square norm with a gain (Zhang and Sennrich 2019).

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Result, Tensor};
use kernels::{HeadNorm, Heads, Kernels};

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

    fn of_heads(&self, n_heads: usize) -> HeadNorm<'_> {
        HeadNorm { n_heads, weight: &self.weight, epsilon: self.epsilon }
    }
}

/// Norms of each query head and each key head on its own (Dehghani et al. 2023, section 2).
#[derive(Debug)]
pub struct HeadNorms {
    /// Of queries, `[head_dim]`.
    pub q: RmsNorm,
    /// Of keys, `[head_dim]`.
    pub k: RmsNorm,
}

impl HeadNorms {
    /// Normalises the queries and keys of each row.
    ///
    /// # Shapes
    /// - `qkv`: `[tokens, heads.qkv_width()]`
    pub fn forward(&self, context: &Context<'_>, heads: Heads, qkv: &Tensor) -> Result<()> {
        let norms = [self.q.of_heads(heads.heads), self.k.of_heads(heads.kv_heads)];
        qkv.inplace_op1(&NormaliseHeads { kernels: context.kernels, width: heads.qkv_width(), norms })
    }
}

struct NormaliseHeads<'a> {
    kernels: &'a Kernels,
    width: usize,
    norms: [HeadNorm<'a>; 2],
}

impl InplaceOp1 for NormaliseHeads<'_> {
    fn name(&self) -> &'static str {
        "head-norms"
    }

    fn cpu_fwd(&self, qkv: &mut CpuStorage, layout: &Layout) -> Result<()> {
        self.kernels.head_norms(floats_mut(qkv, layout)?, self.width, &self.norms);
        Ok(())
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
