//! The most likely of a vocabulary, without sorting it.
//!
//! In: logits, or weights that follow from them. Out: ids, or weights of which only some are left. Pure; what is
//! found does not depend on how it is searched for.

use std::cmp::Ordering;

/// Up to how many of the most likely are kept in order while the vocabulary is read once.
pub(super) const FEW: usize = 256;
/// Numbers that are worked on at once.
pub(super) const LANES: usize = 16;
/// Bits of a weight that its magnitude leaves out: sixteen magnitudes for each power of two.
const MANTISSA: u32 = 19;
/// The magnitude of one.
const LARGEST: u32 = 1.0f32.to_bits() >> MANTISSA;

/// The sum in double precision, always in the same order.
pub(super) fn sum(weights: &[f32]) -> f64 {
    let (whole, rest) = weights.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for numbers in whole {
        for (lane, number) in lanes.iter_mut().zip(numbers) {
            *lane += f64::from(*number);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|number| f64::from(*number)).sum::<f64>()
}

/// The lowest id of the largest logit, and that logit.
pub(super) fn most_likely(logits: &[f32]) -> (u32, f32) {
    const CHUNK: usize = 256;
    assert!(!logits.is_empty(), "a vocabulary has tokens");
    let larger = |best: f32, logit: &f32| if *logit > best { *logit } else { best };
    // Which chunk has it is found first, without asking at each number who it belongs to.
    let mut best = (0, f32::NEG_INFINITY);
    for (index, chunk) in logits.chunks(CHUNK).enumerate() {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let (whole, rest) = chunk.as_chunks::<LANES>();
        for numbers in whole {
            for (lane, logit) in lanes.iter_mut().zip(numbers) {
                *lane = larger(*lane, logit);
            }
        }
        let largest = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, larger);
        if largest > best.1 {
            best = (index, largest);
        }
    }
    let (index, largest) = best;
    let at = logits[index * CHUNK..].iter().position(|logit| *logit == largest).unwrap_or(0);
    let id = if largest > f32::NEG_INFINITY { index * CHUNK + at } else { 0 };
    (u32::try_from(id).expect("ids are u32"), largest)
}

/// Leaves in `ids` the `n` most likely that can come at all, the likeliest first, of equal ones the lowest.
pub(super) fn most_likely_few(logits: &[f32], n: usize, ids: &mut Vec<u32>) {
    ids.clear();
    let mut least = f32::NEG_INFINITY;
    for (id, logit) in (0..).zip(logits) {
        if *logit > least && logit.is_finite() && n > 0 {
            if ids.len() == n {
                ids.pop();
            }
            let at = ids.partition_point(|other| logits[*other as usize] >= *logit);
            ids.insert(at, id);
            if ids.len() == n {
                least = logits[ids[n - 1] as usize];
            }
        }
    }
}

/// Makes all but the `n` largest weights zero, of equal ones those of higher ids.
pub(super) fn keep_largest(weights: &mut [f32], n: usize, ids: &mut Vec<u32>) {
    ids.clear();
    ids.extend((0..).zip(weights.iter()).filter(|(_, weight)| **weight > 0.0).map(|(id, _)| id));
    if ids.len() > n {
        let (_, _, rest) = ids.select_nth_unstable_by(n - 1, |a, b| before(weights, *a, *b));
        for id in rest {
            weights[*id as usize] = 0.0;
        }
    }
}

/// The likelier comes first, and of equally likely ones the lower.
fn before(weights: &[f32], a: u32, b: u32) -> Ordering {
    weights[b as usize].total_cmp(&weights[a as usize]).then(a.cmp(&b))
}

/// Of weights in order, keeps the fewest that add up to `wanted`.
pub(super) fn prefix(weights: &mut Vec<f32>, wanted: f64) {
    let mut mass = 0.0;
    let reached = weights.iter().position(|weight| {
        mass += f64::from(*weight);
        mass >= wanted
    });
    weights.truncate(reached.map_or(weights.len(), |at| at + 1));
}

/// Makes all weights zero but the fewest, largest first and of equal ones those of the lowest ids, that add up to
/// `wanted`. No weight is above one.
///
/// Weights are added up by their magnitude, which says between which two the last one lies that belongs to them. Of
/// those of its magnitude, halves are weighed until it is found.
pub(super) fn nucleus(weights: &mut [f32], wanted: f64, ids: &mut Vec<u32>) {
    let magnitude = |weight: f32| (weight.to_bits() >> MANTISSA).min(LARGEST) as usize;
    let mut masses = [0.0; LARGEST as usize + 1];
    for weight in &*weights {
        masses[magnitude(*weight)] += f64::from(*weight);
    }
    let mut mass = 0.0;
    let last = masses.iter().rposition(|more| {
        let reached = *more > 0.0 && mass + more >= wanted;
        mass += if reached { 0.0 } else { *more };
        reached
    });
    // Nothing is left out, but for rounding.
    let Some(last) = last else { return };
    ids.clear();
    let there = |weight: f32| weight > 0.0 && magnitude(weight) == last;
    ids.extend((0..).zip(weights.iter()).filter(|(_, weight)| there(**weight)).map(|(id, _)| id));
    let mut left = &mut ids[..];
    while left.len() > 1 {
        let middle = left.len() / 2;
        left.select_nth_unstable_by(middle, |a, b| before(weights, *a, *b));
        let (likelier, others) = left.split_at_mut(middle);
        let half: f64 = likelier.iter().map(|id| f64::from(weights[*id as usize])).sum();
        if mass + half >= wanted {
            left = likelier;
        } else {
            mass += half;
            left = others;
        }
    }
    let Some(last) = left.first().copied() else { return };
    let least = weights[last as usize];
    for (id, weight) in (0..).zip(weights) {
        if *weight < least || (*weight == least && id > last) {
            *weight = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a sort of everything finds, for vocabularies with many equal numbers and none that are numbers.
    #[test]
    fn selecting_finds_what_sorting_would() {
        for n_tokens in [1usize, 5, 300, 3000] {
            let number = |id: usize| ((id * 7919 + 13) % 97) as f32 * 0.1 - (id % 3) as f32;
            let mut logits: Vec<f32> = (0..n_tokens).map(number).collect();
            logits.iter_mut().skip(4).step_by(50).for_each(|logit| *logit = f32::NAN);
            logits.iter_mut().skip(3).step_by(70).for_each(|logit| *logit = f32::NEG_INFINITY);
            let mut sorted: Vec<u32> =
                (0..).zip(&logits).filter(|(_, l)| l.is_finite()).map(|(id, _)| id).collect();
            sorted.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
            assert_eq!(most_likely(&logits), (sorted[0], logits[sorted[0] as usize]));
            for n in [0, 1, 2, 20, FEW] {
                let mut found = Vec::new();
                most_likely_few(&logits, n, &mut found);
                assert_eq!(found, sorted[..n.min(sorted.len())], "{n} of {n_tokens}");
                let all: Vec<f32> = logits.iter().map(|logit| (logit - 12.0).exp2().max(0.0)).collect();
                let mut kept = all.clone();
                keep_largest(&mut kept, n.max(1), &mut Vec::new());
                let [there, gone] = [true, false].map(|is| {
                    let of = all.iter().zip(&kept).filter(move |(_, kept)| (**kept > 0.0) == is);
                    of.map(|(weight, _)| *weight).collect::<Vec<_>>()
                });
                assert_eq!(there.len(), n.max(1).min(sorted.len()), "{n} of {n_tokens}");
                assert!(there.iter().all(|kept| gone.iter().all(|gone| kept >= gone)), "{n} of {n_tokens}");
            }
            let all: Vec<f32> = logits
                .iter()
                .map(|logit| if logit.is_finite() { (logit - 12.0).exp2() } else { 0.0 })
                .collect();
            for share in [0.0, 0.3, 0.9, 0.999, 1.0] {
                let (mut weights, mut mass, mut kept) = (all.clone(), 0.0, vec![false; n_tokens]);
                let wanted = share * sum(&all);
                nucleus(&mut weights, wanted, &mut Vec::new());
                for (at, id) in sorted.iter().enumerate() {
                    if at > 0 && mass >= wanted * (1.0 - 1e-12) {
                        break;
                    }
                    mass += f64::from(all[*id as usize]);
                    kept[*id as usize] = true;
                }
                // Sums in another order may disagree on the last one.
                let differ =
                    weights.iter().zip(kept).filter(|(weight, kept)| (**weight > 0.0) != *kept).count();
                assert!(differ <= 1, "{share} of {n_tokens}: {differ}");
            }
        }
    }
}
