//! The tensors that a step works in, allocated once for the largest step and narrowed for each.

use candle_core::{DType, Device, Result, Tensor};
use contract::Bytes;
use kernels::{Heads, Kernels};

/// How wide a model's hidden states are, and how large its steps may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widths {
    /// Tokens of the largest step.
    pub tokens: usize,
    /// Rows of logits of the largest step.
    pub rows: usize,
    /// Numbers of a hidden state.
    pub hidden: usize,
    /// The heads of the layers.
    pub heads: Heads,
    /// Numbers inside the feed-forward network.
    pub ffn: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
}

/// The tensors of the largest step. All `f32`.
#[derive(Debug)]
pub struct Buffers {
    widths: Widths,
    all: Views,
}

/// The tensors of one step of `T` tokens and `R` rows of logits.
#[derive(Debug)]
pub struct Views {
    /// The residual stream, `[T, hidden]`.
    pub hidden: Tensor,
    /// What a part reads, and then its result, `[T, hidden]`.
    pub normed: Tensor,
    /// Queries, keys and values, `[T, heads.qkv_width()]`.
    pub qkv: Tensor,
    /// What the heads give, `[T, heads · head_dim]`.
    pub attended: Tensor,
    /// Gate and up side by side, `[T, 2 · ffn]`.
    pub gate_up: Tensor,
    /// Gate times up, `[T, ffn]`.
    pub gated: Tensor,
    /// Hidden states that want logits, `[R, hidden]`.
    pub selected: Tensor,
    /// The same, normalised, `[R, hidden]`.
    pub selected_normed: Tensor,
    /// Logits, `[R, vocabulary]`.
    pub logits: Tensor,
}

impl Buffers {
    /// Allocates for the largest step, the kernels' scratch included.
    pub fn new(widths: Widths, kernels: &Kernels) -> Result<Self> {
        let Widths { tokens, rows, hidden, heads, ffn, vocabulary } = widths;
        let zeros = |n: usize, width: usize| Tensor::zeros((n, width), DType::F32, &Device::Cpu);
        kernels.reserve(tokens, widths.widest_input());
        let all = Views {
            hidden: zeros(tokens, hidden)?,
            normed: zeros(tokens, hidden)?,
            qkv: zeros(tokens, heads.qkv_width())?,
            attended: zeros(tokens, heads.heads * heads.head_dim)?,
            gate_up: zeros(tokens, 2 * ffn)?,
            gated: zeros(tokens, ffn)?,
            selected: zeros(rows, hidden)?,
            selected_normed: zeros(rows, hidden)?,
            logits: zeros(rows, vocabulary)?,
        };
        Ok(Self { widths, all })
    }

    /// The tensors cut to a step's size, which is at most the largest.
    pub fn views(&self, tokens: usize, rows: usize) -> Result<Views> {
        let all = &self.all;
        Ok(Views {
            hidden: all.hidden.narrow(0, 0, tokens)?,
            normed: all.normed.narrow(0, 0, tokens)?,
            qkv: all.qkv.narrow(0, 0, tokens)?,
            attended: all.attended.narrow(0, 0, tokens)?,
            gate_up: all.gate_up.narrow(0, 0, tokens)?,
            gated: all.gated.narrow(0, 0, tokens)?,
            selected: all.selected.narrow(0, 0, rows)?,
            selected_normed: all.selected_normed.narrow(0, 0, rows)?,
            logits: all.logits.narrow(0, 0, rows)?,
        })
    }

    /// Bytes of the tensors and the kernels' scratch.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        let Views { hidden, normed, qkv, attended, gate_up, gated, selected, selected_normed, logits } =
            &self.all;
        let tensors = [hidden, normed, qkv, attended, gate_up, gated, selected, selected_normed, logits];
        let numbers: usize = tensors.iter().map(|tensor| tensor.elem_count()).sum();
        let scratch = Kernels::scratch_bytes(self.widths.tokens, self.widths.widest_input());
        Bytes((numbers * size_of::<f32>() + scratch) as u64)
    }
}

impl Widths {
    /// The widest input of any projection.
    fn widest_input(&self) -> usize {
        self.hidden.max(self.ffn).max(self.heads.heads * self.heads.head_dim)
    }
}
