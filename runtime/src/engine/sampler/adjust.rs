//! What a request wants done to logits before a token is chosen.
//!
//! In: logits and the tokens so far. Out: logits. The order is vLLM's: tokens that are not allowed, then biases, then
//! penalties (repetition: Keskar et al. 2019; presence and frequency: OpenAI's API reference).

use std::collections::{BTreeMap, BTreeSet};

/// How logits are adjusted.
#[derive(Clone, Debug, PartialEq)]
pub struct Adjust {
    /// What the logits of tokens that were seen, in prompt or answer, are divided by if positive, else multiplied with.
    pub repetition: f32,
    /// What is taken off the logit of a token that the answer has.
    pub presence: f32,
    /// What is taken off for each time that the answer has it.
    pub frequency: f32,
    /// What is added, by token.
    pub bias: BTreeMap<u32, f32>,
}

impl Default for Adjust {
    /// Changes nothing.
    fn default() -> Self {
        Self { repetition: 1.0, presence: 0.0, frequency: 0.0, bias: BTreeMap::new() }
    }
}

/// Tokens so far, and which may not come next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Past<'a> {
    /// Of the prompt.
    pub prompt: &'a [u32],
    /// Of the answer.
    pub answer: &'a [u32],
    /// Tokens that are not allowed yet.
    pub forbidden: Option<&'a BTreeSet<u32>>,
    /// Bits of those that are; all of them without.
    pub allowed: Option<&'a [u32]>,
}

impl Adjust {
    fn penalizes(&self) -> bool {
        self.repetition != 1.0 || self.presence != 0.0 || self.frequency != 0.0
    }
}

/// The logits as they are wanted; nothing is copied where nothing is adjusted. `counts` is all zeros before and after.
pub(super) fn adjust<'a>(
    logits: &'a [f32],
    how: &Adjust,
    past: &Past,
    (copy, counts): (&'a mut Vec<f32>, &mut Vec<u32>),
) -> &'a [f32] {
    if past.forbidden.is_none() && past.allowed.is_none() && how.bias.is_empty() && !how.penalizes() {
        return logits;
    }
    copy.clear();
    copy.extend_from_slice(logits);
    if let Some(mask) = past.allowed {
        keep_allowed(copy, mask);
    }
    for id in past.forbidden.into_iter().flatten() {
        set(copy, *id, |_| f32::NEG_INFINITY);
    }
    for (id, bias) in &how.bias {
        set(copy, *id, |logit| logit + bias);
    }
    if how.penalizes() {
        penalize(copy, how, past, counts);
    }
    copy
}

fn keep_allowed(logits: &mut [f32], mask: &[u32]) {
    let words = mask.iter().copied().chain(std::iter::repeat(0));
    for (logits, word) in logits.chunks_mut(u32::BITS as usize).zip(words) {
        match word {
            u32::MAX => {}
            0 => logits.fill(f32::NEG_INFINITY),
            _ => {
                for (bit, logit) in logits.iter_mut().enumerate() {
                    // Chosen, not branched on: masks are hard to foresee.
                    *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
                }
            }
        }
    }
}

fn penalize(logits: &mut [f32], how: &Adjust, past: &Past, counts: &mut Vec<u32>) {
    counts.resize(logits.len().max(counts.len()), 0);
    let seen = past.prompt.iter().chain(past.answer).copied();
    // Each token once, by marking those that are done.
    for id in seen.clone() {
        if std::mem::replace(&mut counts[id as usize], 1) == 0 {
            let repeated =
                |logit: f32| if logit > 0.0 { logit / how.repetition } else { logit * how.repetition };
            set(logits, id, repeated);
        }
    }
    seen.for_each(|id| counts[id as usize] = 0);
    for id in past.answer {
        counts[*id as usize] += 1;
    }
    for id in past.answer {
        let times = std::mem::take(&mut counts[*id as usize]);
        if times > 0 {
            #[allow(clippy::cast_precision_loss, reason = "an answer has far fewer tokens than 2^24")]
            let less = how.presence + how.frequency * times as f32;
            set(logits, *id, |logit| logit - less);
        }
    }
}

/// Ids past the vocabulary change nothing.
fn set(logits: &mut [f32], id: u32, change: impl Fn(f32) -> f32) {
    if let Some(logit) = logits.get_mut(id as usize) {
        *logit = change(*logit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adjusted(how: &Adjust, forbidden: Option<&BTreeSet<u32>>) -> Vec<f32> {
        let past = Past { prompt: &[0, 1, 1], answer: &[2, 2, 2, 3], forbidden, allowed: None };
        let (mut copy, mut counts) = (Vec::new(), Vec::new());
        let found = adjust(&[4.0, -4.0, 4.0, 4.0, 4.0], how, &past, (&mut copy, &mut counts)).to_vec();
        assert!(counts.iter().all(|count| *count == 0), "{counts:?}");
        found
    }

    #[test]
    fn every_wish_changes_what_it_names() {
        let none = Adjust::default();
        assert_eq!(adjusted(&none, None), [4.0, -4.0, 4.0, 4.0, 4.0]);
        let repetition = Adjust { repetition: 2.0, ..none.clone() };
        assert_eq!(adjusted(&repetition, None), [2.0, -8.0, 2.0, 2.0, 4.0]);
        let both = Adjust { presence: 1.0, frequency: 0.5, ..none.clone() };
        assert_eq!(adjusted(&both, None), [4.0, -4.0, 1.5, 2.5, 4.0]);
        let bias = Adjust { bias: [(1, 100.0), (99, 1.0)].into(), ..none.clone() };
        assert_eq!(adjusted(&bias, None), [4.0, 96.0, 4.0, 4.0, 4.0]);
        let forbidden = BTreeSet::from([4, 99]);
        assert_eq!(adjusted(&none, Some(&forbidden))[4], f32::NEG_INFINITY);
    }

    #[test]
    fn only_what_a_mask_allows_is_left() {
        let mut logits: Vec<f32> = (0..70u8).map(f32::from).collect();
        keep_allowed(&mut logits, &[u32::MAX, 1 << 3]);
        let left: Vec<f32> = logits.into_iter().filter(|logit| logit.is_finite()).collect();
        assert_eq!(left, (0..32).chain([35]).map(|id: u8| f32::from(id)).collect::<Vec<_>>());
    }
}
