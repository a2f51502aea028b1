//! CPU kernels of the runtime: packed linears, paged attention, norms, rope, and the pool they run on.
//!
//! In come plain slices; out come plain slices. Nothing here knows of tensors, files, models or requests.
//!
//! Three properties hold for every kernel, and tests pin them:
//! - A row's result does not depend on which other rows share the call, nor on the number of threads.
//! - Every instruction set gives the same bits: each kernel is written once over `lanes::Lanes`, sixteen
//!   lanes wide, with a fixed order of summation, and only the lane operations differ.
//! - Packed weights are as large as their source, with the rows rounded up to [`format::TILE`].

mod activations;
mod attention;
mod dequantize;
mod elementwise;
mod embedding;
mod exp;
mod format;
mod isa;
mod lanes;
mod linear;
mod memory;
mod norm;
mod pack;
mod pool;
mod rope;
mod shared;
pub mod threads;

use std::sync::Mutex;

use pool::ThreadPool;

pub use attention::{
    Attention, BlockTables, CACHE_BLOCK, Heads, KeysValues, KeysValuesMut, TokenTile, token_tiles,
};
pub use format::{Format, LAYOUT, Packed, TILE};
pub use isa::Isa;
pub use memory::{Arena, Piece, prefer_huge_pages};
pub use norm::HeadNorm;
pub use pack::{PackError, Source};
pub use rope::{RopePairs, Rotation};

/// The kernels of one instruction set on one pool, with the scratch that they reuse from call to call.
///
/// Several threads may share it, but their calls run one after the other.
#[derive(Debug)]
pub struct Kernels {
    isa: Isa,
    pool: ThreadPool,
    activations: Mutex<Vec<activations::Group>>,
    /// What spans of long contexts leave for each other.
    partials: Mutex<Vec<f32>>,
}

impl Kernels {
    /// Kernels of `isa` on `threads` threads, the caller's among them.
    #[must_use]
    pub fn new(isa: Isa, threads: usize) -> Self {
        // Zeros would come with their first use only; what is written is there from the start.
        let partials = Mutex::new(vec![1.0; attention::SCRATCH]);
        Self { isa, pool: ThreadPool::new(threads), activations: Mutex::new(Vec::new()), partials }
    }

    /// The instruction set in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// How many threads work on a call.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Runs `task(0)` to `task(n_tasks - 1)`, each once and some at the same time, and returns when all are done.
    ///
    /// # Panics
    /// Where a task does, after all others are done; or on more than 65,535 tasks.
    pub fn par_for(&self, n_tasks: usize, task: impl Fn(usize) + Sync) {
        self.pool.par_for(n_tasks, task);
    }

    /// Runs `f` over row ranges that cover `0..n_rows`, in parallel where `work` (about one unit for each
    /// number touched) pays for waking a thread.
    fn for_rows(&self, n_rows: usize, work: usize, f: impl Fn(std::ops::Range<usize>) + Sync) {
        const WORTH_A_THREAD: usize = 16_384;
        let wanted = if work < WORTH_A_THREAD { 1 } else { self.pool.threads() * 4 };
        let n_tasks = wanted.min(n_rows);
        self.pool.par_for(n_tasks, |task| f(share(n_rows, n_tasks, task)));
    }
}

/// The `index`-th of `n_parts` nearly equal, contiguous parts of `0..n`.
fn share(n: usize, n_parts: usize, index: usize) -> std::ops::Range<usize> {
    n * index / n_parts..n * (index + 1) / n_parts
}

#[cfg(test)]
mod tests {
    #[test]
    fn shares_cover_everything_once() {
        for n in [0, 1, 7, 16, 1000] {
            for parts in 1..9 {
                let covered: Vec<usize> =
                    (0..parts).flat_map(|index| super::share(n, parts, index)).collect();
                assert_eq!(covered, (0..n).collect::<Vec<_>>(), "{n} in {parts}");
            }
        }
    }
}
