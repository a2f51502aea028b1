//! Figures from times. Pure.

use serde::{Deserialize, Serialize};

/// Mean and percentiles, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// Nine of ten are at most this.
    pub p90: f64,
    /// 95 of 100 are at most this.
    pub p95: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Of some numbers; nothing of none.
    #[must_use]
    pub fn of(mut numbers: Vec<f64>) -> Option<Self> {
        numbers.sort_unstable_by(f64::total_cmp);
        let max = *numbers.last()?;
        let at = |share| percentile(&numbers, share);
        let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
        Some(Self { mean, p50: at(0.5), p90: at(0.9), p95: at(0.95), p99: at(0.99), max })
    }
}

/// The number below which this share of them lies, interpolated between neighbours as numpy does.
///
/// # Panics
/// Without numbers.
#[must_use]
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// What an answered request took, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    /// From sending to the first token.
    pub ttft: f64,
    /// From sending to the last token.
    pub e2el: f64,
    /// Tokens of the answer.
    pub output_tokens: u32,
}

impl Times {
    /// Mean time of the tokens after the first; an answer of one token has none.
    #[must_use]
    pub fn tpot(self) -> Option<f64> {
        let others = self.output_tokens.checked_sub(1).filter(|others| *others > 0)?;
        Some((self.e2el - self.ttft) / f64::from(others))
    }
}

/// The longest that a good request takes, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Goals {
    /// To the first token.
    pub ttft: Option<f64>,
    /// For each further token.
    pub tpot: Option<f64>,
    /// To the last token.
    pub e2el: Option<f64>,
}

impl Goals {
    /// Reads `ttft:500,tpot:50`.
    ///
    /// # Errors
    /// Names what is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut goals = Self::default();
        for part in text.split(',') {
            let (name, value) =
                part.split_once(':').ok_or_else(|| format!("{part:?} is not name:milliseconds"))?;
            let goal = match name {
                "ttft" => &mut goals.ttft,
                "tpot" => &mut goals.tpot,
                "e2el" => &mut goals.e2el,
                _ => return Err(format!("{name:?} is none of ttft, tpot, e2el")),
            };
            let value = value.parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0);
            *goal = Some(value.ok_or_else(|| format!("{part:?} has no milliseconds above 0"))?);
        }
        Ok(goals)
    }

    /// Whether there are any.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    /// Whether a request meets them all.
    #[must_use]
    pub fn met(&self, times: Times) -> bool {
        let within = |goal: Option<f64>, found: Option<f64>| match (goal, found) {
            (Some(goal), Some(found)) => found <= goal,
            _ => true,
        };
        within(self.ttft, Some(times.ttft))
            && within(self.tpot, times.tpot())
            && within(self.e2el, Some(times.e2el))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_interpolated() {
        let summary = Summary::of((1..=101).rev().map(f64::from).collect()).unwrap();
        let expected = Summary { mean: 51.0, p50: 51.0, p90: 91.0, p95: 96.0, p99: 100.0, max: 101.0 };
        assert_eq!(summary, expected);
        assert!((percentile(&[1.0, 2.0], 0.25) - 1.25).abs() < 1e-12);
        assert_eq!((percentile(&[7.0], 0.99), Summary::of(Vec::new())), (7.0, None));
    }

    #[test]
    fn the_first_token_is_no_part_of_the_time_per_token() {
        let times = |output_tokens| Times { ttft: 100.0, e2el: 400.0, output_tokens };
        assert_eq!((times(4).tpot(), times(1).tpot(), times(0).tpot()), (Some(100.0), None, None));
    }

    #[test]
    fn a_request_is_good_when_it_meets_every_goal() {
        let times = Times { ttft: 100.0, e2el: 400.0, output_tokens: 4 };
        for (goals, met) in [
            ("ttft:100", true),
            ("ttft:99", false),
            ("tpot:100,e2el:400", true),
            ("ttft:100,tpot:99.9", false),
            ("ttft:100,e2el:399", false),
        ] {
            assert_eq!(Goals::parse(goals).unwrap().met(times), met, "{goals}");
        }
        assert!(Goals::default().met(times) && !Goals::default().any());
        for bad in ["", "ttft", "ttft:x", "ttft:0", "itl:5", "ttft:5,"] {
            assert!(Goals::parse(bad).is_err(), "{bad}");
        }
    }
}
