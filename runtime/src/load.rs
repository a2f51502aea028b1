//! From settings to an engine that is ready to run: headers, budget, self-test, weights, warm-up.
//!
//! In: [`Settings`]. Out: the [`Worker`], and what the listeners need to serve; or why not.
//! It must not know HTTP.

use std::io;
use std::path::Path;
use std::sync::Arc;

use contract::bytes::Bytes;
use contract::device::DeviceClass;
use contract::exit::{ExitReason, ExitReport};
use contract::http::Phase;
use contract::memory::{BLOCK_TOKENS, Capacity, MemoryPlan, STEP_TOKENS, n_blocks};
use contract::tensors::group;
use kernels::{Isa, Kernels};

use crate::checkpoint::Checkpoint;
use crate::config::Settings;
use crate::defaults::Defaults;
use crate::device::{Device, DeviceError, Fit, fit};
use crate::embeds::{Embeds, EmbedsError};
use crate::engine::EngineLimits;
use crate::engine::pool::Pooling;
use crate::engine::scheduler::{Scheduler, StepLimits};
use crate::engine::sequence::{Class, Sequence, SequenceId};
use crate::engine::worker::Worker;
use crate::exit::{chain, report};
use crate::fetch::read_manifest;
use crate::fingerprint::{Basis, sampled};
use crate::guide::Guides;
use crate::http::Serving;
use crate::model::family::{Description, LoadRequest, ModelError};
use crate::model::{Cache, Model};
use crate::packing;
use crate::progress::Tracker;
use crate::selftest;
use crate::tokens::Tokens;
use crate::weights::load::LoadError;
use crate::weights::packed::Packed;
use crate::weights::{MapError, Tensors};

/// Loads everything onto the kernels of `isa`. Phases and bytes go to `progress`.
///
/// # Errors
/// Whatever keeps this process from serving.
pub fn load(settings: &Settings, isa: Isa, progress: &Tracker) -> Result<(Worker, Serving), ExitReport> {
    let checkpoint = Checkpoint::open(Path::new(&settings.config.model_path));
    let checkpoint = checkpoint.map_err(|e| report(e.reason(), &e))?;
    check_digest(settings, &checkpoint)?;
    let tokens = Arc::new(Tokens::load(&checkpoint).map_err(|e| report(e.reason(), &e))?);
    let defaults = Defaults::load(&checkpoint).map_err(|e| report(e.reason(), &e))?;
    let guides = Guides::new(tokens.clone(), settings.dialect)
        .map_err(|e| report(ExitReason::ModelUnsupported, &e))?;
    let embeds = embeds(&checkpoint)?;
    let capacity = Capacity {
        context_length: settings.config.context_length.unwrap_or(checkpoint.geometry.context_length),
        concurrency: settings.concurrency,
        kv_dtype: settings.config.kv_dtype,
    };
    let fit = fitted(settings, &checkpoint, capacity).map_err(|e| report(e.reason(), &e))?;
    let blocks = u32::try_from(fit.n_blocks).map_err(|e| report(ExitReason::BudgetTooSmall, &e))?;

    progress.enter(Phase::SelfTest);
    let threads = settings.threads.unwrap_or_else(kernels::threads::available);
    let kernels = tested_kernels(isa, threads)?;
    tracing::info!(threads, isa = isa.name(), "the self-test has passed");

    progress.enter(Phase::Loading);
    let (mut model, mut allocated, mapped) = weights(&checkpoint, kernels, settings, progress)?;
    let cache = Cache::new(model.cache_spec(), capacity.kv_dtype, blocks as usize);
    let mut cache = cache.map_err(|e| report(ExitReason::DeviceMemoryTaken, &e))?;
    allocated.kv_cache = cache.bytes();
    fit.check_allocated(&allocated).map_err(|e| report(e.reason(), &e))?;

    progress.enter(Phase::WarmingUp);
    warm_up(model.as_mut(), &mut cache, capacity)?;
    let limits = EngineLimits {
        context: capacity.context_length,
        sequences: capacity.concurrency,
        step_tokens: STEP_TOKENS,
        queue: settings.queue,
        queue_tokens: settings.queue_tokens,
        vocabulary: checkpoint.geometry.vocab,
    };
    let (mut worker, engine) = Worker::new(model, cache, limits);
    worker.prepare(checkpoint.geometry.vocab as usize);
    let serving = Serving {
        tokens,
        guides: Arc::new(guides),
        defaults,
        embeds,
        engine,
        planned: fit.plan,
        allocated,
        mapped,
        simulated: settings.simulated.is_some(),
        fingerprint: fingerprint(settings, &checkpoint, isa, threads)?,
    };
    Ok((worker, serving))
}

fn fingerprint(
    settings: &Settings,
    checkpoint: &Checkpoint,
    isa: Isa,
    threads: usize,
) -> Result<String, ExitReport> {
    let known = settings.config.digest.clone();
    let known = known.or_else(|| read_manifest(&checkpoint.root).map(|manifest| manifest.digest));
    let weights = match known {
        Some(digest) => digest,
        None => sampled(checkpoint).map_err(|e| report(ExitReason::VolumeFailed, &e))?,
    };
    let cache = format!("{:?}", settings.config.kv_dtype);
    Ok(Basis { weights: &weights, kernels: isa.name(), cache: &cache, threads }.fingerprint())
}

fn embeds(checkpoint: &Checkpoint) -> Result<Embeds, ExitReport> {
    Embeds::load(checkpoint, Pooling::Last).map_err(|error| match error {
        EmbedsError::Checkpoint(e) => report(e.reason(), &e),
        EmbedsError::Pooling { .. } => report(ExitReason::ModelUnsupported, &error),
    })
}

/// The volume says what it holds, if a fetch job filled it.
fn check_digest(settings: &Settings, checkpoint: &Checkpoint) -> Result<(), ExitReport> {
    let (Some(asked), Some(manifest)) = (&settings.config.digest, read_manifest(&checkpoint.root)) else {
        return Ok(());
    };
    if *asked == manifest.digest {
        return Ok(());
    }
    let message = format!("the volume holds the checkpoint {}, but {asked} is to be served", manifest.digest);
    Err(ExitReport { reason: ExitReason::DigestMismatch, message })
}

/// Kernels that have shown on this very device that they compute what they should.
///
/// # Errors
/// Where the self-test fails: then nothing must be served.
pub fn tested_kernels(isa: Isa, threads: usize) -> Result<Arc<Kernels>, ExitReport> {
    let kernels = Arc::new(Kernels::new(isa, threads));
    selftest::run(&kernels).map_err(|e| report(ExitReason::SelfTestFailed, &e))?;
    Ok(kernels)
}

/// What the model gets of its device, if the device has it.
fn fitted(settings: &Settings, checkpoint: &Checkpoint, capacity: Capacity) -> Result<Fit, DeviceError> {
    let groups = group(&checkpoint.header.tensors);
    let fit = fit(&checkpoint.geometry, &groups, capacity, settings.config.device, settings.budget)?;
    let device = match settings.simulated {
        Some(bytes) if settings.config.device == DeviceClass::Nvidia => Device::Simulated { bytes },
        _ => Device::Cpu,
    };
    fit.check_free(device.free())?;
    tracing::info!(
        blocks = fit.n_blocks,
        of = n_blocks(capacity)?,
        bytes = %fit.plan.total()?,
        "the memory is planned"
    );
    Ok(fit)
}

/// Finds what [`load`] would refuse of a checkpoint, without reading its weights: a model is not called ready that no
/// replica can serve.
///
/// # Errors
/// Those of [`load`] that the checkpoint is to blame for, but for what only the numbers show.
pub fn check(checkpoint: &Checkpoint) -> Result<(), ExitReport> {
    Tokens::load(checkpoint).map_err(|e| report(e.reason(), &e))?;
    embeds(checkpoint)?;
    let tensors = Tensors::map(&checkpoint.weights, &checkpoint.header).map_err(|e| map_report(&e))?;
    let request = request(checkpoint, &tensors, DeviceClass::Cpu, 1);
    crate::model::check(&request).map_err(|e| model_report(&e))
}

fn request<'a>(
    checkpoint: &'a Checkpoint,
    tensors: &'a Tensors,
    device: DeviceClass,
    concurrency: u32,
) -> LoadRequest<'a> {
    let description = match &checkpoint.config {
        Some(config) => Description::Config(config),
        None => Description::Gguf(&checkpoint.header.metadata),
    };
    LoadRequest {
        geometry: &checkpoint.geometry,
        description,
        tensors,
        device,
        step_tokens: STEP_TOKENS as usize,
        logit_rows: concurrency.min(STEP_TOKENS) as usize,
    }
}

fn weights(
    checkpoint: &Checkpoint,
    kernels: Arc<Kernels>,
    settings: &Settings,
    progress: &Tracker,
) -> Result<(Box<dyn Model>, MemoryPlan, Bytes), ExitReport> {
    let total = checkpoint.header.tensors.iter().map(|t| Bytes(t.range.end - t.range.start));
    progress.expect_bytes(Bytes::sum(total).map_err(|e| report(ExitReason::WeightsCorrupt, &e))?);
    let tensors = Tensors::map(&checkpoint.weights, &checkpoint.header).map_err(|e| map_report(&e))?;
    let tensors = tensors.with_packed(packing::find(checkpoint));
    let request = request(checkpoint, &tensors, settings.config.device, settings.concurrency);
    let loaded = crate::model::load(&request, kernels, &mut |bytes| progress.add_bytes(bytes));
    let loaded = loaded.map_err(|e| model_report(&e))?;
    let allocated =
        MemoryPlan { weights: loaded.weights, activations: loaded.activations, ..MemoryPlan::default() };
    let mapped = tensors.packed().map_or(Bytes::ZERO, Packed::used);
    Ok((loaded.model, allocated, mapped))
}

fn map_report(error: &MapError) -> ExitReport {
    let reason = match error {
        MapError::Io(e) if e.kind() != io::ErrorKind::NotFound => ExitReason::VolumeFailed,
        MapError::Io(_) | MapError::Contradiction(_) => ExitReason::WeightsCorrupt,
    };
    report(reason, error)
}

fn model_report(error: &ModelError) -> ExitReport {
    let reason = match error {
        // A file of numbers that are no numbers, or that is not as its own header says, is broken. Tensors that are
        // not those of the family may well be right: they are another model's.
        ModelError::Weights(LoadError::Map(map)) => return map_report(map),
        ModelError::Weights(LoadError::NotFinite(_) | LoadError::Widen { .. }) => ExitReason::WeightsCorrupt,
        ModelError::Setting { .. } | ModelError::Weights(_) => ExitReason::ModelUnsupported,
        ModelError::Buffers(_) => ExitReason::DeviceMemoryTaken,
    };
    report(reason, error)
}

/// The largest step that a sequence may take goes through the whole model, and then one with as many rows of logits as
/// there may be: so the first request does not pay for first touches, and memory that is missing is missed now.
fn warm_up(model: &mut dyn Model, cache: &mut Cache, capacity: Capacity) -> Result<(), ExitReport> {
    let n_blocks = u32::try_from(cache.n_blocks()).unwrap_or(u32::MAX);
    let tokens = STEP_TOKENS.min(capacity.context_length).min(n_blocks.saturating_mul(BLOCK_TOKENS));
    let sequence = Sequence::new(SequenceId(0), &Class::default(), vec![0; tokens as usize], 1);
    for (sequences, sequence) in
        [(1, sequence.clone()), (capacity.concurrency.min(tokens), sequence.with_prompt_rows())]
    {
        let limits = StepLimits { sequences, tokens, groups: cache.spec().groups.len() };
        let mut scheduler = Scheduler::new(limits, n_blocks);
        scheduler.add(sequence);
        scheduler.admit();
        let step = scheduler.plan().expect("a sequence that fits into the cache was just admitted");
        model.forward(&step.input, cache).map(drop).map_err(|error| {
            let message = format!("the model cannot be run: {}", chain(&error));
            ExitReport { reason: ExitReason::Internal, message }
        })?;
    }
    Ok(())
}
