//! From one row of logits to one token.
//!
//! In: logits, sampling parameters, and which draw this is. Out: a token id. The random numbers are counted, not
//! streamed: a draw depends on (seed, position, choice) alone, so that a request gives the same tokens alone, in a
//! batch, or preempted and begun again. It must not know requests or text.

pub mod adjust;
pub mod logprobs;
mod select;

use adjust::{Adjust, Past};
use select::{FEW, keep_largest, most_likely, most_likely_few, nucleus, prefix, sum};

/// How a sequence wants its tokens chosen: logits are adjusted, divided by the temperature, and of the probabilities
/// that follow, those are drawn from that `min_p`, then `top_k`, then `top_p` leave.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// What logits are divided by; zero takes the largest.
    pub temperature: f32,
    /// The share of probability that the most likely tokens drawn from have to reach; one draws from all.
    pub top_p: f32,
    /// How many of the most likely are drawn from; zero: all.
    pub top_k: u32,
    /// The least probability, as a share of the most likely token's.
    pub min_p: f32,
    /// What the random numbers are made of.
    pub seed: u64,
    /// What is done to logits before.
    pub adjust: Adjust,
}

impl Default for Sampling {
    /// The most likely token.
    fn default() -> Self {
        Self { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 0, adjust: Adjust::default() }
    }
}

/// Which draw of a request this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// The new token's position in its sequence.
    pub position: u32,
    /// Which of a request's several answers.
    pub choice: u32,
}

/// Memory that sampling reuses from token to token.
#[derive(Debug, Default)]
pub struct Scratch {
    logits: Vec<f32>,
    /// How often each token of the vocabulary was seen; zero between two calls.
    counts: Vec<u32>,
    weights: Vec<f32>,
    candidates: Vec<u32>,
}

impl Scratch {
    /// Memory for so many tokens that is really there.
    #[must_use]
    pub fn new(vocabulary: usize) -> Self {
        let mut scratch = Self::default();
        // Written one by one, for pages of zeros are only promised.
        scratch.counts.resize(vocabulary, 0);
        scratch.candidates.resize(vocabulary, 0);
        scratch.logits.resize(vocabulary, 0.0);
        scratch.weights.resize(vocabulary, 0.0);
        scratch
    }
}

/// A row of logits whose largest is no finite number: the model has lost this sequence, and no token follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model's numbers for the next token are not finite")]
pub struct Corrupted;

/// Whether anything follows from these logits, as the model gave them.
pub fn sound(logits: &[f32]) -> Result<(), Corrupted> {
    let (_, largest) = most_likely(logits);
    if largest.is_finite() { Ok(()) } else { Err(Corrupted) }
}

/// Chooses a token. Ties go to the lowest id; numbers that are not finite are never chosen while others are there.
///
/// The vocabulary is never sorted: without a temperature it is read once, and else a bounded number of times.
///
/// # Errors
/// Where the largest of the logits, as the model gave them, is not finite.
///
/// # Panics
/// Where there are no logits.
pub fn sample(
    logits: &[f32],
    sampling: &Sampling,
    past: &Past,
    draw: Draw,
    scratch: &mut Scratch,
) -> Result<u32, Corrupted> {
    let Scratch { logits: adjusted, counts, weights, candidates } = scratch;
    let given = logits;
    let logits = adjust::adjust(given, &sampling.adjust, past, (adjusted, counts));
    let (best, largest) = most_likely(logits);
    // What was adjusted may hide what was given, and a mask may leave nothing of sound numbers.
    if !std::ptr::eq(logits, given) {
        sound(given)?;
    } else if !largest.is_finite() {
        return Err(Corrupted);
    }
    if sampling.temperature <= 0.0 || !largest.is_finite() {
        return Ok(best);
    }
    let top_k = sampling.top_k as usize;
    let few = (1..=FEW).contains(&top_k);
    if few {
        most_likely_few(logits, top_k, candidates);
        let of_few = candidates.iter().map(|id| logits[*id as usize]);
        weigh(of_few, largest, sampling, weights);
    } else {
        weigh(logits.iter().copied(), largest, sampling, weights);
        if top_k > 0 {
            keep_largest(weights, top_k, candidates);
        }
    }
    let mut mass = sum(weights);
    if sampling.top_p < 1.0 {
        let wanted = f64::from(sampling.top_p) * mass;
        if few {
            prefix(weights, wanted);
        } else {
            nucleus(weights, wanted, candidates);
        }
        mass = sum(weights);
    }
    let place = pick(weights, uniform(sampling.seed, draw) * mass);
    Ok(place.map_or(best, |place| if few { candidates[place as usize] } else { place }))
}

/// What each token weighs beside the likeliest, which weighs one.
fn weigh(
    logits: impl ExactSizeIterator<Item = f32>,
    largest: f32,
    sampling: &Sampling,
    weights: &mut Vec<f32>,
) {
    let (scale, least) = (1.0 / sampling.temperature, sampling.min_p);
    weights.clear();
    weights.extend(logits.map(|logit| (logit - largest) * scale));
    for weight in weights {
        let e = exp(*weight);
        // Also for what is no number.
        *weight = if e >= least { e } else { 0.0 };
    }
}

/// `eˣ` for `x` that is not above zero, in operations that are the same everywhere and that a compiler can do for
/// many numbers at once; zero for what is no number, and below 2⁻¹²⁵.
///
/// `x = n ln 2 + r` with `|r| ≤ ln 2 / 2`, then Cephes' polynomial for `eʳ` and an exact power of two.
fn exp(x: f32) -> f32 {
    /// Added to a small number, it leaves the number rounded in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5] {
        p = p * r + coefficient;
    }
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    let e = (p * (r * r) + r + 1.0) * f32::from_bits(power);
    if x > -87.0 { e } else { 0.0 }
}

/// The first place at which the running sum of weights passes `at`; the last one with any weight if rounding hides it.
fn pick(weights: &[f32], at: f64) -> Option<u32> {
    let mut sum = 0.0;
    let mut last = None;
    for (place, weight) in (0..).zip(weights) {
        if *weight > 0.0 {
            sum += f64::from(*weight);
            last = Some(place);
            if sum > at {
                break;
            }
        }
    }
    last
}

/// A number in `[0, 1)` for each (seed, position, choice): splitmix64's finaliser (Steele, Lea and Flood 2014) over
/// the seed and then over the draw.
fn uniform(seed: u64, draw: Draw) -> f64 {
    let counter = u64::from(draw.choice) << 32 | u64::from(draw.position);
    let bits = mix(mix(seed).wrapping_add(mix(counter ^ 0x9e37_79b9_7f4a_7c15)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
