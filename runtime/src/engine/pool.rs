//! The states of a prompt's tokens become one vector.
//!
//! In: states, in the order of their tokens. Out: their last, their first, or their mean. Sums are in that order and in
//! `f64`, so the vector does not depend on how the prompt was cut into steps.

/// Which states make the vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// The last token's, which has seen all others.
    #[default]
    Last,
    /// The first token's.
    First,
    /// All of them, to equal parts.
    Mean,
}

/// A vector that is not complete yet.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pooling: Pooling,
    sum: Vec<f64>,
    n: f64,
}

impl Pooling {
    /// Whether the last token's state is enough.
    #[must_use]
    pub const fn is_last(self) -> bool {
        matches!(self, Self::Last)
    }
}

impl Pool {
    pub(super) const fn new(pooling: Pooling) -> Self {
        Self { pooling, sum: Vec::new(), n: 0.0 }
    }

    /// The next token's state.
    pub(super) fn add(&mut self, state: &[f32]) {
        let wide = state.iter().map(|number| f64::from(*number));
        match self.pooling {
            Pooling::First if self.n > 0.0 => {}
            Pooling::Mean if self.n > 0.0 => {
                self.sum.iter_mut().zip(wide).for_each(|(sum, number)| *sum += number);
                self.n += 1.0;
            }
            _ => (self.sum, self.n) = (wide.collect(), 1.0),
        }
    }

    /// The vector of all that were added.
    #[allow(clippy::cast_possible_truncation, reason = "states have single precision")]
    pub(super) fn vector(&self) -> Box<[f32]> {
        self.sum.iter().map(|sum| (sum / self.n) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_the_last_the_first_or_the_mean() {
        let vector = |pooling| {
            let mut pool = Pool::new(pooling);
            [[1.0, 0.0], [2.0, -8.0], [6.0, 2.0]].iter().for_each(|state| pool.add(state));
            pool.vector().to_vec()
        };
        assert_eq!(vector(Pooling::Last), [6.0, 2.0]);
        assert_eq!(vector(Pooling::First), [1.0, 0.0]);
        assert_eq!(vector(Pooling::Mean), [3.0, -2.0]);
    }
}
