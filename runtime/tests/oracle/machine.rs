//! The model in our runtime, with the weights of the file or with all of them widened.

use std::fs;
use std::sync::Arc;

use contract::device::DeviceClass;
use contract::header::{Header, gguf};
use contract::{DType, KvDType, ModelGeometry};
use kernels::{Isa, Kernels, threads};
use runtime::engine::pool::Pooling;
use runtime::engine::tenants::Tenant;
use runtime::engine::worker::Worker;
use runtime::engine::{EngineLimits, Event, Events, Job};
use runtime::model::{self, Cache, Description, LoadRequest, Loaded, Model, Part, StepInput, with_floats};
use runtime::weights::{Tensors, widen::widen};
use sha2::{Digest, Sha256};

use super::golden::Prompt;
use super::vectors::Text;
use crate::model_file::model_file;

/// Most tokens of a prompt with its answer, and the blocks of the cache that they take.
const CONTEXT: u32 = 768;
const BLOCKS: u32 = CONTEXT.div_ceil(contract::memory::BLOCK_TOKENS);

/// Tokens whose logits are asked for at once.
const ROWS: usize = 64;

/// The checkpoint: what its header says, and its weights.
pub(crate) struct Checkpoint {
    /// Its header.
    pub(crate) header: Header,
    /// Its shape.
    pub(crate) geometry: ModelGeometry,
    bytes: Vec<u8>,
}

/// What a batch may be at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    /// Sequences at once.
    pub(crate) sequences: u32,
    /// Tokens of a step.
    pub(crate) step_tokens: u32,
}

/// The model with a cache for one sequence.
pub(crate) struct Machine {
    model: Box<dyn Model>,
    cache: Cache,
}

impl Checkpoint {
    /// Reads the file that `make model` fetches, which has to be the one that the oracle had.
    pub(crate) fn read(sha256: &str) -> Self {
        let bytes = fs::read(model_file()).unwrap();
        assert_eq!(hex::encode(Sha256::digest(&bytes)), sha256, "this is not the oracle's model");
        let header = gguf::parse(&bytes, bytes.len() as u64).unwrap();
        let geometry = ModelGeometry::from_gguf(&header.metadata).unwrap();
        Self { header, geometry, bytes }
    }

    /// The same with every weight as the `f32` that it stands for, so that nothing rounds activations to eight bits.
    pub(crate) fn widened(self) -> Self {
        let mut bytes = Vec::new();
        let mut header = self.header;
        for tensor in &mut header.tensors {
            let source = &self.bytes[tensor.range.start as usize..tensor.range.end as usize];
            let start = bytes.len() as u64;
            bytes
                .extend(widen(tensor.dtype, source).unwrap().unwrap().into_iter().flat_map(f32::to_le_bytes));
            (tensor.dtype, tensor.range) = (DType::F32, start..bytes.len() as u64);
        }
        Self { header, bytes, ..self }
    }

    fn load(self, isa: Isa, step_tokens: usize, logit_rows: usize) -> Box<dyn Model> {
        let Self { header, geometry, bytes } = self;
        let tensors = Tensors::in_memory(bytes, &header).unwrap();
        let request = LoadRequest {
            geometry: &geometry,
            description: Description::Gguf(&header.metadata),
            tensors: &tensors,
            device: DeviceClass::Cpu,
            step_tokens,
            logit_rows,
        };
        let kernels = Arc::new(Kernels::new(isa, threads::available()));
        let mut loaded_bytes = 0;
        let Loaded { model, weights, .. } =
            model::load(&request, kernels, &mut |bytes| loaded_bytes += bytes).unwrap();
        let stored: u64 = header.tensors.iter().map(|tensor| tensor.range.end - tensor.range.start).sum();
        assert_eq!(loaded_bytes, stored, "progress counts every byte of the tensors");
        assert_eq!(weights.0, stored, "packing keeps the size: all shapes are whole tiles");
        model
    }

    /// The model on the kernels of `isa`, to look at every logit.
    pub(crate) fn machine(self, isa: Isa, kv_dtype: KvDType) -> Machine {
        let model = self.load(isa, ROWS, ROWS);
        let cache = Cache::new(model.cache_spec(), kv_dtype, BLOCKS as usize).unwrap();
        Machine { model, cache }
    }

    /// What follows each prompt, greedily and past any end, when the engine gets all of them at once. Each answer is as
    /// long as the oracle's.
    pub(crate) fn answers(self, prompts: &[Prompt], batch: Batch) -> Vec<Vec<u32>> {
        let job =
            |prompt: &Prompt| Job::new(prompt.tokens.clone(), u32::try_from(prompt.follows.len()).unwrap());
        let answer = |mut stream: Events| {
            let mut tokens = Vec::new();
            while let Some(event) = stream.blocking_recv() {
                assert!(!matches!(event, Event::Failed(_)), "{event:?}");
                if let Event::Token { token, .. } = event {
                    tokens.push(token);
                }
            }
            tokens
        };
        self.streams(prompts.iter().map(job).collect(), batch, KvDType::default())
            .into_iter()
            .map(answer)
            .collect()
    }

    /// The states of each text's last token, when the engine gets all of them at once.
    pub(crate) fn states(self, texts: &[Text], batch: Batch) -> Vec<Box<[f32]>> {
        let job = |text: &Text| Job::embedding(text.tokens.clone(), Pooling::Last);
        let state = |mut stream: Events| loop {
            match stream.blocking_recv().unwrap() {
                Event::Embedded(state) => break state,
                event => assert!(matches!(event, Event::Admitted { .. } | Event::Queued { .. }), "{event:?}"),
            }
        };
        self.streams(texts.iter().map(job).collect(), batch, KvDType::F32).into_iter().map(state).collect()
    }

    /// What comes of some jobs.
    fn streams(self, jobs: Vec<Job>, batch: Batch, kv_dtype: KvDType) -> Vec<Events> {
        let Batch { sequences, step_tokens } = batch;
        let model = self.load(Isa::detect(), step_tokens as usize, sequences as usize);
        let blocks = (sequences * BLOCKS) as usize;
        let cache = Cache::new(model.cache_spec(), kv_dtype, blocks).unwrap();
        let queue = u32::try_from(jobs.len()).unwrap();
        let limits = EngineLimits {
            context: CONTEXT,
            sequences,
            step_tokens,
            queue,
            queue_tokens: u32::MAX,
            vocabulary: u32::MAX,
        };
        let (worker, engine) = Worker::new(model, cache, limits);
        let place = || engine.reserve(Tenant::default()).unwrap();
        let streams = jobs.into_iter().map(|job| engine.submit(place(), job).unwrap()).collect();
        drop(engine);
        // Everything was handed over, and the channels have room for every event.
        worker.run();
        streams
    }
}

impl Machine {
    /// Shows the logits that follow each of the tokens.
    pub(crate) fn each_position(&mut self, tokens: &[u32], mut see: impl FnMut(usize, &[f32])) {
        let table: Vec<u32> = (0..BLOCKS).collect();
        for (index, part) in tokens.chunks(ROWS).enumerate() {
            let first = index * ROWS;
            let first_position = u32::try_from(first).unwrap();
            let part = Part { tokens: part, first_position, table: &table, wants_logits: true };
            let mut step = StepInput::of(&[part]).unwrap();
            step.logits_at = (0..).take(part.tokens.len()).collect();
            let logits = self.model.forward(&step, &mut self.cache).unwrap();
            let show = |all: &[f32]| {
                let rows = all.chunks(all.len() / part.tokens.len());
                rows.enumerate().for_each(|(row, logits)| see(first + row, logits));
            };
            with_floats(&logits, show).unwrap();
        }
    }
}
