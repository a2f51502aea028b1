//! Several answers to one prompt, and what is told of their tokens.

use super::*;
use crate::engine::constraint::{Constraint, ConstraintError};
use crate::engine::sampler::Sampling;
use crate::engine::sampler::adjust::Adjust;

fn drawn(prompt: &[u32], n: u16, max_tokens: u32) -> Job {
    // Anything but what would end it.
    let bias = ["<end>", POISON, LOST].map(|text| (token(text), -100.0)).into();
    let adjust = Adjust { bias, ..Adjust::default() };
    let sampling = Sampling { temperature: 4.0, seed: 11, adjust, ..Sampling::default() };
    Job { n, sampling, logprobs: Some(3), ..job(prompt, max_tokens) }
}

/// The events of each choice.
async fn by_choice(stream: Events, n: u16) -> Vec<Vec<Event>> {
    let mut choices = vec![Vec::new(); usize::from(n)];
    for event in collect(stream).await {
        let (Event::Token { choice, .. } | Event::Finished { choice, .. }) = event else {
            panic!("{event:?}");
        };
        choices[usize::from(choice)].push(event);
    }
    choices
}

fn prompt(n: u32) -> Vec<u32> {
    (0..1 + n * 29 % 120).map(|i| (i * 7 + n) % 80).collect()
}

#[tokio::test]
async fn choices_are_the_same_alone_and_in_a_storm_that_gives_way() {
    let mut alone = Vec::new();
    for n in 0..10u16 {
        let engine = start(Rule::Hash, 16, 1, 1);
        let choices = 1 + n % 4;
        let stream = submit(&engine, drawn(&prompt(n.into()), choices, 60)).unwrap();
        alone.push(by_choice(stream, choices).await);
        let last = alone.last().unwrap();
        assert!(last.iter().all(|choice| matches!(choice.last(), Some(Event::Finished { .. }))));
        assert!(n % 4 == 0 || last[0] != last[1], "every choice draws for itself");
    }
    let engine = start(Rule::Hash, 14, 6, 12);
    let streams: Vec<_> =
        (0..10u16).map(|n| submit(&engine, drawn(&prompt(n.into()), 1 + n % 4, 60)).unwrap()).collect();
    for (n, stream) in (0..10u16).zip(streams) {
        assert_eq!(by_choice(stream, 1 + n % 4).await, alone[usize::from(n)], "request {n}");
    }
    let Counts { preemptions, found, .. } = idle(&engine).await.counts;
    assert!(preemptions > 0 && found > 0, "{preemptions} gave way, {found} found");
}

#[tokio::test]
async fn a_prompt_of_many_choices_is_read_once() {
    let engine = start(Rule::Hash, 32, 4, 4);
    let prompt: Vec<u32> = (0..70).collect();
    by_choice(submit(&engine, drawn(&prompt, 4, 5)).unwrap(), 4).await;
    // Two full blocks of the first are found by the three others.
    assert_eq!(idle(&engine).await.counts, Counts { looked_for: 4 * 70, found: 3 * 64, preemptions: 0 });
}

#[tokio::test]
async fn one_choice_goes_and_the_others_stay() {
    let engine = start(Rule::Hash, 32, 4, 4);
    let mut stream = submit(&engine, drawn(&[1, 2, 3], 3, 150)).unwrap();
    let mut tokens = [0; 3];
    while let Some(event) = stream.recv().await {
        match event {
            Event::Token { choice, .. } => tokens[usize::from(choice)] += 1,
            Event::Finished { choice, .. } => assert_ne!(choice, 1),
            _ => {}
        }
        if tokens[1] == 1 {
            stream.cancel(1);
        }
    }
    // What was computed before the engine heard of it is read as well.
    assert!(tokens[1] < 150 && tokens[0] == 150 && tokens[2] == 150, "{tokens:?}");
    stream.cancel(7);
    assert_eq!(idle(&engine).await.blocks_used, 0);
}

#[tokio::test]
async fn probabilities_are_told_of_the_prompt_and_of_the_answer() {
    let engine = start(Rule::Successor, 16, 3, 4);
    let x = token("a");
    let prompt = [x, x + 1, x + 2, 0];
    // The second time, the cache has the beginning; and yet all is computed that is asked for.
    for _ in 0..2 {
        let long: Vec<u32> = prompt.iter().copied().chain((0..40).map(|i| i + 1)).collect();
        let asked = Job { prompt_logprobs: Some(1), logprobs: Some(2), n: 2, ..job(&long, 2) };
        let events = collect(submit(&engine, asked).unwrap()).await;
        let told: Vec<_> = events
            .iter()
            .filter_map(|event| {
                if let Event::Prompt(told) = event {
                    Some((told.token, told.rank, told.top.clone()))
                } else {
                    None
                }
            })
            .collect();
        assert_eq!(told.len(), long.len() - 1);
        assert_eq!(told.iter().map(|(token, ..)| *token).collect::<Vec<_>>(), long[1..]);
        assert_eq!((told[0].1, told[0].2[0].0), (1, x + 1), "the toy expects it");
        assert_eq!((told[2].1, told[2].2[0].0), (2, x + 3), "and here another, then all others by their ids");
        for choice in 0..2 {
            let mine = |event: &&Event| matches!(event, Event::Token { choice: c, .. } if *c == choice);
            let Some(Event::Token { token, logprobs: Some(told), .. }) = events.iter().find(mine) else {
                panic!("{events:?}");
            };
            assert_eq!((*token, told.token, told.rank, told.top.len()), (41, 41, 1, 2));
            assert!(told.logprob < 0.0 && told.top[1].1 < told.logprob - 9.0, "{told:?}");
        }
    }
}

/// Ends after some tokens that it shares with nobody.
#[derive(Clone, Debug)]
struct Countdown(u32);

impl Constraint for Countdown {
    fn allowed(&mut self) -> Result<Option<&[u32]>, ConstraintError> {
        Ok(None)
    }

    fn chosen(&mut self, _: u32) -> Result<bool, ConstraintError> {
        self.0 -= 1;
        Ok(self.0 == 0)
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

#[tokio::test]
async fn every_choice_has_a_constraint_of_its_own() {
    let engine = start(Rule::Hash, 32, 4, 4);
    let asked = Job { constraint: Some(Box::new(Countdown(7))), ..drawn(&[1, 2], 3, 100) };
    for choice in by_choice(submit(&engine, asked).unwrap(), 3).await {
        assert_eq!(choice.len(), 8);
        assert!(matches!(choice[7], Event::Finished { reason: FinishReason::Stop, .. }));
    }
}
