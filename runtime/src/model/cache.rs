//! The cache of all sequences, outside of the layers: paged arenas allocated once, by bytes.
//!
//! Which block belongs to whom is the engine's business; here are only the numbers.

use candle_core::{DType, Device, Tensor};
use contract::memory::BLOCK_TOKENS;
use contract::{Bytes, KvDType};
use kernels::CACHE_BLOCK;

const _: () = assert!(CACHE_BLOCK == BLOCK_TOKENS as usize, "the plan's blocks are the kernels'");

/// What a model keeps of the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSpec {
    /// Groups of layers that share block tables.
    pub groups: Vec<CacheGroup>,
}

/// Layers whose cache is kept in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheGroup {
    /// Keys and values of every token, in blocks.
    Paged(PagedGroup),
}

/// Layers that keep keys and values of every token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagedGroup {
    /// How many layers.
    pub layers: usize,
    /// Key and value heads of each.
    pub kv_heads: usize,
    /// Numbers of a head.
    pub head_dim: usize,
}

/// Arenas for a number of blocks.
#[derive(Debug)]
pub struct Cache {
    spec: CacheSpec,
    n_blocks: usize,
    /// For each group, for each layer: `[2, n_blocks, kv_heads, 32, head_dim]`, keys before values.
    arenas: Vec<Vec<Tensor>>,
}

impl Cache {
    /// Allocates `n_blocks` blocks for every layer of `spec`.
    ///
    /// # Errors
    /// Where the tensor library cannot allocate.
    pub fn new(spec: CacheSpec, kv_dtype: KvDType, n_blocks: usize) -> candle_core::Result<Self> {
        let dtype = match kv_dtype {
            KvDType::F32 => DType::F32,
            KvDType::F16 => DType::F16,
        };
        let arenas = |CacheGroup::Paged(group): &CacheGroup| {
            let shape = (2, n_blocks, group.kv_heads, CACHE_BLOCK, group.head_dim);
            (0..group.layers).map(|_| Tensor::zeros(shape, dtype, &Device::Cpu)).collect()
        };
        let arenas = spec.groups.iter().map(arenas).collect::<candle_core::Result<_>>()?;
        Ok(Self { spec, n_blocks, arenas })
    }

    /// What it was made for.
    #[must_use]
    pub fn spec(&self) -> &CacheSpec {
        &self.spec
    }

    /// Blocks that each layer has.
    #[must_use]
    pub fn n_blocks(&self) -> usize {
        self.n_blocks
    }

    /// Bytes of all arenas.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        let bytes = |arena: &Tensor| arena.elem_count() * arena.dtype().size_in_bytes();
        Bytes(self.arenas.iter().flatten().map(bytes).sum::<usize>() as u64)
    }

    /// The arena of a layer of a group.
    pub(super) fn arena(&self, group: usize, layer: usize) -> &Tensor {
        &self.arenas[group][layer]
    }
}
