//! The two listeners: the API and the admin port.
//!
//! In: HTTP. Out: HTTP. Between them one [`App`], which every handler reads and the loading fills in.
//! It must not know tensors, sequences or blocks.
//!
//! ```text
//! bytes → request::chat → ValidRequest → encode → EngineHandle.submit ⇒ Event → text → JSON or SSE
//! ```

pub mod admin;
mod body;
mod client;
mod error;
mod generation;
mod openai;
mod sse;

use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::routing::{get, post};
use contract::bytes::Bytes;
use contract::http::{CHAT_COMPLETIONS, COMPLETIONS, MODELS, Phase};
use contract::memory::MemoryPlan;
use tokio::sync::watch;

use crate::engine::EngineHandle;
use crate::metrics::Metrics;
use crate::progress::Tracker;
use crate::tokens::Tokens;
use error::ApiError;

/// What handlers share.
#[derive(Debug)]
pub struct App {
    /// Name that clients ask for.
    pub served_name: String,
    /// How far loading is.
    pub progress: Tracker,
    /// The process's metrics.
    pub metrics: Arc<Metrics>,
    /// Seconds since the epoch at which the process began, which the API calls the model's creation.
    started: u64,
    serving: OnceLock<Serving>,
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
}

impl App {
    /// The state of a process that has loaded nothing yet.
    #[must_use]
    pub fn new(served_name: &str, progress: Tracker) -> Arc<Self> {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Arc::new(Self {
            served_name: served_name.to_owned(),
            progress,
            metrics: Arc::new(Metrics::new(served_name)),
            started,
            serving: OnceLock::new(),
            in_flight: watch::Sender::new(0),
            admits: watch::Sender::new(true),
        })
    }

    /// The model is loaded: from now on requests are served.
    pub fn serve(&self, serving: Serving) {
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
        if *self.admits.borrow() {
            Ok(serving)
        } else {
            Err(ApiError::unavailable("this replica is draining; send the request again"))
        }
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

/// The API's routes.
pub fn app(app: Arc<App>) -> Router {
    Router::new()
        .route(MODELS, get(openai::models))
        .route(CHAT_COMPLETIONS, post(openai::chat))
        .route(COMPLETIONS, post(openai::completions))
        .fallback(async || ApiError::no_route())
        .method_not_allowed_fallback(async || ApiError::no_method())
        .with_state(app)
}

#[cfg(test)]
mod tests;
