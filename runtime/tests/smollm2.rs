//! The real model: SmolLM2-135M-Instruct, Q4_1, answers a question as it should.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "shared/model_file.rs"]
mod model_file;

use std::fs;
use std::sync::Arc;

use contract::device::DeviceClass;
use contract::header::gguf;
use contract::{KvDType, ModelGeometry};
use kernels::{Isa, Kernels, threads};
use model_file::model_file;
use runtime::engine::sampler::adjust::Past;
use runtime::engine::sampler::{Draw, Sampling, Scratch, sample};
use runtime::engine::sequence::Class;
use runtime::engine::tenants::Tenant;
use runtime::engine::worker::Worker;
use runtime::engine::{EngineHandle, EngineLimits, Event, Events, Job};
use runtime::model::{self, Cache, Description, LoadRequest, Model, Part, StepInput, with_floats};
use runtime::weights::Tensors;

/// The chat template's text for one user message, "What does HTTP stand for?", in the model's tokens: byte-pair
/// encoded with the merges of its own metadata after the split of GPT-2.
const PROMPT: [u32; 36] = [
    1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182,
    2, 198, 1, 4093, 198, 1780, 1072, 17108, 1481, 327, 47, 2, 198, 1, 520, 9531, 198,
];

/// "HTTP stands for Hypertext Transfer Protocol".
const ANSWER: [u32; 7] = [23432, 6443, 327, 17649, 2692, 21863, 14743];

fn load(n_blocks: usize) -> (Box<dyn Model>, Cache) {
    let path = model_file();
    let bytes = fs::read(&path).unwrap();
    let header = gguf::parse(&bytes, bytes.len() as u64).unwrap();
    let geometry = ModelGeometry::from_gguf(&header.metadata).unwrap();
    let tensors = Tensors::map(&path, &header).unwrap();
    let request = LoadRequest {
        geometry: &geometry,
        description: Description::Gguf(&header.metadata),
        tensors: &tensors,
        device: DeviceClass::Cpu,
        step_tokens: 64,
        logit_rows: 4,
    };
    let kernels = Arc::new(Kernels::new(Isa::detect(), threads::available()));
    let mut loaded_bytes = 0;
    let loaded = model::load(&request, kernels, &mut |bytes| loaded_bytes += bytes).unwrap();
    let stored: u64 = header.tensors.iter().map(|tensor| tensor.range.end - tensor.range.start).sum();
    assert_eq!(loaded_bytes, stored, "progress counts every byte of the tensors");
    assert_eq!(loaded.weights.0, stored, "packing keeps the size: all shapes are whole tiles");
    let cache = Cache::new(loaded.model.cache_spec(), KvDType::F32, n_blocks).unwrap();
    (loaded.model, cache)
}

/// The tokens that greedily follow the prompt, fed in steps of at most `step_tokens`.
fn greedy(step_tokens: usize, n: usize) -> Vec<u32> {
    let (mut model, mut cache) = load(4);
    let mut tokens = PROMPT.to_vec();
    let mut done = 0;
    while tokens.len() < PROMPT.len() + n {
        let end = tokens.len().min(done + step_tokens);
        let part = Part {
            tokens: &tokens[done..end],
            first_position: done as u32,
            table: &[2, 1],
            wants_logits: true,
        };
        let logits = model.forward(&StepInput::of(&[part]).unwrap(), &mut cache).unwrap();
        done = end;
        if done == tokens.len() {
            let sampling = Sampling::default();
            let draw = Draw { position: done as u32, choice: 0 };
            let next = with_floats(&logits, |row| {
                sample(row, &sampling, &Past::default(), draw, &mut Scratch::default()).unwrap()
            });
            tokens.push(next.unwrap());
        }
    }
    tokens.split_off(PROMPT.len())
}

#[test]
fn it_knows_what_http_stands_for_however_it_is_computed() {
    let whole = greedy(64, 20);
    assert_eq!(whole[..ANSWER.len()], ANSWER);
    assert_eq!(greedy(7, 20), whole, "in small steps");
}

/// One of several requests that begin alike; `salt` keeps it from finding what others computed.
fn job(n: u32, salt: &str) -> Job {
    let prompt = PROMPT.iter().copied().chain((0..n * 11 % 40).map(|i| 300 + i * n)).collect();
    let sampling = Sampling { temperature: 0.8, top_p: 0.95, seed: n.into(), ..Sampling::default() };
    let class = Class { salt: salt.into(), ..Class::default() };
    // Some want several answers, and all want to know how probable they were.
    Job { sampling, class, n: 1 + u16::from(n.is_multiple_of(3)), logprobs: Some(4), ..Job::new(prompt, 40) }
}

fn submit(engine: &EngineHandle, job: Job) -> Events {
    engine.submit(engine.reserve(Tenant::default()).unwrap(), job).unwrap()
}

/// What each choice got.
fn tokens(mut events: Events) -> [Vec<Event>; 2] {
    let mut choices = [Vec::new(), Vec::new()];
    while let Some(event) = events.blocking_recv() {
        match event {
            Event::Token { choice, .. } | Event::Finished { choice, .. } => {
                choices[usize::from(choice)].push(event);
            }
            _ => assert!(matches!(event, Event::Admitted { .. } | Event::Queued { .. }), "{event:?}"),
        }
    }
    choices
}

#[test]
fn answers_are_the_same_to_the_bit_alone_and_in_a_storm_that_shares_and_gives_way() {
    let (model, cache) = load(7);
    let limits = EngineLimits {
        context: 160,
        sequences: 4,
        step_tokens: 64,
        queue: 8,
        queue_tokens: 4096,
        vocabulary: u32::MAX,
    };
    let (worker, engine) = Worker::new(model, cache, limits);
    std::thread::spawn(|| worker.run());
    let alone: Vec<_> = (0..6).map(|n| tokens(submit(&engine, job(n, &format!("alone-{n}"))))).collect();
    assert!(alone.iter().enumerate().all(|(n, choices)| choices[1].is_empty() == (n % 3 != 0)));
    assert!(alone.iter().all(|[first, second]| first.len() == 41 && first != second));
    let shared_alone = engine.load().counts.found;
    let storm: Vec<_> = (0..6).map(|n| submit(&engine, job(n, "storm"))).collect();
    for (n, events) in storm.into_iter().enumerate() {
        assert_eq!(tokens(events), alone[n], "request {n}");
    }
    let counts = engine.load().counts;
    assert!(counts.found >= shared_alone + 64 && counts.preemptions > 0, "{counts:?}");
}
