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
