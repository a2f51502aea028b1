use super::*;
use crate::Isa;

const HEADS: Heads = Heads { heads: 6, kv_heads: 2, head_dim: 96 };

/// A deterministic number between −1 and 1.
fn number(index: usize) -> f32 {
    ((index as f32 * 12.9898).sin() * 43_758.547).fract()
}

fn rows(n: usize, seed: usize) -> Vec<f32> {
    (0..n * HEADS.qkv_width()).map(|index| 2.0 * number(index + seed * 100_003)).collect()
}

/// A cache of each type.
enum Store {
    F32(Vec<f32>, Vec<f32>),
    F16(Vec<f16>, Vec<f16>),
    Q8(Vec<u8>, Vec<u8>),
}

impl Store {
    fn f32(blocks: usize) -> Self {
        let numbers = blocks * HEADS.block_len();
        Self::F32(vec![f32::NAN; numbers], vec![f32::NAN; numbers])
    }

    fn f16(blocks: usize) -> Self {
        let numbers = blocks * HEADS.block_len();
        Self::F16(vec![f16::NAN; numbers], vec![f16::NAN; numbers])
    }

    /// Filled with scales that are no numbers.
    fn q8(blocks: usize) -> Self {
        let bytes = blocks * HEADS.q8_0_block_len().unwrap();
        Self::Q8(vec![0x7f; bytes], vec![0x7f; bytes])
    }
}

/// A sequence under way: its rows so far lie in the cache.
struct Sequence {
    table: Vec<u32>,
    rows: Vec<f32>,
}

/// Runs one step over some rows of each sequence.
fn step(kernels: &Kernels, store: &mut Store, parts: &[(&Sequence, std::ops::Range<usize>)]) -> Vec<f32> {
    let width = HEADS.qkv_width();
    let (mut qkv, mut positions, mut slots, mut seq_starts) = (vec![], vec![], vec![], vec![0]);
    let (mut blocks, mut starts) = (vec![], vec![0]);
    for (sequence, range) in parts {
        qkv.extend(&sequence.rows[range.start * width..range.end * width]);
        for position in range.clone() {
            positions.push(position as u32);
            slots.push(
                sequence.table[position / CACHE_BLOCK] * CACHE_BLOCK as u32 + (position % CACHE_BLOCK) as u32,
            );
        }
        seq_starts.push(positions.len() as u32);
        blocks.extend(&sequence.table);
        starts.push(blocks.len() as u32);
    }
    let mut tiles = Vec::new();
    token_tiles(&seq_starts, &mut tiles);
    let tables = BlockTables { blocks: &blocks, starts: &starts };
    let attention = Attention { heads: HEADS, scale: 0.25, positions: &positions, tiles: &tiles, tables };
    let mut y = vec![f32::NAN; positions.len() * HEADS.heads * HEADS.head_dim];
    let write = match store {
        Store::F32(k, v) => KeysValuesMut::F32(k, v),
        Store::F16(k, v) => KeysValuesMut::F16(k, v),
        Store::Q8(k, v) => KeysValuesMut::Q8_0(k, v),
    };
    kernels.write_cache(HEADS, &qkv, &slots, write);
    let read = match store {
        Store::F32(k, v) => KeysValues::F32(k, v),
        Store::F16(k, v) => KeysValues::F16(k, v),
        Store::Q8(k, v) => KeysValues::Q8_0(k, v),
    };
    kernels.attend(&attention, &qkv, read, &mut y);
    y
}

/// Attention of some tokens by its formula, in double precision.
fn formula(rows: &[f32], tokens: std::ops::Range<usize>) -> Vec<f64> {
    let (width, dim) = (HEADS.qkv_width(), HEADS.head_dim);
    let group = HEADS.heads / HEADS.kv_heads;
    let at = |token: usize, start: usize| &rows[token * width + start..][..dim];
    let mut all = Vec::new();
    for token in tokens {
        for head in 0..HEADS.heads {
            let query = at(token, head * dim);
            let kv_head = head / group;
            let keys = HEADS.heads * dim + kv_head * dim;
            let values = keys + HEADS.kv_heads * dim;
            let dot = |key: &[f32]| -> f64 {
                query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum()
            };
            let weights: Vec<f64> = (0..=token).map(|other| (0.25 * dot(at(other, keys))).exp()).collect();
            let total: f64 = weights.iter().sum();
            for number in 0..dim {
                let sum: f64 = weights
                    .iter()
                    .enumerate()
                    .map(|(other, w)| w * f64::from(at(other, values)[number]))
                    .sum();
                all.push(sum / total);
            }
        }
    }
    all
}

fn sequence(n: usize, seed: usize, table: &[u32]) -> Sequence {
    Sequence { table: table.to_vec(), rows: rows(n, seed) }
}

#[test]
fn results_follow_the_formula() {
    let one = sequence(75, 1, &[3, 0, 2]);
    let truth = formula(&one.rows, 0..75);
    for (mut store, allowed) in [(Store::f32(4), 1e-5), (Store::f16(4), 3e-3), (Store::q8(4), 6e-2)] {
        let found = step(&Kernels::new(Isa::detect(), 2), &mut store, &[(&one, 0..75)]);
        for (index, (found, truth)) in found.iter().zip(&truth).enumerate() {
            assert!((f64::from(*found) - truth).abs() < allowed, "{index}: {found} for {truth}");
        }
    }
}

#[test]
fn every_instruction_set_and_cut_gives_the_same_bits() {
    let one = sequence(75, 1, &[3, 0, 2]);
    for new in [Store::f32, Store::f16, Store::q8] {
        let expected = step(&Kernels::new(Isa::scalar(), 1), &mut new(4), &[(&one, 0..75)]);
        for isa in Isa::available() {
            let kernels = Kernels::new(isa, 3);
            assert_eq!(step(&kernels, &mut new(4), &[(&one, 0..75)]), expected, "{}", isa.name());
            let mut store = new(4);
            let mut found = Vec::new();
            for range in [0..1, 1..31, 31..33, 33..70, 70..74, 74..75] {
                found.extend(step(&kernels, &mut store, &[(&one, range)]));
            }
            assert_eq!(found, expected, "{} in pieces", isa.name());
        }
    }
}

/// Spans of their own for threads that have nothing else to do, in one wave or two, are spans that one task goes through.
#[test]
fn long_contexts_give_the_same_bits_whoever_goes_through_them() {
    let n = 3 * SPAN + 40;
    let table: Vec<u32> = (0..n.div_ceil(CACHE_BLOCK) as u32).rev().collect();
    let one = sequence(n, 1, &table);
    let row = HEADS.heads * HEADS.head_dim;
    let together = step(&Kernels::new(Isa::detect(), 1), &mut Store::f32(table.len()), &[(&one, 0..n)]);
    for (found, truth) in together[(n - 1) * row..].iter().zip(formula(&one.rows, n - 1..n)) {
        assert!((f64::from(*found) - truth).abs() < 1e-5, "{found} for {truth}");
    }
    for isa in Isa::available() {
        for threads in [1, 2, 5] {
            let (kernels, mut store) = (Kernels::new(isa, threads), Store::f32(table.len()));
            let mut found = Vec::new();
            for range in [0..n - 45, n - 45..n - 13, n - 13..n - 1, n - 1..n] {
                found.extend(step(&kernels, &mut store, &[(&one, range)]));
            }
            assert!(found == together, "{} on {threads} threads", isa.name());
        }
    }
}

#[test]
fn sequences_of_a_step_do_not_see_each_other() {
    let kernels = Kernels::new(Isa::detect(), 2);
    let (one, two, three) = (sequence(40, 1, &[5, 1]), sequence(3, 2, &[0]), sequence(33, 3, &[2, 4]));
    let mut store = Store::f32(6);
    step(&kernels, &mut store, &[(&three, 0..32)]);
    let together = step(&kernels, &mut store, &[(&one, 0..40), (&two, 0..3), (&three, 32..33)]);
    let mut alone = Vec::new();
    for (sequence, n, last) in [(&one, 40, 40), (&two, 3, 3), (&three, 33, 1)] {
        let y = step(&kernels, &mut Store::f32(6), &[(sequence, 0..n)]);
        alone.extend(&y[(n - last) * HEADS.heads * HEADS.head_dim..]);
    }
    assert_eq!(together, alone);
}

#[test]
fn unsupported_heads_are_known() {
    assert!(HEADS.supported());
    for heads in [
        Heads { kv_heads: 0, ..HEADS },
        Heads { kv_heads: 4, ..HEADS },
        Heads { head_dim: 40, ..HEADS },
        Heads { head_dim: 512, ..HEADS },
    ] {
        assert!(!heads.supported(), "{heads:?}");
    }
}
