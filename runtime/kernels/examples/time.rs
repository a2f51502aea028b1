//! Prints how fast the kernels are on this machine: `time [linear|attention|step] [filter]`.
//!
//! Every figure is the best of many runs. Weights are more than the caches hold, as in a model, so that the linears
//! of few rows show what memory gives; `read` is what a plain sum over as many bytes reaches.

use std::time::{Duration, Instant};

use half::f16;
use kernels::{
    Attention, BlockTables, CACHE_BLOCK, Format, Heads, Isa, Kernels, KeysValues, KeysValuesMut, Packed,
    RopePairs, Rotation, TokenTile, token_tiles,
};

/// Bytes of weights that are cycled through.
const WEIGHT_BYTES: usize = 96 << 20;

/// How long one figure is measured.
const PATIENCE: Duration = Duration::from_millis(250);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let part = arguments.first().map_or("linear", String::as_str);
    let filter = arguments.get(1).map_or("", String::as_str);
    for threads in [1, 2] {
        let kernels = Kernels::new(Isa::detect(), threads);
        println!("{} threads, {}", threads, kernels.isa().name());
        match part {
            "attention" => attention(&kernels, filter),
            "step" => step(&kernels),
            _ => linear(&kernels, threads, filter),
        }
    }
}

/// The shortest of as many runs as fit into the patience.
fn best(mut run: impl FnMut()) -> f64 {
    run();
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    while start.elapsed() < PATIENCE {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|index| (index as f32 * 12.9898).sin()).collect()
}

fn halves(numbers: &[f32]) -> Vec<f16> {
    numbers.iter().map(|number| f16::from_f32(*number)).collect()
}

fn read(threads: usize) -> f64 {
    let bytes = vec![1u64; WEIGHT_BYTES / 8];
    let best = best(|| {
        std::thread::scope(|scope| {
            for part in bytes.chunks(bytes.len().div_ceil(threads)) {
                scope.spawn(move || std::hint::black_box(part.iter().fold(0u64, |a, b| a.wrapping_add(*b))));
            }
        });
    });
    WEIGHT_BYTES as f64 / best / 1e9
}

fn linear(kernels: &Kernels, threads: usize, filter: &str) {
    println!("read {:.1} GB/s", read(threads));
    for format in Format::ALL.into_iter().filter(|format| format!("{format:?}").contains(filter)) {
        for (rows, columns) in [(1536, 512), (1024, 1024), (576, 1536)] {
            let one = format.packed_bytes(rows, columns).expect("the shape suits the formats");
            // Small numbers in every format, so that no arithmetic is slow for their sake.
            let bytes = vec![0x11u8; one * (WEIGHT_BYTES / one)];
            print!("{format:?} {rows}×{columns}:");
            for n in [1, 2, 4, 8, 16, 32, 64, 128, 512] {
                let (x, mut y) = (numbers(n * columns), vec![0.0; n * rows]);
                let matrices = if n < 32 { WEIGHT_BYTES / one } else { 4 };
                let seconds = best(|| {
                    for bytes in bytes.chunks_exact(one).take(matrices) {
                        let packed = Packed::new(format, rows, columns, bytes).expect("the size is right");
                        kernels.linear(&[packed], &x, &mut y);
                    }
                }) / matrices as f64;
                let (gb, gop) =
                    (one as f64 / seconds / 1e9, 2.0 * (n * rows * columns) as f64 / seconds / 1e9);
                print!("  {n}: {gb:.1} GB/s {gop:.0} GOP/s");
            }
            println!();
        }
    }
}

/// Decoding and prefill over a cache of their own for each sequence.
fn attention(kernels: &Kernels, filter: &str) {
    for heads in
        [Heads { heads: 9, kv_heads: 3, head_dim: 64 }, Heads { heads: 16, kv_heads: 8, head_dim: 128 }]
    {
        for (sequences, tokens, context) in [
            (1, 1, 128),
            (1, 1, 512),
            (1, 1, 4096),
            (8, 1, 128),
            (8, 1, 512),
            (8, 1, 4096),
            (32, 1, 128),
            (32, 1, 512),
            (1, 512, 512),
            (1, 128, 128),
            (8, 128, 128),
        ] {
            let blocks = (context as usize).div_ceil(CACHE_BLOCK);
            let n_numbers = sequences * blocks * heads.block_len();
            let positions: Vec<u32> = (0..sequences).flat_map(|_| context - tokens..context).collect();
            let seq_starts: Vec<u32> = (0..=sequences as u32).map(|index| index * tokens).collect();
            let starts: Vec<u32> = (0..=sequences).map(|index| (index * blocks) as u32).collect();
            let table: Vec<u32> = (0..(sequences * blocks) as u32).collect();
            let qkv = numbers(positions.len() * heads.qkv_width());
            let mut y = vec![0.0; positions.len() * heads.heads * heads.head_dim];
            let mut tiles = Vec::new();
            token_tiles(&seq_starts, &mut tiles);
            let tables = BlockTables { blocks: &table, starts: &starts };
            let attention = Attention { heads, scale: 0.125, positions: &positions, tiles: &tiles, tables };
            let (keys, values) = (numbers(n_numbers), numbers(n_numbers));
            let (keys16, values16) = (halves(&keys), halves(&values));
            let seen: f64 = positions.iter().map(|position| f64::from(*position) + 1.0).sum();
            let work = 4.0 * seen * (heads.heads * heads.head_dim) as f64;
            let read = 2.0 * n_numbers as f64;
            for (name, size, cache) in [
                ("F32", 4.0, KeysValues::F32(&keys, &values)),
                ("F16", 2.0, KeysValues::F16(&keys16, &values16)),
            ] {
                let title = format!("{}/{}×{} {name}", heads.heads, heads.kv_heads, heads.head_dim);
                if title.contains(filter) {
                    let seconds = best(|| kernels.attend(&attention, &qkv, cache, &mut y));
                    println!(
                        "{title}: {sequences} sequences, {tokens} tokens at {context}: {:.1} µs {:.1} GB/s {:.0} GOP/s",
                        seconds * 1e6,
                        size * read / seconds / 1e9,
                        work / seconds / 1e9
                    );
                }
            }
        }
    }
}

/// A step of a model shaped as SmolLM2-135M with weights in Q4_1: `n` sequences of `tokens` tokens up to `context`,
/// and how long each kind of operation takes of it.
fn step(kernels: &Kernels) {
    let model = Model::new();
    for (sequences, tokens, context) in [(1, 1, 192), (8, 1, 192), (32, 1, 192), (1, 128, 128), (1, 512, 512)]
    {
        let rows = sequences * tokens as usize;
        let (mut best, mut parts) = (f64::INFINITY, [0.0; PARTS.len()]);
        let start = Instant::now();
        let mut state = State::new(sequences, tokens, context);
        while start.elapsed() < 8 * PATIENCE {
            let mut times = [0.0; PARTS.len()];
            model.forward(kernels, &mut state, &mut times);
            let total = times.iter().sum();
            if total < best {
                (best, parts) = (total, times);
            }
        }
        print!(
            "{sequences} × {tokens} at {context}: {:.3} ms, {:.0} tokens/s:",
            best * 1e3,
            rows as f64 / best
        );
        for (name, seconds) in PARTS.iter().zip(parts) {
            print!("  {name} {:.3}", seconds * 1e3);
        }
        println!();
    }
}

const PARTS: [&str; 8] =
    ["norm", "qkv+o", "rope+write", "attend", "add", "gate+up+down", "silu·mul", "logits"];
const HEADS: Heads = Heads { heads: 9, kv_heads: 3, head_dim: 64 };
const HIDDEN: usize = 576;
const FFN: usize = 1536;
const VOCABULARY: usize = 49_152;
const LAYERS: usize = 30;

/// Weights of one matrix, all quants alike.
struct Weight(usize, usize, Vec<u8>);

impl Weight {
    fn new(rows: usize, columns: usize) -> Self {
        let bytes = Format::Q4_1.packed_bytes(rows, columns).expect("the shape suits the format");
        // Small alternating numbers: results stay finite through all layers.
        Self(rows, columns, [0x00u8, 0x01, 0x00, 0x81].into_iter().cycle().take(bytes).collect())
    }

    fn view(&self) -> Packed<'_> {
        Packed::new(Format::Q4_1, self.0, self.1, &self.2).expect("the size is right")
    }
}

struct Model {
    layers: Vec<[Weight; 7]>,
    output: Weight,
    norm: Vec<f32>,
}

struct State {
    positions: Vec<u32>,
    slots: Vec<u32>,
    tiles: Vec<TokenTile>,
    table: Vec<u32>,
    starts: Vec<u32>,
    angles: Vec<f32>,
    caches: Vec<[Vec<f16>; 2]>,
    hidden: Vec<f32>,
    normed: Vec<f32>,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    gate_up: Vec<f32>,
    gated: Vec<f32>,
    logits: Vec<f32>,
    sequences: usize,
}

impl State {
    fn new(sequences: usize, tokens: u32, context: u32) -> Self {
        let blocks = (context as usize).div_ceil(CACHE_BLOCK);
        let positions: Vec<u32> = (0..sequences).flat_map(|_| context - tokens..context).collect();
        let rows = positions.len();
        let slot = |(index, position): (usize, &u32)| {
            (index / tokens as usize * blocks * CACHE_BLOCK) as u32 + position
        };
        let seq_starts: Vec<u32> = (0..=sequences as u32).map(|index| index * tokens).collect();
        let mut tiles = Vec::new();
        token_tiles(&seq_starts, &mut tiles);
        let cache = || halves(&numbers(sequences * blocks * HEADS.block_len()));
        Self {
            slots: positions.iter().enumerate().map(slot).collect(),
            tiles,
            table: (0..(sequences * blocks) as u32).collect(),
            starts: (0..=sequences).map(|index| (index * blocks) as u32).collect(),
            angles: numbers(rows * HEADS.head_dim / 2),
            caches: (0..LAYERS).map(|_| [cache(), cache()]).collect(),
            hidden: numbers(rows * HIDDEN),
            normed: numbers(rows * HIDDEN),
            qkv: numbers(rows * HEADS.qkv_width()),
            attended: numbers(rows * HEADS.heads * HEADS.head_dim),
            gate_up: numbers(rows * 2 * FFN),
            gated: numbers(rows * FFN),
            logits: numbers(sequences * VOCABULARY),
            positions,
            sequences,
        }
    }
}

impl Model {
    fn new() -> Self {
        let (q, kv) = (HEADS.heads * HEADS.head_dim, HEADS.kv_heads * HEADS.head_dim);
        let layer = |_| {
            let shapes = [
                (q, HIDDEN),
                (kv, HIDDEN),
                (kv, HIDDEN),
                (HIDDEN, q),
                (FFN, HIDDEN),
                (FFN, HIDDEN),
                (HIDDEN, FFN),
            ];
            shapes.map(|(rows, columns)| Weight::new(rows, columns))
        };
        Self {
            layers: (0..LAYERS).map(layer).collect(),
            output: Weight::new(VOCABULARY, HIDDEN),
            norm: vec![1.0; HIDDEN],
        }
    }

    fn forward(&self, kernels: &Kernels, state: &mut State, times: &mut [f64; PARTS.len()]) {
        let mut since = Instant::now();
        let mut count = |part: usize| {
            times[part] += since.elapsed().as_secs_f64();
            since = Instant::now();
        };
        let State { hidden, normed, qkv, attended, gate_up, gated, logits, .. } = state;
        for ([q, k, v, o, gate, up, down], [keys, values]) in self.layers.iter().zip(&mut state.caches) {
            kernels.rms_norm(hidden, &self.norm, 1e-5, normed);
            count(0);
            kernels.linear(&[q.view(), k.view(), v.view()], normed, qkv);
            count(1);
            let (cos, sin) = (&state.angles[..], &state.angles[..]);
            let rotation = Rotation { pairs: RopePairs::Neighbours, head_dim: HEADS.head_dim, cos, sin };
            kernels.rope(qkv, HEADS.qkv_width(), HEADS.heads + HEADS.kv_heads, rotation);
            kernels.write_cache(HEADS, qkv, &state.slots, KeysValuesMut::F16(keys, values));
            count(2);
            let tables = BlockTables { blocks: &state.table, starts: &state.starts };
            let (positions, tiles) = (&state.positions[..], &state.tiles[..]);
            let attention = Attention { heads: HEADS, scale: 0.125, positions, tiles, tables };
            kernels.attend(&attention, qkv, KeysValues::F16(keys, values), attended);
            count(3);
            kernels.linear(&[o.view()], attended, normed);
            count(1);
            kernels.add(hidden, normed);
            count(4);
            kernels.rms_norm(hidden, &self.norm, 1e-5, normed);
            count(0);
            kernels.linear(&[gate.view(), up.view()], normed, gate_up);
            count(5);
            kernels.silu_mul(gate_up, FFN, gated);
            count(6);
            kernels.linear(&[down.view()], gated, normed);
            count(5);
            kernels.add(hidden, normed);
            count(4);
        }
        kernels.linear(&[self.output.view()], &normed[..state.sequences * HIDDEN], logits);
        count(7);
    }
}
