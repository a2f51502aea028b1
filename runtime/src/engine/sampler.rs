//! From one row of logits to one token.
//!
//! In: logits, sampling parameters, and which draw this is. Out: a token id. The random numbers are counted, not
//! streamed: a draw depends on (seed, position, choice) alone, so that a request gives the same tokens alone, in a
//! batch, or preempted and begun again. It must not know requests or text.

pub mod adjust;

use adjust::{Adjust, Past};

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

/// How much less likely the next candidates considered for the nucleus may be than the last ones.
const NUCLEUS_STEP: f32 = 1e-3;

/// Chooses a token. Ties go to the lowest id; numbers that are not finite are never chosen while others are there.
///
/// # Panics
/// Where there are no logits.
pub fn sample(logits: &[f32], sampling: &Sampling, past: &Past, draw: Draw, scratch: &mut Scratch) -> u32 {
    let Scratch { logits: adjusted, counts, weights, candidates } = scratch;
    let logits = adjust::adjust(logits, &sampling.adjust, past, (adjusted, counts));
    let (best, largest) = most_likely(logits);
    if sampling.temperature <= 0.0 || !largest.is_finite() {
        return best;
    }
    weights.clear();
    let weight = |logit: &f32| {
        let weight = if logit.is_finite() { ((logit - largest) / sampling.temperature).exp() } else { 0.0 };
        if weight >= sampling.min_p { weight } else { 0.0 }
    };
    weights.extend(logits.iter().map(weight));
    keep_largest(weights, sampling.top_k as usize, candidates);
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let random = uniform(sampling.seed, draw);
    if sampling.top_p >= 1.0 {
        return pick((0..).zip(weights.iter().copied()), random * total).unwrap_or(best);
    }
    let mass = nucleus(weights, f64::from(sampling.top_p) * total, candidates);
    pick(candidates.iter().map(|id| (*id, weights[*id as usize])), random * mass).unwrap_or(best)
}

/// Makes all but the `n` largest weights zero, of equal ones those of higher ids; `n` of zero changes nothing.
fn keep_largest(weights: &mut [f32], n: usize, ids: &mut Vec<u32>) {
    if n == 0 || n >= weights.len() {
        return;
    }
    ids.clear();
    ids.extend((0..).zip(weights.iter()).filter(|(_, weight)| **weight > 0.0).map(|(id, _)| id));
    if ids.len() > n {
        let (_, _, rest) = ids.select_nth_unstable_by(n - 1, |a, b| {
            weights[*b as usize].total_cmp(&weights[*a as usize]).then(a.cmp(b))
        });
        for id in rest {
            weights[*id as usize] = 0.0;
        }
    }
}

/// The lowest id of the largest logit, and that logit.
fn most_likely(logits: &[f32]) -> (u32, f32) {
    assert!(!logits.is_empty(), "a vocabulary has tokens");
    let larger =
        |best: (u32, f32), (id, logit): (u32, &f32)| if *logit > best.1 { (id, *logit) } else { best };
    (0..).zip(logits).fold((0, f32::NEG_INFINITY), larger)
}

/// Leaves in `candidates` the fewest ids, most likely first, whose weights add up to `wanted`, and gives their sum.
///
/// Only tokens within a factor of the most likely are sorted; the factor grows until they suffice.
fn nucleus(weights: &[f32], wanted: f64, candidates: &mut Vec<u32>) -> f64 {
    let mut least = NUCLEUS_STEP;
    loop {
        candidates.clear();
        candidates.extend((0..).zip(weights).filter(|(_, weight)| **weight >= least).map(|(id, _)| id));
        candidates
            .sort_unstable_by(|a, b| weights[*b as usize].total_cmp(&weights[*a as usize]).then(a.cmp(b)));
        let mut mass = 0.0;
        for (index, id) in candidates.iter().enumerate() {
            mass += f64::from(weights[*id as usize]);
            if mass >= wanted {
                candidates.truncate(index + 1);
                return mass;
            }
        }
        if candidates.len() == weights.len() {
            return mass;
        }
        least *= NUCLEUS_STEP;
    }
}

/// The first id at which the running sum of weights passes `at`; the last one with any weight if rounding hides it.
fn pick(weighted: impl Iterator<Item = (u32, f32)>, at: f64) -> Option<u32> {
    let mut sum = 0.0;
    let mut last = None;
    for (id, weight) in weighted {
        if weight > 0.0 {
            sum += f64::from(weight);
            last = Some(id);
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
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 3.0, f32::NEG_INFINITY];

    fn drawn(logits: &[f32], temperature: f32, top_p: f32, position: u32) -> u32 {
        draw(logits, &Sampling { temperature, top_p, seed: 7, ..Sampling::default() }, position)
    }

    fn draw(logits: &[f32], sampling: &Sampling, position: u32) -> u32 {
        sample(logits, sampling, &Past::default(), Draw { position, choice: 0 }, &mut Scratch::default())
    }

    fn shares(logits: &[f32], temperature: f32, top_p: f32) -> Vec<f64> {
        shares_of(logits, &Sampling { temperature, top_p, seed: 7, ..Sampling::default() })
    }

    fn shares_of(logits: &[f32], sampling: &Sampling) -> Vec<f64> {
        const DRAWS: u32 = 20_000;
        let mut counts = vec![0.0; logits.len()];
        for position in 0..DRAWS {
            counts[draw(logits, sampling, position) as usize] += 1.0 / f64::from(DRAWS);
        }
        counts
    }

    fn close(found: &[f64], expected: &[f64]) -> bool {
        found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 0.015)
    }

    #[test]
    fn without_temperature_the_largest_wins_and_ties_go_to_the_lowest_id() {
        assert_eq!(drawn(&LOGITS, 0.0, 1.0, 0), 1);
        assert_eq!(drawn(&[f32::NAN, 0.5, f32::NAN], 0.0, 1.0, 0), 1);
        assert_eq!(drawn(&[f32::NAN, f32::NEG_INFINITY], 1.0, 1.0, 0), 0);
    }

    #[test]
    fn draws_follow_the_softmax() {
        let weights: Vec<f64> = LOGITS.iter().map(|logit| f64::from(*logit / 1.5).exp()).collect();
        let total: f64 = weights.iter().sum();
        let expected: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
        assert!(close(&shares(&LOGITS, 1.5, 1.0), &expected));
    }

    #[test]
    fn the_nucleus_is_the_fewest_tokens_that_reach_its_share() {
        assert!(close(&shares(&LOGITS, 1.0, 0.5), &[0.0, 0.5, 0.0, 0.5, 0.0]));
        assert!(close(&shares(&LOGITS, 1.0, 0.1), &[0.0, 1.0, 0.0, 0.0, 0.0]));
        let flat: Vec<f32> = (0..4000).map(|id| -0.01 * id as f32).collect();
        assert!((0..200).all(|position| drawn(&flat, 1.0, 0.2, position) < 23));
    }

    #[test]
    fn only_the_most_likely_are_drawn_from() {
        let sampling = |top_k, min_p, top_p| {
            let base = Sampling { temperature: 1.0, seed: 7, ..Sampling::default() };
            Sampling { top_k, min_p, top_p, ..base }
        };
        let logits = [0.0, 2.0, 1.0, 2.0, -1.0].map(|n: f32| n * std::f32::consts::LN_2);
        // Weights 1, 4, 2, 4, 0.5.
        assert!(close(&shares_of(&logits, &sampling(1, 0.0, 1.0)), &[0.0, 1.0, 0.0, 0.0, 0.0]));
        assert!(close(&shares_of(&logits, &sampling(3, 0.0, 1.0)), &[0.0, 0.4, 0.2, 0.4, 0.0]));
        assert!(close(&shares_of(&logits, &sampling(99, 0.4, 1.0)), &[0.0, 0.4, 0.2, 0.4, 0.0]));
        // Of ten that are left, the nucleus of three quarters is eight.
        assert!(close(&shares_of(&logits, &sampling(3, 0.0, 0.75)), &[0.0, 0.5, 0.0, 0.5, 0.0]));
    }

    #[test]
    fn a_draw_is_a_function_of_seed_position_and_choice() {
        let at = |seed, position, choice| uniform(seed, Draw { position, choice }).to_bits();
        assert_eq!(at(1, 2, 3), at(1, 2, 3));
        let all = [at(1, 2, 3), at(1, 3, 2), at(2, 1, 3), at(0, 0, 0), at(0, 1, 0), at(0, 0, 1)];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[index + 1..].contains(one));
        }
    }
}
