//! The two listeners: the API and the admin port.
//!
//! In: HTTP. Out: HTTP. Between them one [`App`], which every handler reads and the loading fills in.
//! It must not know tensors, sequences or blocks.
//!
//! ```text
//! bytes → request::chat → ValidRequest → encode → EngineHandle.submit ⇒ Event → text → JSON or SSE
//! ```

mod about;
pub mod admin;
mod answer;
mod answers;
mod anthropic;
mod client;
mod error;
pub mod gate;
mod generation;
mod intake;
pub mod keys;
mod openai;
mod render;
mod responses;
pub mod server;
mod sse;
pub mod tls;
mod tokenize;
pub mod watched;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use contract::bytes::Bytes;
use contract::http::{
    CHAT_COMPLETIONS, COMPLETIONS, COUNT_TOKENS, DETOKENIZE, EMBEDDINGS, HEALTH, LOAD, MESSAGES, MODELS,
    PING, Phase, RESPONSES, TOKENIZE, VERSION,
};
use contract::memory::MemoryPlan;
use tokio::sync::{Semaphore, watch};

use crate::defaults::Defaults;
use crate::embeds::Embeds;
use crate::engine::EngineHandle;
use crate::guide::Guides;
use crate::metrics::Metrics;
use crate::progress::Tracker;
use crate::tokens::Tokens;
use error::ApiError;
use gate::Guard;
use intake::Intake;

/// Prompts that are cut into tokens at once: that takes a core each, and the engine needs them more.
const ENCODERS: usize = 2;

/// What handlers share.
#[derive(Debug)]
pub struct App {
    /// Names that clients ask for; the first is the model's own.
    pub names: Vec<String>,
    /// How far loading is.
    pub progress: Tracker,
    /// The process's metrics.
    pub metrics: Arc<Metrics>,
    /// Seconds since the epoch at which the process began, which the API calls the model's creation.
    started: u64,
    serving: OnceLock<Serving>,
    guard: Guard,
    /// Longest time that a request may take.
    longest: Option<Duration>,
    intake: Intake,
    encoders: Semaphore,
    /// Numbers of vectors that may still be made at once.
    vectors: Arc<Semaphore>,
    /// Requests that have been read and are not answered to the end.
    in_flight: watch::Sender<usize>,
    /// Whether new requests are taken.
    admits: watch::Sender<bool>,
}

/// What there is once the model is loaded.
#[derive(Debug)]
pub struct Serving {
    /// Text in and out of tokens.
    pub tokens: Arc<Tokens>,
    /// What its answers may look like.
    pub guides: Arc<Guides>,
    /// How its authors want tokens chosen.
    pub defaults: Defaults,
    /// How it makes vectors of texts.
    pub embeds: Embeds,
    /// The engine.
    pub engine: EngineHandle,
    /// What the budget was cut into.
    pub planned: MemoryPlan,
    /// What was allocated, but for the runtime itself, which is measured when asked.
    pub allocated: MemoryPlan,
    /// Bytes of the weights that are mapped from a file of packed weights.
    pub mapped: Bytes,
    /// Whether the device is a simulated one.
    pub simulated: bool,
    /// What answers depend on beside their requests.
    pub fingerprint: String,
}

/// What the settings say of the API.
#[derive(Debug, Default)]
pub struct Front {
    /// Names that clients ask for; the first is the model's own.
    pub names: Vec<String>,
    /// Who may come in.
    pub guard: Guard,
    /// Longest time that a request may take.
    pub longest: Option<Duration>,
}

impl App {
    /// The state of a process that has loaded nothing yet and lets everybody in.
    #[must_use]
    pub fn new(served_name: &str, progress: Tracker) -> Arc<Self> {
        Self::open(Front { names: vec![served_name.to_owned()], ..Front::default() }, progress)
    }

    /// The state of a process that has loaded nothing yet.
    #[must_use]
    pub fn open(Front { names, guard, longest }: Front, progress: Tracker) -> Arc<Self> {
        let metrics = Arc::new(Metrics::new(names.first().map_or("", String::as_str)));
        Arc::new(Self {
            names,
            progress,
            metrics,
            started: now(),
            serving: OnceLock::new(),
            guard,
            longest,
            intake: Intake::new(),
            encoders: Semaphore::new(ENCODERS),
            vectors: Arc::new(Semaphore::new(openai::embeddings::ALL_NUMBERS)),
            in_flight: watch::Sender::new(0),
            admits: watch::Sender::new(true),
        })
    }

    /// The model is loaded: from now on requests are served.
    pub fn serve(&self, serving: Serving) {
        self.metrics.context(serving.engine.context());
        // A process loads one model, once.
        let _ = self.serving.set(serving);
        self.progress.enter(Phase::Ready);
        self.metrics.phases(&self.progress.snapshot().seconds);
    }

    /// From now on new requests are refused.
    pub fn close(&self) {
        self.progress.enter(Phase::Draining);
        self.admits.send_replace(false);
    }

    /// Waits until no request is in flight.
    pub async fn idle(&self) {
        // The sender is held by `self`, so the channel cannot close under us.
        let _ = self.in_flight.subscribe().wait_for(|n| *n == 0).await;
    }

    fn serving(&self) -> Result<&Serving, ApiError> {
        let serving = self.serving.get().filter(|_| self.progress.phase() >= Phase::Ready);
        let serving = serving.ok_or_else(|| ApiError::unavailable("the model is still being loaded"))?;
        if *self.admits.borrow() { Ok(serving) } else { Err(ApiError::draining()) }
    }

    fn fingerprint(&self) -> Option<String> {
        self.serving.get().map(|serving| serving.fingerprint.clone())
    }
}

/// Counts a request as in flight until it is dropped.
#[derive(Debug)]
struct InFlight(Arc<App>);

impl InFlight {
    fn new(app: &Arc<App>) -> Self {
        app.in_flight.send_modify(|n| *n += 1);
        Self(app.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.send_modify(|n| *n -= 1);
    }
}

/// Seconds since the epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The API's routes.
pub fn app(app: Arc<App>) -> Router {
    Router::new()
        .route(MODELS, get(about::models))
        .route(&format!("{MODELS}/{{*id}}"), get(about::one_model))
        .route(VERSION, get(about::version))
        .route(LOAD, get(about::load))
        .route(HEALTH, get(about::health))
        .route(PING, get(about::health).post(about::health))
        .route(TOKENIZE, post(tokenize::tokenize))
        .route(DETOKENIZE, post(tokenize::detokenize))
        .route(CHAT_COMPLETIONS, post(openai::chat))
        .route(COMPLETIONS, post(openai::completions))
        .route(EMBEDDINGS, post(openai::embeddings::embeddings))
        .route(RESPONSES, post(responses::responses))
        .route(MESSAGES, post(anthropic::messages))
        .route(COUNT_TOKENS, post(anthropic::count_tokens))
        .fallback(async || ApiError::no_route())
        .method_not_allowed_fallback(async || ApiError::no_method())
        .layer(from_fn_with_state(app.clone(), gate::pass))
        .with_state(app)
}

#[cfg(test)]
mod tests;
