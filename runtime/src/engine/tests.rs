use std::time::Duration;

use super::constraint::ConstraintError;
use super::worker::Worker;
use super::*;
use crate::fixture::toy::{POISON, Rule, limits, token, toy};

fn start(rule: Rule, n_blocks: u32, sequences: u32, queue: u32) -> EngineHandle {
    let (model, cache) = toy(rule, n_blocks);
    let (worker, handle) = Worker::new(model, cache, limits(n_blocks * 32, sequences, queue));
    std::thread::spawn(|| worker.run());
    handle
}

fn job(prompt: &[u32], max_tokens: u32) -> Job {
    let ends = Arc::new(BTreeSet::from([token("<end>")]));
    Job { ends, ..Job::new(prompt.to_vec(), max_tokens) }
}

async fn collect(mut stream: mpsc::Receiver<Event>) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = stream.recv().await {
        events.push(event);
    }
    // Whoever is answered was admitted, once and first.
    assert!(matches!(events.remove(0), Event::Admitted { .. }));
    assert!(!events.iter().any(|event| matches!(event, Event::Admitted { .. })));
    events
}

async fn idle(handle: &EngineHandle) -> Load {
    let mut load = handle.load.clone();
    *load.wait_for(|l| l.running + l.waiting == 0 && l.blocks_used == 0).await.unwrap()
}

fn submit(engine: &EngineHandle, job: Job) -> Result<mpsc::Receiver<Event>, Refused> {
    engine.submit(engine.reserve()?, job)
}

#[tokio::test]
async fn answers_end_at_the_end_token_or_at_their_length() {
    let engine = start(Rule::Successor, 8, 2, 4);
    let x = token("x");
    let stopped = collect(submit(&engine, job(&[x], 9)).unwrap()).await;
    let tokens = [x + 1, x + 2, x + 3].map(Event::Token);
    assert_eq!(stopped, [&tokens[..], &[Event::Finished(FinishReason::Stop)]].concat());
    let cut = collect(submit(&engine, job(&[x], 1)).unwrap()).await;
    assert_eq!(cut, [Event::Token(x + 1), Event::Finished(FinishReason::Length)]);
}

#[tokio::test]
async fn an_end_is_not_chosen_before_it_may_be() {
    let engine = start(Rule::Successor, 8, 2, 4);
    let x = token("x");
    let early = Job { min_tokens: 2, ..job(&[x], 9) };
    assert_eq!(collect(submit(&engine, early).unwrap()).await.len(), 4, "the end is the third");
    let late = collect(submit(&engine, Job { min_tokens: 3, ..job(&[x], 9) }).unwrap()).await;
    assert_eq!(late[..2], [x + 1, x + 2].map(Event::Token));
    assert_ne!(late[2], Event::Token(token("<end>")));
}

#[tokio::test]
async fn alone_or_in_a_storm_the_answer_is_the_same() {
    let prompt = |n: u32| (0..1 + n * 13 % 90).map(|i| (i * 7 + n) % 80).collect::<Vec<_>>();
    let mut alone = Vec::new();
    for n in 0..24 {
        let engine = start(Rule::Hash, 16, 1, 1);
        alone.push(collect(submit(&engine, job(&prompt(n), 1 + n % 50)).unwrap()).await);
    }
    let engine = start(Rule::Hash, 16, 5, 24);
    let streams: Vec<_> = (0..24).map(|n| submit(&engine, job(&prompt(n), 1 + n % 50)).unwrap()).collect();
    for (n, stream) in streams.into_iter().enumerate() {
        assert_eq!(collect(stream).await, alone[n], "request {n}");
    }
    assert!(idle(&engine).await.blocks_touched > 5);
}

/// Too little cache for all, prompts that begin alike: some find what others computed, some have to give way.
#[tokio::test]
async fn neither_shared_blocks_nor_giving_way_change_an_answer() {
    let prompt = |n: u32| (0..70).chain((0..n % 3 * 20).map(|i| i + n)).collect::<Vec<_>>();
    let mut alone = Vec::new();
    for n in 0..12 {
        let engine = start(Rule::Hash, 8, 1, 1);
        alone.push(collect(submit(&engine, job(&prompt(n), 100)).unwrap()).await);
    }
    let engine = start(Rule::Hash, 14, 4, 12);
    let streams: Vec<_> = (0..12).map(|n| submit(&engine, job(&prompt(n), 100)).unwrap()).collect();
    for (n, stream) in streams.into_iter().enumerate() {
        assert_eq!(collect(stream).await, alone[n], "request {n}");
    }
    let Counts { found, preemptions, .. } = idle(&engine).await.counts;
    assert!(found > 64 && preemptions > 0, "{found} found, {preemptions} gave way");
}

#[tokio::test]
async fn whoever_goes_away_frees_their_place() {
    let engine = start(Rule::Hash, 8, 1, 2);
    let mut running = submit(&engine, job(&[1], 200)).unwrap();
    assert_eq!(running.recv().await, Some(Event::Admitted { cached: 0 }));
    assert!(matches!(running.recv().await, Some(Event::Token(_))));
    let waiting = submit(&engine, job(&[2], 2)).unwrap();
    drop(running);
    assert_eq!(collect(waiting).await.len(), 3);
    idle(&engine).await;
}

#[tokio::test]
async fn the_queue_has_an_end() {
    // No thread serves this engine, so everybody waits.
    let (model, cache) = toy(Rule::Hash, 8);
    let (worker, engine) = Worker::new(model, cache, limits(256, 1, 2));
    let asked = Refused::TooLong { asked: 257, context: 256 };
    assert_eq!(submit(&engine, job(&[1], 256)).unwrap_err(), asked);
    // Who is refused leaves no place taken, and neither does who goes before there is a job.
    drop(engine.reserve().unwrap());
    let (_first, _second) = (submit(&engine, job(&[1], 2)).unwrap(), submit(&engine, job(&[1], 2)).unwrap());
    assert_eq!(submit(&engine, job(&[1], 2)).unwrap_err(), Refused::QueueFull { waiting: 2 });
    drop(worker);
    drop((_first, _second));
}

#[tokio::test]
async fn a_failing_step_ends_those_in_it_and_nobody_else() {
    let engine = start(Rule::Hash, 16, 1, 4);
    let poisoned = submit(&engine, job(&[token(POISON)], 5)).unwrap();
    let healthy = submit(&engine, job(&[1], 5)).unwrap();
    assert!(matches!(collect(poisoned).await.as_slice(), [Event::Failed(why)] if why.contains("poison")));
    assert_eq!(collect(healthy).await.len(), 6);
}

#[tokio::test]
async fn a_slow_reader_holds_nobody_up_and_loses_nothing() {
    let engine = start(Rule::Hash, 16, 2, 4);
    let slow = submit(&engine, job(&[1], 100)).unwrap();
    assert_eq!(collect(submit(&engine, job(&[2], 100)).unwrap()).await.len(), 101);
    idle(&engine).await;
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), collect(slow)).await.unwrap().len(), 101);
}

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
    let end = [Event::Finished(FinishReason::Stop)];
    let answer = |tokens: &[u32]| [tokens.iter().copied().map(Event::Token).collect(), end.to_vec()].concat();
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
        assert!(matches!(events, [Event::Failed(said)] if said.contains(why)), "{events:?}");
    };
    failed(&collect(refuses).await, "three");
    failed(&collect(nothing).await, "no token may come next");
    assert_eq!(collect(healthy).await.len(), 6);
    let panics = collect(submit(&engine, InTurn::job(&[2], &[&[66], &[], &[]])).unwrap()).await;
    failed(&panics[1..], "panic");
    assert_eq!(collect(submit(&engine, job(&[1], 5)).unwrap()).await.len(), 6);
}
