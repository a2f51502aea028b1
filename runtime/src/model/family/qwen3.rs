//! Qwen3's dense models. Reference: `transformers`, `models/qwen3/modeling_qwen3.py`; GGUF: llama.cpp,
//! `src/models/qwen3.cpp`.
//!
//! They differ from Llama in that queries and keys are normalised head by head before they are rotated, and in that
//! the size of a head does not follow from the hidden size.

use contract::geometry::Family;
use kernels::RopePairs;

use super::dense::Architecture;

pub(super) const QWEN3: Architecture =
    Architecture { family: Family::Qwen3, gguf_pairs: RopePairs::Halves, head_norms: true };
