//! The cache of all sequences, outside of the layers: paged arenas allocated once, by bytes.
//!
//! Which block belongs to whom is the engine's business; here are only the numbers.

use candle_core::{Device, Shape, Tensor, WithDType};
use contract::memory::BLOCK_TOKENS;
use contract::{Bytes, KvDType};
use half::f16;
use kernels::{CACHE_BLOCK, prefer_huge_pages};

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

/// Zeros that are really there: the system only promises memory that is asked for as zeros.
fn touched<T: WithDType>(shape: impl Into<Shape>) -> candle_core::Result<Tensor> {
    let shape = shape.into();
    let mut numbers = Vec::with_capacity(shape.elem_count());
    prefer_huge_pages(numbers.spare_capacity_mut());
    numbers.resize(shape.elem_count(), std::hint::black_box(T::zero()));
    Tensor::from_vec(numbers, shape, &Device::Cpu)
}

fn q8_0_bytes(head_dim: usize) -> candle_core::Result<usize> {
    match contract::DType::Q8_0.tensor_bytes(&[head_dim as u64]) {
        Some(bytes) => Ok(bytes as usize),
        None => candle_core::bail!("a Q8_0 cache needs heads of a multiple of 32 numbers, not of {head_dim}"),
    }
}

/// Arenas for a number of blocks.
#[derive(Debug)]
pub struct Cache {
    spec: CacheSpec,
    n_blocks: usize,
    /// For each group, for each layer: `[2, n_blocks, kv_heads, 32, head_dim]`, keys before values; in Q8_0 the last
    /// dimension counts bytes.
    arenas: Vec<Vec<Tensor>>,
}

impl Cache {
    /// Allocates `n_blocks` blocks for every layer of `spec`, and touches them: what is missing is missed now, and
    /// nothing grows later.
    ///
    /// # Errors
    /// Where the tensor library cannot allocate.
    pub fn new(spec: CacheSpec, kv_dtype: KvDType, n_blocks: usize) -> candle_core::Result<Self> {
        let arenas = |CacheGroup::Paged(group): &CacheGroup| {
            let shape = |head: usize| (2, n_blocks, group.kv_heads, CACHE_BLOCK, head);
            let arena = |_| match kv_dtype {
                KvDType::F32 => touched::<f32>(shape(group.head_dim)),
                KvDType::F16 => touched::<f16>(shape(group.head_dim)),
                KvDType::Q8_0 => touched::<u8>(shape(q8_0_bytes(group.head_dim)?)),
            };
            (0..group.layers).map(arena).collect()
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
