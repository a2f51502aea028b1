//! The admin listener: what kubelet, operator and Prometheus ask.
//!
//! In: the process's own state. Out: JSON and plain text.
//! It must not know requests or tokens.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use contract::http::{HEALTHZ, PROGRESS, Progress};

use crate::progress::Tracker;

/// What every process serves while it works: that it lives, and how far it is.
#[must_use]
pub fn progress_routes(progress: Tracker) -> Router {
    Router::new()
        .route(HEALTHZ, get(async || "ok\n"))
        .route(PROGRESS, get(async |State(p): State<Tracker>| Json::<Progress>(p.snapshot())))
        .with_state(progress)
}
