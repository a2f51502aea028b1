//! How fast the engine reads prompts and writes answers, and what follows for those who wait. Pure: times are numbers.
//!
//! In: what each step did and how long it took. Out: tokens a second, and seconds until what waits has been done.

/// Seconds of work after which a measurement counts half.
const HALF_LIFE: f64 = 10.0;
/// Answers after which another counts half.
const HALF_ANSWERS: f64 = 32.0;
/// Nobody is sent away for longer than this: what was measured may have changed by then.
const LONGEST_RETRY: u32 = 120;

/// About how long those who generate wait for prompts that are read beside them, in seconds.
const BESIDE: f64 = 0.06;
/// So many tokens are always read, a block.
const LEAST_BESIDE: f64 = 32.0;

/// Tokens a second of the time that is spent on them; zero where nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Tokens of prompts.
    pub read: f64,
    /// Tokens of answers.
    pub write: f64,
}

/// Tokens that those who wait want.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Read.
    pub read: u64,
    /// Written, as far as answers are as long as the last ones were.
    pub write: u64,
}

/// An amount and what it was measured over, of which the older counts less and less.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    amount: f64,
    over: f64,
}

impl Recent {
    fn add(&mut self, amount: f64, over: f64, half: f64) {
        let keep = 0.5f64.powf(over / half);
        self.amount = self.amount.mul_add(keep, amount);
        self.over = self.over.mul_add(keep, over);
    }

    fn mean(self) -> f64 {
        if self.over > 0.0 { self.amount / self.over } else { 0.0 }
    }
}

/// What was measured of late.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recently {
    read: Recent,
    written: Recent,
    answers: Recent,
}

impl Recently {
    /// A step took so many seconds. Tokens read and written cost about the same, so each kind has its share of them.
    pub fn step(&mut self, read: u32, written: u32, seconds: f64) {
        for (recent, n) in [(&mut self.read, read), (&mut self.written, written)] {
            if n > 0 {
                let share = f64::from(n) / (f64::from(read) + f64::from(written));
                recent.add(f64::from(n), seconds * share, HALF_LIFE);
            }
        }
    }

    /// An answer ended with so many tokens.
    pub fn answer(&mut self, tokens: u32) {
        self.answers.add(f64::from(tokens), 1.0, HALF_ANSWERS);
    }

    /// Tokens a second.
    #[must_use]
    pub fn rates(&self) -> Rates {
        Rates { read: self.read.mean(), write: self.written.mean() }
    }

    /// Tokens of an answer in the mean; the most there are where none has ended.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of u32 is one")]
    pub fn answer_tokens(&self) -> u32 {
        if self.answers.over > 0.0 { self.answers.mean().ceil() as u32 } else { u32::MAX }
    }
}

/// Tokens of prompts that a step may have in which others generate, so that these have their next token in time.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
pub fn prompt_tokens_beside(rates: Rates) -> u32 {
    if rates.read > 0.0 { (rates.read * BESIDE).max(LEAST_BESIDE) as u32 } else { u32::MAX }
}

/// Seconds after which all who wait now will have had their turn, at least one: what is refused now has room then.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped before")]
#[allow(clippy::cast_precision_loss, reason = "tokens that wait are far below 2^53")]
pub fn retry_after(backlog: Backlog, rates: Rates) -> u32 {
    let seconds = |tokens: u64, rate: f64| if rate > 0.0 { tokens as f64 / rate } else { 0.0 };
    let seconds = seconds(backlog.read, rates.read) + seconds(backlog.write, rates.write);
    seconds.ceil().clamp(1.0, f64::from(LONGEST_RETRY)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_become_rates_and_the_old_is_forgotten() {
        let mut recently = Recently::default();
        assert_eq!((recently.rates(), recently.answer_tokens()), (Rates::default(), u32::MAX));
        // A quarter of the step's tokens is written, in a quarter of its time.
        recently.step(75, 25, 0.5);
        assert_eq!(recently.rates(), Rates { read: 200.0, write: 200.0 });
        (0..2000).for_each(|_| recently.step(0, 4, 0.05));
        let Rates { read, write } = recently.rates();
        assert!((read - 200.0).abs() < 1e-9 && (write - 80.0).abs() < 0.1, "{read} {write}");
        recently.answer(10);
        recently.answer(11);
        assert_eq!(recently.answer_tokens(), 11);
    }

    #[test]
    fn prompts_leave_time_to_those_who_generate() {
        let beside = |read| prompt_tokens_beside(Rates { read, write: 1.0 });
        assert_eq!([0.0, 10.0, 1000.0, 1e12].map(beside), [u32::MAX, 32, 60, u32::MAX]);
    }

    #[test]
    fn who_is_refused_comes_again_when_the_others_are_done() {
        let rates = Rates { read: 100.0, write: 10.0 };
        assert_eq!(retry_after(Backlog { read: 250, write: 25 }, rates), 5);
        assert_eq!(retry_after(Backlog { read: 1, write: 0 }, rates), 1, "at least a second");
        assert_eq!(retry_after(Backlog { read: u64::MAX, write: 0 }, rates), LONGEST_RETRY);
        assert_eq!(retry_after(Backlog { read: 9, write: 9 }, Rates::default()), 1, "nothing is known yet");
    }
}
