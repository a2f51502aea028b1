//! How far our logits are from the oracle's at one position.

use std::fmt::{Display, Formatter, Result};

use super::golden::Position;

/// A distance.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Distance {
    /// Root mean square of the differences over the position's sample of the vocabulary.
    pub(crate) rms: f64,
    /// Kullback-Leibler divergence in nats, from the oracle's distribution to ours, over its most likely tokens and
    /// all others as one.
    pub(crate) kl: f64,
}

impl Distance {
    /// From the oracle's position to our logits at it.
    pub(crate) fn between(position: &Position, logits: &[f32]) -> Self {
        assert!(logits.iter().all(|logit| logit.is_finite()));
        let ours = |id: usize| f64::from(logits[id]);
        let square = |(id, logit): &(usize, f64)| (ours(*id) - logit).powi(2);
        let rms = (position.sample.iter().map(square).sum::<f64>() / position.sample.len() as f64).sqrt();

        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
        let log_sum = f64::from(largest) + sum.ln();
        let (mut rest, mut our_rest, mut kl) = (1.0, 1.0, 0.0);
        for (id, logit) in &position.top {
            let (log_p, log_q) = (logit - position.log_sum, ours(*id) - log_sum);
            kl += log_p.exp() * (log_p - log_q);
            rest -= log_p.exp();
            our_rest -= log_q.exp();
        }
        // What is left of a certain token is not more than rounding.
        let (rest, our_rest) = (f64::max(rest, f64::EPSILON), f64::max(our_rest, f64::EPSILON));
        Self { rms, kl: kl + rest * (rest / our_rest).ln() }
    }
}

/// Distances at many positions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Distances {
    /// The largest of each.
    pub(crate) largest: Distance,
    sum: Distance,
    positions: u32,
}

impl Distances {
    /// Counts one more position.
    pub(crate) fn add(&mut self, Distance { rms, kl }: Distance) {
        self.largest = Distance { rms: self.largest.rms.max(rms), kl: self.largest.kl.max(kl) };
        self.sum = Distance { rms: self.sum.rms + rms, kl: self.sum.kl + kl };
        self.positions += 1;
    }

    /// Fails where one position is farther than `each`, or the mean of all is than `mean`.
    pub(crate) fn check(&self, what: &str, each: Distance, mean: Distance) {
        let count = f64::from(self.positions);
        let found = Distance { rms: self.sum.rms / count, kl: self.sum.kl / count };
        println!("{what}, {count} positions: at most {}; in the mean {found}", self.largest);
        assert!(self.largest.rms <= each.rms && self.largest.kl <= each.kl, "{what}: more than {each}");
        assert!(found.rms <= mean.rms && found.kl <= mean.kl, "{what}: in the mean more than {mean}");
    }
}

impl Display for Distance {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "root mean square {:.2e}, divergence {:.2e} nats", self.rms, self.kl)
    }
}
