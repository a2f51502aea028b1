//! Requests that say what may come next.

use super::*;
use crate::engine::constraint::ConstraintError;

/// Allows tokens in turn, and ends after the last of them; fails where it is told to.
#[derive(Clone, Debug)]
struct InTurn {
    turns: Vec<&'static [u32]>,
    mask: Vec<u32>,
    panics: bool,
}

impl InTurn {
    fn job(prompt: &[u32], turns: &[&'static [u32]]) -> Job {
        let constraint = Self { turns: turns.to_vec(), mask: Vec::new(), panics: false };
        Job { constraint: Some(Box::new(constraint)), ..job(prompt, 9) }
    }
}

impl Constraint for InTurn {
    fn allowed(&mut self) -> Result<Option<&[u32]>, ConstraintError> {
        assert!(!self.panics);
        self.mask = vec![0; 10];
        for token in self.turns[0] {
            self.mask[(token / 32) as usize] |= 1 << (token % 32);
        }
        // Whoever allows everything needs no mask.
        Ok((!self.turns[0].is_empty()).then_some(&self.mask))
    }

    fn chosen(&mut self, token: u32) -> Result<bool, ConstraintError> {
        let allowed = self.turns.remove(0);
        if allowed.is_empty() && token == 3 {
            return Err(ConstraintError("three".into()));
        }
        self.panics = token == 66;
        Ok(self.turns.is_empty())
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

#[tokio::test]
async fn a_constraint_says_what_may_come_and_when_it_is_enough() {
    let engine = start(Rule::Successor, 16, 4, 8);
    let end = [end(FinishReason::Stop)];
    let answer = |tokens: &[u32]| [tokens.iter().copied().map(next).collect(), end.to_vec()].concat();
    let free = submit(&engine, job(&[1], 4)).unwrap();
    // Of those allowed, the likeliest; of equally likely ones the first.
    let bound = submit(&engine, InTurn::job(&[4], &[&[40, 5, 70], &[], &[99, 50]])).unwrap();
    assert_eq!(collect(bound).await, answer(&[5, 6, 50]));
    assert_eq!(collect(free).await.len(), 5);
    // Nothing but the end may come, so it comes although it is too early.
    let only_end: &'static [u32] = Box::leak(Box::new([token("<end>")]));
    let early = Job { min_tokens: 5, ..InTurn::job(&[1], &[only_end]) };
    assert_eq!(collect(submit(&engine, early).unwrap()).await, answer(only_end));
}

#[tokio::test]
async fn a_constraint_that_gives_up_ends_its_own_request_only() {
    let engine = start(Rule::Successor, 16, 4, 8);
    let healthy = submit(&engine, job(&[1], 5)).unwrap();
    let refuses = submit(&engine, InTurn::job(&[2], &[&[], &[], &[]])).unwrap();
    let nothing = submit(&engine, InTurn::job(&[2], &[&[300], &[]])).unwrap();
    let failed = |events: &[Event], why: &str| {
        assert!(
            matches!(events, [Event::Failed(said @ Failure::Constraint(_))] if said.to_string().contains(why)),
            "{events:?}"
        );
    };
    failed(&collect(refuses).await, "three");
    failed(&collect(nothing).await, "no token may come next");
    assert_eq!(collect(healthy).await.len(), 6);
    // Where threads unwind, which those of a release do not, a panic ends nobody who has no constraint either.
    let (model, cache) = toy(Rule::Successor, 16);
    let (worker, engine) = Worker::new(model, cache, limits(512, 4, 4));
    let panics = submit(&engine, InTurn::job(&[2], &[&[66], &[], &[]])).unwrap();
    let beside = submit(&engine, job(&[1], 5)).unwrap();
    std::thread::spawn(|| worker.run());
    failed(&collect(panics).await[1..], "panic");
    assert_eq!(collect(beside).await.len(), 6);
}

#[tokio::test]
async fn a_constraint_outlives_a_step_that_another_request_made_fail() {
    let (model, cache) = toy(Rule::Successor, 16);
    let (worker, engine) = Worker::new(model, cache, limits(512, 4, 4));
    let bound = submit(&engine, InTurn::job(&[4], &[&[40, 5, 70], &[], &[99, 50]])).unwrap();
    let poisoned = submit(&engine, Job { n: 2, ..job(&[token(POISON)], 5) }).unwrap();
    std::thread::spawn(|| worker.run());
    assert!(matches!(collect(poisoned).await.as_slice(), [Event::Failed(_)]), "once for all its choices");
    assert_eq!(collect(bound).await, [next(5), next(6), next(50), end(FinishReason::Stop)]);
    assert_eq!(idle(&engine).await.blocks_used, 0);
}

/// Allows one token after the other of a list, and fails where it is told of another.
#[derive(Clone, Debug)]
struct Spelled(Vec<u32>, Vec<u32>);

impl Constraint for Spelled {
    fn allowed(&mut self) -> Result<Option<&[u32]>, ConstraintError> {
        self.1 = vec![0; 10];
        self.1[(self.0[0] / 32) as usize] |= 1 << (self.0[0] % 32);
        Ok(Some(&self.1))
    }

    fn chosen(&mut self, token: u32) -> Result<bool, ConstraintError> {
        let expected = self.0.remove(0);
        if expected == token { Ok(self.0.is_empty()) } else { Err(ConstraintError(format!("{token}"))) }
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

#[tokio::test]
async fn a_constraint_whose_sequence_gives_way_hears_every_token_once() {
    let engine = start(Rule::Hash, 14, 4, 12);
    let spelled = |n: u32| (0..90).map(|i| (i * 5 + n) % 60).collect::<Vec<_>>();
    let ask = |n: u32| {
        let constraint: Box<dyn Constraint> = Box::new(Spelled(spelled(n), Vec::new()));
        submit(&engine, Job { constraint: Some(constraint), ..job(&vec![n; 70], 200) }).unwrap()
    };
    let streams: Vec<_> = (0..8).map(ask).collect();
    for (n, stream) in (0..).zip(streams) {
        let expected: Vec<_> = spelled(n).into_iter().map(next).chain([end(FinishReason::Stop)]).collect();
        assert_eq!(collect(stream).await, expected, "request {n}");
    }
    assert!(idle(&engine).await.counts.preemptions > 0);
}
