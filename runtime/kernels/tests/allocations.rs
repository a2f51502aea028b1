//! What a decode loop calls allocates nothing once its scratch is there.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use kernels::{
    Attention, BlockTables, CACHE_BLOCK, Format, HeadNorm, Heads, Isa, Kernels, KeysValues, KeysValuesMut,
    Packed, RopePairs, Rotation, token_tiles,
};

/// The system's allocator, with a count of what it is asked for by any thread.
struct Counting;

static ASKED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller keeps what the trait asks of it.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const HEADS: Heads = Heads { heads: 4, kv_heads: 2, head_dim: 64 };
const HIDDEN: usize = 256;
/// Long enough that its spans may go to threads of their own.
const CONTEXT: usize = 1200;

#[test]
fn the_kernels_of_a_step_allocate_nothing() {
    let kernels = Kernels::new(Isa::detect(), 3);
    let floats = |n: usize| vec![0.5f32; n];
    let blocks = CONTEXT.div_ceil(CACHE_BLOCK);
    let table: Vec<u32> = (0..2 * blocks as u32).collect();
    let tables = BlockTables { blocks: &table, starts: &[0, blocks as u32, 2 * blocks as u32] };
    let (mut keys, mut values) =
        (floats(2 * blocks * HEADS.block_len()), floats(2 * blocks * HEADS.block_len()));
    let positions = [CONTEXT as u32 - 1, 40];
    let slots = [CONTEXT as u32 - 1, (blocks * CACHE_BLOCK) as u32 + 40];
    let (mut x, mut normed, mut qkv) =
        (floats(2 * HIDDEN), floats(2 * HIDDEN), floats(2 * HEADS.qkv_width()));
    let (mut gated, mut attended) = (floats(HIDDEN), floats(2 * HEADS.heads * HEADS.head_dim));
    let (weight, angles, mut tiles) = (floats(HIDDEN), floats(HEADS.head_dim), Vec::with_capacity(2));
    let stores = Format::ALL
        .map(|format| (format, vec![0u8; format.packed_bytes(HEADS.qkv_width(), HIDDEN).unwrap()]));
    kernels.reserve(2, HIDDEN);
    let mut step = || {
        token_tiles(&[0, 1, 2], &mut tiles);
        for (format, bytes) in &stores {
            let packed = Packed::new(*format, HEADS.qkv_width(), HIDDEN, bytes).unwrap();
            kernels.embed(packed, &[3, 5], &mut x);
            kernels.rms_norm(&x, &weight, 1e-5, &mut normed);
            kernels.linear(&[packed], &normed, &mut qkv);
        }
        let norm = |n_heads| HeadNorm { n_heads, weight: &weight[..HEADS.head_dim], epsilon: 1e-5 };
        kernels.head_norms(&mut qkv, HEADS.qkv_width(), &[norm(HEADS.heads), norm(HEADS.kv_heads)]);
        let rotation =
            Rotation { pairs: RopePairs::Halves, head_dim: HEADS.head_dim, cos: &angles, sin: &angles };
        kernels.rope(&mut qkv, HEADS.qkv_width(), HEADS.heads + HEADS.kv_heads, rotation);
        kernels.write_cache(HEADS, &qkv, &slots, KeysValuesMut::F32(&mut keys, &mut values));
        let attention =
            Attention { heads: HEADS, scale: 0.125, positions: &positions, tiles: &tiles, tables };
        kernels.attend(&attention, &qkv, KeysValues::F32(&keys, &values), &mut attended);
        kernels.add(&mut x, &attended);
        kernels.silu_mul(&attended, HIDDEN, &mut gated);
    };
    step();
    let before = ASKED.load(Ordering::SeqCst);
    (0..3).for_each(|_| step());
    assert_eq!(ASKED.load(Ordering::SeqCst), before);
}
