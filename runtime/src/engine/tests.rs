mod choices;
mod constraints;
mod limits;
mod vectors;

use std::time::Duration;

use super::observe::{ChoiceSeen, Observer, RequestSeen, StepSeen};
use super::tenants::Tenant;
use super::worker::Worker;
use super::*;
use crate::fixture::toy::{LOST, POISON, Rule, limits, token, toy};

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

const fn next(token: u32) -> Event {
    Event::Token { choice: 0, token, logprobs: None }
}

const fn end(reason: FinishReason) -> Event {
    Event::Finished { choice: 0, reason }
}

async fn collect(mut stream: Events) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = stream.recv().await {
        if !matches!(event, Event::Queued { .. }) {
            events.push(event);
        }
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

fn submit(engine: &EngineHandle, job: Job) -> Result<Events, Refused> {
    engine.submit(engine.reserve(job.class.tenant)?, job)
}

#[tokio::test]
async fn answers_end_at_the_end_token_or_at_their_length() {
    let engine = start(Rule::Successor, 8, 2, 4);
    let x = token("x");
    let stopped = collect(submit(&engine, job(&[x], 9)).unwrap()).await;
    let tokens = [x + 1, x + 2, x + 3].map(next);
    assert_eq!(stopped, [&tokens[..], &[end(FinishReason::Stop)]].concat());
    let cut = collect(submit(&engine, job(&[x], 1)).unwrap()).await;
    assert_eq!(cut, [next(x + 1), end(FinishReason::Length)]);
}

#[tokio::test]
async fn an_end_is_not_chosen_before_it_may_be() {
    let engine = start(Rule::Successor, 8, 2, 4);
    let x = token("x");
    let early = Job { min_tokens: 2, ..job(&[x], 9) };
    assert_eq!(collect(submit(&engine, early).unwrap()).await.len(), 4, "the end is the third");
    let late = collect(submit(&engine, Job { min_tokens: 3, ..job(&[x], 9) }).unwrap()).await;
    assert_eq!(late[..2], [x + 1, x + 2].map(next));
    assert_ne!(late[2], next(token("<end>")));
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
    while running.recv().await != Some(Event::Admitted { cached: 0 }) {}
    assert!(matches!(running.recv().await, Some(Event::Token { .. })));
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
    drop(engine.reserve(Tenant::default()).unwrap());
    let (_first, _second) = (submit(&engine, job(&[1], 2)).unwrap(), submit(&engine, job(&[1], 2)).unwrap());
    assert_eq!(submit(&engine, job(&[1], 2)).unwrap_err(), Refused::QueueFull { waiting: 2, retry_after: 1 });
    assert_eq!(engine.load().refusals, Refusals { requests: 1, tokens: 0 });
    drop(worker);
    drop((_first, _second));
}

#[tokio::test]
async fn whoever_makes_a_step_fail_ends_and_nobody_else() {
    let alone = collect(submit(&start(Rule::Hash, 16, 1, 1), job(&[1], 5)).unwrap()).await;
    // Alone in the batch, and with others.
    for sequences in [1, 3] {
        let (model, cache) = toy(Rule::Hash, 16);
        let (worker, engine) = Worker::new(model, cache, limits(512, sequences, 4));
        let before = submit(&engine, job(&[1], 5)).unwrap();
        let poisoned = submit(&engine, job(&[token(POISON)], 5)).unwrap();
        let after = submit(&engine, job(&[1], 5)).unwrap();
        std::thread::spawn(|| worker.run());
        let failed = collect(poisoned).await;
        assert!(
            matches!(failed.as_slice(), [Event::Failed(Failure::Step(why))] if why.contains("poison")),
            "{failed:?}"
        );
        assert_eq!(collect(before).await, alone);
        assert_eq!(collect(after).await, alone);
    }
}

/// Sends what it hears.
struct Heard(std::sync::mpsc::Sender<(ChoiceSeen, RequestSeen)>, Option<ChoiceSeen>, u32);

impl Observer for Heard {
    fn step(&mut self, step: &StepSeen<'_>) {
        self.2 += step.served.iter().map(|served| served.read + served.written).sum::<u32>();
    }

    fn choice(&mut self, choice: &ChoiceSeen) {
        self.1 = Some(*choice);
    }

    fn corrupted(&mut self) {
        self.1 = None;
    }

    fn request(&mut self, request: &RequestSeen) {
        assert!(self.2 >= 40, "{} tokens were computed", self.2);
        // Nobody listens at the end of the test.
        let _ = self.0.send((self.1.take().unwrap(), *request));
    }
}

#[tokio::test]
async fn what_is_done_is_heard_of() {
    let (model, cache) = toy(Rule::Hash, 16);
    let (worker, engine) = Worker::new(model, cache, limits(512, 2, 4));
    let (heard, hears) = std::sync::mpsc::channel();
    std::thread::spawn(|| worker.observed_by(Box::new(Heard(heard, None, 0))).run());
    let prompt: Vec<u32> = (0..40).collect();
    for (computed, n) in [(40, 1), (8, 1), (8, 2)] {
        collect(submit(&engine, Job { n, ..job(&prompt, 5) }).unwrap()).await;
        let (choice, request) = hears.recv().unwrap();
        assert_eq!((choice.prompt, choice.computed, choice.generated), (40, computed, 5));
        assert!(choice.prefill > 0.0 && choice.decode > 0.0 && choice.queue >= 0.0, "{choice:?}");
        assert_eq!(request, RequestSeen { n, max_tokens: 5, most_generated: 5 });
    }
    // Who goes before the first token leaves nothing.
    drop(submit(&engine, job(&prompt, 400)).unwrap());
    idle(&engine).await;
}

#[tokio::test]
async fn a_slow_reader_holds_nobody_up_and_loses_nothing() {
    let engine = start(Rule::Hash, 16, 2, 4);
    let slow = submit(&engine, job(&[1], 100)).unwrap();
    assert_eq!(collect(submit(&engine, job(&[2], 100)).unwrap()).await.len(), 101);
    idle(&engine).await;
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), collect(slow)).await.unwrap().len(), 101);
}
