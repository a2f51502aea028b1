//! Vectors of prompts, beside answers to others.

use super::*;

const POOLINGS: [Pooling; 3] = [Pooling::Last, Pooling::First, Pooling::Mean];

fn wanted(n: u32) -> Job {
    let prompt = (0..70).chain((0..1 + n * 13 % 90).map(|i| (i * 7 + n) % 80));
    Job::embedding(prompt.collect(), POOLINGS[n as usize % POOLINGS.len()])
}

async fn vector(stream: Events) -> Box<[f32]> {
    match collect(stream).await.as_slice() {
        [Event::Embedded(vector), last] if *last == end(FinishReason::Stop) => vector.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_vector_is_the_same_alone_and_in_a_storm_that_shares_and_gives_way() {
    let mut alone = Vec::new();
    for n in 0..12 {
        let engine = start(Rule::Hash, 8, 1, 1);
        alone.push(vector(submit(&engine, wanted(n)).unwrap()).await);
    }
    assert_eq!(alone[0][0], 71.0, "the last token has a past of all others");
    assert_eq!((alone[1][0], alone[2][0]), (1.0, (70.0 + 27.0 + 1.0) / 2.0), "the first's, and the mean's");
    let engine = start(Rule::Hash, 14, 4, 24);
    let answers: Vec<_> = (0..12).map(|n| submit(&engine, job(&[n; 70], 100)).unwrap()).collect();
    let vectors: Vec<_> = (0..12).map(|n| submit(&engine, wanted(n)).unwrap()).collect();
    for (n, stream) in vectors.into_iter().enumerate() {
        assert_eq!(vector(stream).await, alone[n], "request {n}");
    }
    drop(answers);
    let Counts { found, preemptions, .. } = idle(&engine).await.counts;
    assert!(found > 0 && preemptions > 0, "{found} found, {preemptions} gave way");
}

#[tokio::test]
async fn a_prompt_may_fill_the_context_and_its_tokens_are_read_not_written() {
    #[derive(Clone, Default)]
    struct Seen(Arc<std::sync::Mutex<(u32, u32, Vec<ChoiceSeen>)>>);
    impl Observer for Seen {
        fn step(&mut self, step: &StepSeen<'_>) {
            let mut seen = self.0.lock().unwrap();
            for served in step.served {
                (seen.0, seen.1) = (seen.0 + served.read, seen.1 + served.written);
            }
        }
        fn choice(&mut self, choice: &ChoiceSeen) {
            self.0.lock().unwrap().2.push(*choice);
        }
        fn corrupted(&mut self) {
            panic!("the toy's numbers are sound");
        }
        fn request(&mut self, request: &RequestSeen) {
            panic!("it has no answer: {request:?}");
        }
    }
    let (model, cache) = toy(Rule::Hash, 2);
    let (worker, engine) = Worker::new(model, cache, limits(64, 2, 4));
    let seen = Seen::default();
    let worker = worker.observed_by(Box::new(seen.clone()));
    std::thread::spawn(|| worker.run());
    let full = |n| Job::embedding(vec![1; n], Pooling::Last);
    assert_eq!(submit(&engine, full(65)).unwrap_err(), Refused::TooLong { asked: 65, context: 64 });
    assert_eq!(vector(submit(&engine, full(64)).unwrap()).await[0], 64.0);
    idle(&engine).await;
    let (read, written, choices) = seen.0.lock().unwrap().clone();
    assert_eq!((read, written), (64, 0));
    assert!(matches!(choices[..], [ChoiceSeen { prompt: 64, generated: 0, .. }]), "{choices:?}");
}

#[tokio::test]
async fn what_follows_waits_for_room_and_nobody_is_left_when_the_client_goes() {
    let (model, cache) = toy(Rule::Hash, 8);
    let (worker, engine) = Worker::new(model, cache, limits(256, 1, 2));
    let first = [submit(&engine, wanted(0)).unwrap(), submit(&engine, wanted(1)).unwrap()];
    assert!(matches!(submit(&engine, wanted(2)), Err(Refused::QueueFull { .. })));
    let more = tokio::spawn({
        let engine = engine.clone();
        async move { vector(engine.submit_next(wanted(2)).await.unwrap()).await }
    });
    tokio::task::yield_now().await;
    assert!(!more.is_finished());
    std::thread::spawn(|| worker.run());
    drop(first);
    assert_eq!(more.await.unwrap().len(), 2);
    idle(&engine).await;
}
