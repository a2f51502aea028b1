//! Who is not taken, who waits, and whose time runs out.

use std::time::Instant;

use super::*;

#[tokio::test]
async fn prompts_that_wait_are_bounded_by_their_tokens() {
    let (model, cache) = toy(Rule::Hash, 8);
    let limits = EngineLimits { queue_tokens: 300, ..limits(256, 1, 8) };
    let (worker, engine) = Worker::new(model, cache, limits);
    let _first = submit(&engine, job(&[1; 200], 2)).unwrap();
    let refused = Refused::TokensFull { asked: 101, most: 300, retry_after: 1 };
    assert_eq!(submit(&engine, job(&[1; 101], 2)).unwrap_err(), refused);
    let _second = submit(&engine, job(&[1; 100], 2)).unwrap();
    assert_eq!(engine.load().refusals, Refusals { requests: 0, tokens: 1 });
    drop(worker);
    let (model, cache) = toy(Rule::Hash, 8);
    let (_worker, engine) = Worker::new(model, cache, EngineLimits { queue_tokens: 1, ..limits });
    let _one = submit(&engine, job(&[1; 200], 2)).unwrap();
}

#[tokio::test]
async fn a_tenant_that_asks_for_everything_leaves_places_to_others() {
    let (model, cache) = toy(Rule::Hash, 8);
    let (_worker, engine) = Worker::new(model, cache, limits(256, 1, 8));
    let of = |tenant, n| {
        let class = Class { tenant: Tenant(tenant), ..Class::default() };
        submit(&engine, Job { class, ..job(&vec![1; n], 2) })
    };
    let mut taken: Vec<_> = (0..8).map(|_| of(1, 1).unwrap()).collect();
    assert_eq!(of(1, 1).unwrap_err(), Refused::QueueFull { waiting: 8, retry_after: 1 });
    taken.push(of(2, 1).unwrap());
    assert_eq!(engine.load().refusals, Refusals { requests: 1, tokens: 0 });
}

#[tokio::test]
async fn what_nothing_can_be_made_of_is_refused_and_leaves_no_trace() {
    let (model, cache) = toy(Rule::Hash, 8);
    let limits = limits(256, 1, 1);
    let (_worker, engine) = Worker::new(model, cache, limits);
    let vocabulary = limits.vocabulary;
    let unknown = InvalidJob::Token { token: vocabulary, vocabulary };
    let invalid = [
        (job(&[], 5), InvalidJob::Prompt),
        (Job { n: 0, ..job(&[1], 5) }, InvalidJob::Choices),
        (job(&[1], 0), InvalidJob::Tokens),
        (job(&[1, vocabulary, u32::MAX], 5), unknown),
    ];
    for (job, why) in invalid {
        assert_eq!(submit(&engine, job).unwrap_err(), Refused::Invalid(why));
    }
    assert_eq!(Refused::from(unknown).retry_after(), None);
    let _last = submit(&engine, job(&[vocabulary - 1], 5)).unwrap();
}

/// Counts the requests that it hears were corrupted.
struct Corruptions(std::sync::mpsc::Sender<()>);

impl Observer for Corruptions {
    fn step(&mut self, _: &StepSeen<'_>) {}
    fn choice(&mut self, _: &ChoiceSeen) {}
    fn request(&mut self, _: &RequestSeen) {}
    fn corrupted(&mut self) {
        self.0.send(()).unwrap();
    }
}

#[tokio::test]
async fn who_gets_no_numbers_ends_and_nobody_else() {
    let alone = collect(submit(&start(Rule::Hash, 16, 1, 1), job(&[1], 9)).unwrap()).await;
    let (model, cache) = toy(Rule::Hash, 16);
    let (worker, engine) = Worker::new(model, cache, limits(512, 5, 4));
    let (tell, heard) = std::sync::mpsc::channel();
    let healthy = submit(&engine, job(&[1], 9)).unwrap();
    let lost = submit(&engine, Job { n: 2, ..job(&[2, token(LOST)], 9) }).unwrap();
    // Here it is only a token of the prompt whose probability is asked for.
    let prompt = [token(LOST), 3, 4];
    let told = submit(&engine, Job { prompt_logprobs: Some(1), ..job(&prompt, 9) }).unwrap();
    std::thread::spawn(|| worker.observed_by(Box::new(Corruptions(tell))).run());
    let failed = [Event::Failed(Failure::Corrupted(sampler::Corrupted))];
    assert_eq!(collect(lost).await, failed);
    assert_eq!(collect(told).await, failed);
    assert_eq!(collect(healthy).await, alone);
    assert_eq!(idle(&engine).await.blocks_used, 0);
    drop(engine);
    assert_eq!(heard.iter().count(), 2, "each request once");
}

#[tokio::test]
async fn who_waits_is_told_the_place() {
    let (model, cache) = toy(Rule::Hash, 8);
    let (worker, engine) = Worker::new(model, cache, limits(256, 1, 8));
    let mut streams: Vec<_> = (0..3).map(|n| submit(&engine, job(&[n], 20)).unwrap()).collect();
    std::thread::spawn(|| worker.run());
    assert_eq!(streams[2].recv().await, Some(Event::Queued { ahead: 1 }));
    assert_eq!(streams[1].recv().await, Some(Event::Queued { ahead: 0 }));
    assert_eq!(streams[0].recv().await, Some(Event::Admitted { cached: 0 }));
    for stream in streams {
        let events = collect_rest(stream).await;
        assert_eq!(events.last(), Some(&end(FinishReason::Length)));
    }
}

async fn collect_rest(mut stream: Events) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = stream.recv().await {
        events.push(event);
    }
    events
}

#[tokio::test]
async fn time_ends_answers() {
    let engine = start(Rule::Hash, 32, 1, 4);
    let now = Instant::now();
    let asked = |deadline| Job { deadline: Some(deadline), ..job(&[1], 900) };
    assert_eq!(submit(&engine, asked(now)).unwrap_err(), Refused::Late);
    // Somebody takes all the time that there is.
    let soon = || Instant::now() + Duration::from_millis(30);
    let running = submit(&engine, asked(soon())).unwrap();
    let waiting = submit(&engine, Job { n: 2, ..asked(soon()) }).unwrap();
    let events = collect(running).await;
    assert!(events.len() < 900 && events.last() == Some(&end(FinishReason::Deadline)), "{}", events.len());
    let waited = collect_rest(waiting).await;
    let late = |event: &&Event| matches!(event, Event::Finished { reason: FinishReason::Deadline, .. });
    assert_eq!(waited.iter().filter(late).count(), 2, "{waited:?}");
    let whole = submit(&engine, Job { deadline: Some(now + Duration::from_secs(3600)), ..job(&[1, 2], 9) });
    assert_eq!(collect(whole.unwrap()).await.last(), Some(&end(FinishReason::Length)));
    let load = idle(&engine).await;
    assert!(load.rates.read > 0.0 && load.rates.write > 0.0, "{:?}", load.rates);
}

/// Makes every step take a while.
struct Slow;

impl Observer for Slow {
    fn step(&mut self, _: &StepSeen<'_>) {
        std::thread::sleep(Duration::from_millis(3));
    }
    fn choice(&mut self, _: &ChoiceSeen) {}
    fn request(&mut self, _: &RequestSeen) {}
    fn corrupted(&mut self) {}
}

#[tokio::test]
async fn time_ends_every_choice_also_those_that_wait_for_the_first() {
    let (model, cache) = toy(Rule::Hash, 64);
    let (worker, engine) = Worker::new(model, cache, limits(2048, 2, 4));
    std::thread::spawn(|| worker.observed_by(Box::new(Slow)).run());
    // It reads sixteen tokens a step, and has no time to read all.
    let deadline = Some(Instant::now() + Duration::from_millis(60));
    let stream = submit(&engine, Job { n: 3, deadline, ..job(&vec![1; 1500], 400) }).unwrap();
    let events = collect_rest(stream).await;
    for choice in 0..3 {
        let end = Event::Finished { choice, reason: FinishReason::Deadline };
        assert_eq!(events.iter().filter(|event| **event == end).count(), 1, "{events:?}");
    }
    assert_eq!(idle(&engine).await.deferred, 0);
}
