//! Causal self-attention with grouped heads over the paged cache (Vaswani et al. 2017; Ainslie et al. 2023).

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor};
use kernels::{Attention, Heads, Kernels, KeysValues, KeysValuesMut};

use super::buffers::Views;
use super::linear::Linear;
use super::norm::HeadNorms;
use super::rope::Rope;
use super::{Context, floats, floats_mut};
use crate::model::step::GroupInput;

/// Attention of one layer.
#[derive(Debug)]
pub struct SelfAttention {
    /// Its heads.
    pub heads: Heads,
    /// Queries, keys and values, stacked.
    pub qkv: Linear,
    /// Norms of the queries and keys of each head, where a family has them.
    pub head_norms: Option<HeadNorms>,
    /// From the heads back to the hidden state.
    pub output: Linear,
}

impl SelfAttention {
    /// Reads `views.normed` and leaves the result there.
    ///
    /// Keys and values always go to the cache first and are read back from it, so that a token sees the same
    /// numbers whether they were computed in this step or an earlier one.
    ///
    /// # Shapes
    /// - `arena`: `[2, blocks, kv_heads, 32, head_dim]`, keys before values; in Q8_0, bytes instead of numbers
    pub fn forward(
        &self,
        context: &Context<'_>,
        rope: &Rope,
        arena: (&Tensor, &GroupInput),
        views: &Views,
    ) -> Result<()> {
        let (arena, group) = arena;
        self.qkv.forward(context, &views.normed, &views.qkv)?;
        if let Some(norms) = &self.head_norms {
            norms.forward(context, self.heads, &views.qkv)?;
        }
        rope.forward(context, self.heads, &views.qkv)?;
        let write = Write { kernels: context.kernels, heads: self.heads, slots: &group.slots };
        arena.inplace_op2(&views.qkv, &write)?;
        let attention = Attention {
            heads: self.heads,
            scale: 1.0 / (self.heads.head_dim as f32).sqrt(),
            positions: &context.step.positions,
            tiles: context.tiles,
            tables: group.tables(),
        };
        let attend = Attend { kernels: context.kernels, attention };
        views.attended.inplace_op3(&views.qkv, arena, &attend)?;
        self.output.forward(context, &views.attended, &views.normed)
    }
}

struct Write<'a> {
    kernels: &'a Kernels,
    heads: Heads,
    slots: &'a [u32],
}

impl InplaceOp2 for Write<'_> {
    fn name(&self) -> &'static str {
        "cache-write"
    }

    fn cpu_fwd(&self, arena: &mut CpuStorage, _: &Layout, qkv: &CpuStorage, layout: &Layout) -> Result<()> {
        let cache = match arena {
            CpuStorage::F32(arena) => {
                let half = arena.len() / 2;
                let (keys, values) = arena.split_at_mut(half);
                KeysValuesMut::F32(keys, values)
            }
            CpuStorage::F16(arena) => {
                let half = arena.len() / 2;
                let (keys, values) = arena.split_at_mut(half);
                KeysValuesMut::F16(keys, values)
            }
            CpuStorage::U8(arena) => {
                let half = arena.len() / 2;
                let (keys, values) = arena.split_at_mut(half);
                KeysValuesMut::Q8_0(keys, values)
            }
            _ => candle_core::bail!("the cache is of a type that has no kernel"),
        };
        self.kernels.write_cache(self.heads, floats(qkv, layout)?, self.slots, cache);
        Ok(())
    }
}

struct Attend<'a> {
    kernels: &'a Kernels,
    attention: Attention<'a>,
}

impl InplaceOp3 for Attend<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        y: &mut CpuStorage,
        yl: &Layout,
        qkv: &CpuStorage,
        qkvl: &Layout,
        arena: &CpuStorage,
        _: &Layout,
    ) -> Result<()> {
        let cache = match arena {
            CpuStorage::F32(arena) => {
                let (keys, values) = arena.split_at(arena.len() / 2);
                KeysValues::F32(keys, values)
            }
            CpuStorage::F16(arena) => {
                let (keys, values) = arena.split_at(arena.len() / 2);
                KeysValues::F16(keys, values)
            }
            CpuStorage::U8(arena) => {
                let (keys, values) = arena.split_at(arena.len() / 2);
                KeysValues::Q8_0(keys, values)
            }
            _ => candle_core::bail!("the cache is of a type that has no kernel"),
        };
        self.kernels.attend(&self.attention, floats(qkv, qkvl)?, cache, floats_mut(y, yl)?);
        Ok(())
    }
}
