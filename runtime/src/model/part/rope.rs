//! Rotary position embedding: angles once a step, rotations once a layer (Su et al. 2021).

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor};
use kernels::{Heads, Kernels, RopePairs, Rotation};

use super::{Context, floats_mut};

/// The frequencies of a model's heads.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Which numbers are rotated together.
    pub pairs: RopePairs,
    /// Radians by which a pair turns from one position to the next, `[head_dim / 2]`.
    pub frequencies: Vec<f64>,
}

/// Cosines and sines of a step's positions, `[tokens, head_dim / 2]` each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Angles {
    /// Room for `tokens` tokens of heads with `head_dim` numbers.
    #[must_use]
    pub fn with_capacity(tokens: usize, head_dim: usize) -> Self {
        let numbers = tokens * head_dim / 2;
        Self { cos: Vec::with_capacity(numbers), sin: Vec::with_capacity(numbers) }
    }
}

impl Rope {
    /// `θ^(−2i / head_dim)`.
    #[must_use]
    pub fn new(pairs: RopePairs, head_dim: usize, theta: f64) -> Self {
        let frequency = |pair: usize| theta.powf(-2.0 * pair as f64 / head_dim as f64);
        Self { pairs, frequencies: (0..head_dim / 2).map(frequency).collect() }
    }

    /// Computes the step's angles, in double precision because positions are large.
    pub fn angles(&self, positions: &[u32], angles: &mut Angles) {
        let Angles { cos, sin } = angles;
        cos.clear();
        sin.clear();
        for position in positions {
            for frequency in &self.frequencies {
                let (s, c) = (f64::from(*position) * frequency).sin_cos();
                cos.push(c as f32);
                sin.push(s as f32);
            }
        }
    }

    /// Rotates the queries and keys of each row.
    ///
    /// # Shapes
    /// - `qkv`: `[tokens, heads.qkv_width()]`
    pub fn forward(&self, context: &Context<'_>, heads: Heads, qkv: &Tensor) -> Result<()> {
        let Angles { cos, sin } = context.angles;
        let rotation = Rotation { pairs: self.pairs, head_dim: heads.head_dim, cos, sin };
        qkv.inplace_op1(&Rotate { kernels: context.kernels, heads, rotation })
    }
}

struct Rotate<'a> {
    kernels: &'a Kernels,
    heads: Heads,
    rotation: Rotation<'a>,
}

impl InplaceOp1 for Rotate<'_> {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, qkv: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let n_heads = self.heads.heads + self.heads.kv_heads;
        self.kernels.rope(floats_mut(qkv, layout)?, self.heads.qkv_width(), n_heads, self.rotation);
        Ok(())
    }
}
