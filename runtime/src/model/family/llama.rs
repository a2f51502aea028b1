//! Llama 3 and what copies it, SmolLM2 and others. Reference: `transformers`, `models/llama/modeling_llama.py`; GGUF:
//! llama.cpp, `src/models/llama.cpp`.

use contract::geometry::Family;
use kernels::RopePairs;

use super::dense::Architecture;

pub(super) const LLAMA: Architecture = Architecture {
    family: Family::Llama,
    // The queries and keys of these files are permuted for it.
    gguf_pairs: RopePairs::Neighbours,
    head_norms: false,
};
