//! What is served here, and how it is: models, version, load, health.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::App;
use super::error::ApiError;
use crate::request::served;

/// `GET /v1/models`.
pub(super) async fn models(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let context = app.serving()?.engine.context();
    let models: Vec<_> = app.names.iter().map(|name| model(&app, name, context)).collect();
    let (first, last) = (app.names.first(), app.names.last());
    // The last three are of Anthropic's list, which has the same path.
    Ok(Json(json!({
        "object": "list", "data": models, "has_more": false, "first_id": first, "last_id": last
    })))
}

/// `GET /v1/models/{id}`; names may have slashes in them.
pub(super) async fn one_model(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let context = app.serving()?.engine.context();
    served(&id, &app.names)?;
    Ok(Json(model(&app, &id, context)))
}

fn model(app: &App, name: &str, context: u32) -> Value {
    let root = app.names.first();
    json!({
        "id": name, "object": "model", "created": app.started, "owned_by": "llm-fleet", "root": root,
        "parent": null, "max_model_len": context, "type": "model", "display_name": name
    })
}

/// `GET /version`.
pub(super) async fn version() -> Json<Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION") }))
}

/// `GET /load`: requests that are not answered to the end, as vLLM's.
pub(super) async fn load(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({ "server_load": *app.in_flight.borrow() }))
}

/// `GET /health` and `GET /ping`: whether a request would be taken now.
pub(super) async fn health(State(app): State<Arc<App>>) -> Result<(), ApiError> {
    app.serving()?;
    if app.progress.phase() == contract::http::Phase::Ready { Ok(()) } else { Err(ApiError::draining()) }
}
