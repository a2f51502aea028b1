//! The admin listener: what kubelet, operator and Prometheus ask.
//!
//! In: the process's own state. Out: JSON and plain text.
//! It must not know requests or tokens.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use contract::bytes::Bytes;
use contract::http::{DRAIN, HEALTHZ, METRICS, PROGRESS, Phase, Progress, READYZ, RuntimeStatus, STATUS};
use contract::memory::MemoryPlan;
use sha2::{Digest, Sha256};

use super::{App, Serving};
use crate::progress::Tracker;

/// Content type of Prometheus's text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4";

/// What every process serves while it works: that it lives, and how far it is.
pub fn progress_routes(progress: Tracker) -> Router {
    Router::new()
        .route(HEALTHZ, get(async || "ok\n"))
        .route(PROGRESS, get(async |State(p): State<Tracker>| Json::<Progress>(p.snapshot())))
        .with_state(progress)
}

/// How `POST /drain` is guarded.
#[derive(Clone)]
pub struct Drain {
    /// What the caller must know.
    pub token: String,
    /// Longest wait for what is in flight.
    pub within: Duration,
}

/// The admin port of a serving process. Without a guard there is no `POST /drain`: SIGTERM drains as well.
pub fn admin(app: Arc<App>, drain: Option<Drain>) -> Router {
    let progress = progress_routes(app.progress.clone());
    let routes = Router::new()
        .route(READYZ, get(ready))
        .route(STATUS, get(status))
        .route(METRICS, get(metrics))
        .with_state(app.clone());
    let drain = drain.map(|drain| Router::new().route(DRAIN, post(drained)).with_state((app, drain)));
    progress.merge(routes).merge(drain.unwrap_or_default())
}

async fn ready(State(app): State<Arc<App>>) -> (StatusCode, String) {
    let phase = app.progress.phase();
    let status = if phase == Phase::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{phase:?}\n"))
}

async fn status(State(app): State<Arc<App>>) -> Result<Json<RuntimeStatus>, StatusCode> {
    let serving = app.serving.get().ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    let load = serving.engine.load();
    Ok(Json(RuntimeStatus {
        planned: serving.planned,
        measured: measured(serving),
        simulated: serving.simulated,
        device_uuids: Vec::new(),
        running: load.running as u64,
        waiting: load.waiting as u64,
    }))
}

async fn metrics(State(app): State<Arc<App>>) -> ([(header::HeaderName, &'static str); 1], String) {
    if let Some(serving) = app.serving.get() {
        app.metrics.load(serving.engine.load());
        app.metrics.memory(&serving.planned, &measured(serving));
        app.metrics.throttled(crate::cgroup::throttled_seconds());
    }
    ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], app.metrics.text())
}

async fn drained(
    State((app, drain)): State<(Arc<App>, Drain)>,
    headers: HeaderMap,
) -> (StatusCode, &'static str) {
    let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let given = given.and_then(|v| v.strip_prefix("Bearer ")).unwrap_or("");
    // Digests are compared, so that the time it takes says nothing about the token.
    if Sha256::digest(given) != Sha256::digest(&drain.token) {
        return (StatusCode::UNAUTHORIZED, "the admin token is missing or wrong\n");
    }
    app.close();
    match tokio::time::timeout(drain.within, app.idle()).await {
        Ok(()) => (StatusCode::OK, "nothing is in flight\n"),
        Err(_) => (StatusCode::GATEWAY_TIMEOUT, "requests are still in flight\n"),
    }
}

/// What was allocated, and for the runtime itself what the process takes beyond that. Packed weights that are mapped
/// count as weights, and other pages of files do not count: they can be dropped at any time.
fn measured(serving: &Serving) -> MemoryPlan {
    let Serving { allocated, mapped, .. } = *serving;
    let ours = [allocated.weights, allocated.activations, allocated.kv_cache];
    let known = ours.into_iter().fold(Bytes::ZERO, |sum, b| Bytes(sum.0.saturating_add(b.0)));
    let own = crate::memory::resident().unwrap_or_default();
    let resident = Bytes(own.0.saturating_add(mapped.0));
    MemoryPlan { runtime: resident.minus(known), ..allocated }
}
