//! How probable tokens were, by the model's own logits: before masks, penalties and temperature, as vLLM's default is.
//!
//! In: a row of logits. Out: natural logarithms of probabilities. The same row gives the same bits, wherever it was
//! computed. It must not know requests or text.

use super::exp;
use super::select::{LANES, most_likely, most_likely_few};

/// How probable a token was, and which would have been more.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// The token.
    pub token: u32,
    /// The logarithm of its probability; minus infinity if it had none.
    pub logprob: f32,
    /// One for the most likely, and so on; of equally likely ones, the lower id comes first.
    pub rank: u32,
    /// The most likely tokens and theirs, in this order.
    pub top: Vec<(u32, f32)>,
}

/// Tells it of `token` and of the `n` most likely.
#[must_use]
pub fn logprobs(logits: &[f32], token: u32, n: u32) -> Logprobs {
    let (_, largest) = most_likely(logits);
    let mut lanes = [0.0; LANES];
    for chunk in logits.chunks(LANES) {
        // What is no number adds nothing.
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(exp(logit - largest));
        }
    }
    let sum: f64 = lanes.iter().sum();
    #[allow(clippy::cast_possible_truncation, reason = "a logarithm of 2^32 numbers below one is small")]
    let of = |logit: f32| {
        let told = (f64::from(logit) - f64::from(largest) - sum.ln()) as f32;
        if told.is_finite() { told } else { f32::NEG_INFINITY }
    };
    let at = token as usize;
    let logit = logits.get(at).copied().filter(|logit| logit.is_finite()).unwrap_or(f32::NEG_INFINITY);
    let (lower, higher) = logits.split_at(at.min(logits.len()));
    let before = lower.iter().filter(|other| **other >= logit).count();
    let rank = 1 + before + higher.iter().filter(|other| **other > logit).count();
    let mut top = Vec::new();
    most_likely_few(logits, n as usize, &mut top);
    Logprobs {
        token,
        logprob: of(logit),
        rank: u32::try_from(rank).unwrap_or(u32::MAX),
        top: top.into_iter().map(|id| (id, of(logits[id as usize]))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_the_logarithms_of_the_softmax() {
        let logits = [1.0, 3.0, f32::NEG_INFINITY, 2.0, 3.0];
        let total: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        let expected = |id: usize| (f64::from(logits[id]).exp() / total).ln();
        let found = logprobs(&logits, 3, 3);
        assert_eq!((found.token, found.rank), (3, 3));
        assert!((f64::from(found.logprob) - expected(3)).abs() < 1e-6, "{found:?}");
        assert_eq!(found.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 4, 3]);
        assert_eq!(found.top[2].1, found.logprob);
        let never = logprobs(&logits, 2, 0);
        assert_eq!((never.logprob, never.rank), (f32::NEG_INFINITY, 5));
        assert!(never.top.is_empty());
        assert_eq!(logprobs(&logits, 4, 9).top.len(), 4, "what cannot come is not told");
        assert_eq!((logprobs(&logits, 1, 0).rank, logprobs(&logits, 4, 0).rank), (1, 2));
    }
}
