//! The self-test behind readiness: a small built-in model of each family, on the very kernels that will serve, against logits that
//! are committed beside it.
//!
//! The models are made from a seed, so that nothing is read from outside. `reference.py` computes the same logits with
//! nothing but Python's own arithmetic. It must not know of the model that is served.

pub mod tiny;

use std::sync::Arc;

use contract::KvDType;
use contract::geometry::Family;
use kernels::Kernels;

use crate::model::{Cache, ForwardError, Model, ModelError, Part, StepInput, with_floats};
use tiny::Tiny;

/// Logits of the self-test's rows, one row a line.
const GOLDEN: &str = include_str!("selftest/golden.txt");

/// The caches that are tested with each family, in the order of the golden's rows.
const CACHES: [KvDType; 2] = [KvDType::F32, KvDType::F16];

/// How far a logit may be off. Kernels of one set agree to the bit; another set's different rounding may move a
/// quantized activation by one step, which changes logits by a few thousandths. A wrong kernel changes them by tenths.
const TOLERANCE: f32 = 0.01;

/// Why a device must not serve.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// The built-in model cannot be made here.
    #[error("the built-in model cannot be loaded")]
    Load(#[from] ModelError),
    /// A step failed.
    #[error("the built-in model cannot be run")]
    Run(#[from] ForwardError),
    /// A number is wrong.
    #[error("the {kernels} kernels give {found} for logit {index} of row {row}, where {expected} is right")]
    Wrong {
        /// The kernel set.
        kernels: &'static str,
        /// Which sequence's token it follows.
        row: usize,
        /// Which token of the vocabulary.
        index: usize,
        /// What came out.
        found: f32,
        /// What is committed.
        expected: f32,
    },
    /// The shape of the result is wrong.
    #[error("{found} logits came out where {expected} are right")]
    Count {
        /// What came out.
        found: usize,
        /// What is committed.
        expected: usize,
    },
}

/// Runs the built-in models on `kernels` and compares its logits.
///
/// # Errors
/// Where the device cannot run it, or gives other numbers.
pub fn run(kernels: &Arc<Kernels>) -> Result<(), SelfTestError> {
    let found = all_logits(kernels)?;
    let expected: Vec<f32> =
        GOLDEN.split_ascii_whitespace().map(|word| word.parse().unwrap_or(f32::NAN)).collect();
    if found.len() != expected.len() {
        return Err(SelfTestError::Count { found: found.len(), expected: expected.len() });
    }
    for (at, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
        let near = (found - expected).abs() <= TOLERANCE;
        if !near {
            let (row, index) = (at / tiny::VOCABULARY, at % tiny::VOCABULARY);
            return Err(SelfTestError::Wrong { kernels: kernels.isa().name(), row, index, found, expected });
        }
    }
    Ok(())
}

/// The golden's rows.
fn all_logits(kernels: &Arc<Kernels>) -> Result<Vec<f32>, SelfTestError> {
    let mut all = Vec::new();
    for family in Family::ALL {
        for kv_dtype in CACHES {
            all.extend(logits(kernels, family, kv_dtype)?);
        }
    }
    Ok(all)
}

/// Three sequences of different lengths at once, in two steps: one starts and goes on, one is cut within a block, one
/// fills a block and goes on in the next. Their blocks lie scattered.
fn logits(kernels: &Arc<Kernels>, family: Family, kv_dtype: KvDType) -> Result<Vec<f32>, SelfTestError> {
    let tiny = Tiny::of(family);
    let mut model = tiny.load(kernels)?.model;
    let spec = model.cache_spec();
    let mut cache = Cache::new(spec, kv_dtype, tiny::CACHE_BLOCKS).map_err(ForwardError::from)?;
    let [short, cut, long] = [tiny.tokens(4), tiny.tokens(41), tiny.tokens(33)];
    let part =
        |tokens, first_position, table, wants_logits| Part { tokens, first_position, table, wants_logits };
    let mut all = step(
        &mut *model,
        &mut cache,
        &[
            part(&short[..3], 0, &[4], true),
            part(&cut[..30], 0, &[2, 0], false),
            part(&long[..32], 0, &[3], true),
        ],
    )?;
    all.extend(step(
        &mut *model,
        &mut cache,
        &[
            part(&short[3..], 3, &[4], true),
            part(&cut[30..], 30, &[2, 0], true),
            part(&long[32..], 32, &[3, 1], true),
        ],
    )?);
    Ok(all)
}

fn step(model: &mut dyn Model, cache: &mut Cache, parts: &[Part<'_>]) -> Result<Vec<f32>, ForwardError> {
    let step = StepInput::of(parts)?;
    let logits = model.forward(&step, cache)?;
    Ok(with_floats(&logits, <[f32]>::to_vec)?)
}

#[cfg(test)]
mod tests;
