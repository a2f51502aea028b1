//! When requests are sent. Pure.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::random::Random;

/// What decides when the next request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// So many clients, each of which sends its next request when it has the answer to its last.
    Closed {
        /// How many.
        streams: usize,
    },
    /// Requests come whether or not those before have been answered.
    Open {
        /// Requests a second, on average.
        rate: f64,
        /// How they are spread.
        arrivals: Arrivals,
    },
}

/// How an open loop's requests are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// As independent clients would send them: gaps are exponential.
    Poisson,
    /// Gaps are equal.
    Constant,
}

impl Load {
    /// The number that a plot has on its horizontal axis.
    #[must_use]
    pub fn amount(self) -> f64 {
        match self {
            Self::Closed { streams } => streams as f64,
            Self::Open { rate, .. } => rate,
        }
    }

    /// What [`Load::amount`] counts.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Closed { .. } => "concurrent requests",
            Self::Open { .. } => "requests per second",
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.amount(), self.unit())
    }
}

/// The times at which requests are sent, from the start of the run and without end; those of a closed loop are all due
/// at once.
pub fn times(load: Load, seed: u64) -> impl Iterator<Item = Duration> {
    let mut random = Random(seed);
    let mut now = 0.0;
    std::iter::from_fn(move || {
        let at = Duration::from_secs_f64(now);
        now += match load {
            Load::Closed { .. } => 0.0,
            Load::Open { rate, arrivals: Arrivals::Constant } => 1.0 / rate,
            Load::Open { rate, arrivals: Arrivals::Poisson } => -random.share().ln() / rate,
        };
        Some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(arrivals: Arrivals, n: usize) -> Vec<f64> {
        let times: Vec<_> = times(Load::Open { rate: 4.0, arrivals }, 7).take(n + 1).collect();
        times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_spread_of_an_exponential() {
        let gaps = gaps(Arrivals::Poisson, 20_000);
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 0.25).abs() < 0.01, "{mean}");
        assert!((variance.sqrt() - 0.25).abs() < 0.01, "{variance}");
    }

    #[test]
    fn constant_gaps_are_equal_and_closed_loops_have_none() {
        assert!(gaps(Arrivals::Constant, 9).iter().all(|gap| (gap - 0.25).abs() < 1e-6));
        assert!(times(Load::Closed { streams: 3 }, 1).take(9).all(|at| at.is_zero()));
    }
}
