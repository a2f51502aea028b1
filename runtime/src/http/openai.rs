//! OpenAI's endpoints. Shapes: the API reference of platform.openai.com, sections Chat, Completions and Models.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;
use serde_json::{Value, json};

use super::body::{Header, Shape};
use super::client::Client;
use super::error::ApiError;
use super::generation::{Generation, Part};
use super::{App, sse};
use crate::engine::{FinishReason, Place};
use crate::request::{self, Delivery, MAX_BODY, ValidRequest};

/// Longest time that a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Names the fields of a request that were ignored.
const IGNORED_HEADER: &str = "x-ignored-params";

/// `GET /v1/models`.
pub(super) async fn models(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let engine = &app.serving()?.engine;
    let model = json!({
        "id": app.served_name, "object": "model", "created": app.started, "owned_by": "llm-fleet",
        "max_model_len": engine.context()
    });
    Ok(Json(json!({ "object": "list", "data": [model] })))
}

/// `POST /v1/chat/completions`.
pub(super) async fn chat(
    State(app): State<Arc<App>>,
    client: Client,
    body: Body,
) -> Result<Response, ApiError> {
    let place = app.serving()?.engine.reserve()?;
    let request = request::chat(&read(body).await?, &app.served_name)?;
    answer(&app, place, (client, Shape::Chat), request).await
}

/// `POST /v1/completions`.
pub(super) async fn completions(
    State(app): State<Arc<App>>,
    client: Client,
    body: Body,
) -> Result<Response, ApiError> {
    let place = app.serving()?.engine.reserve()?;
    let request = request::completion(&read(body).await?, &app.served_name)?;
    answer(&app, place, (client, Shape::Completion), request).await
}

async fn read(body: Body) -> Result<axum::body::Bytes, ApiError> {
    let bytes = tokio::time::timeout(BODY_TIME, to_bytes(body, MAX_BODY)).await;
    bytes.map_err(|_| ApiError::too_slow())?.map_err(|error| {
        let source = error.source();
        if source.is_some_and(<dyn Error>::is::<LengthLimitError>) {
            ApiError::too_large()
        } else {
            ApiError::broken_body()
        }
    })
}

async fn answer(
    app: &Arc<App>,
    place: Place,
    (client, shape): (Client, Shape),
    request: ValidRequest,
) -> Result<Response, ApiError> {
    let ignored = request.ignored.join(", ");
    let delivery = request.delivery;
    let generation = Generation::start(app, place, &client, request).await?;
    let header = Header::new(app, shape);
    let mut response = match delivery {
        Delivery::Whole => whole(generation, &header).await?.into_response(),
        Delivery::Stream { usage } => sse::stream(generation, header, usage),
    };
    if !ignored.is_empty() {
        add_ignored(response.headers_mut(), &ignored);
    }
    Ok(response)
}

fn add_ignored(headers: &mut HeaderMap, ignored: &str) {
    if let Ok(value) = HeaderValue::from_str(ignored) {
        headers.insert(IGNORED_HEADER, value);
    }
}

async fn whole(mut generation: Generation, header: &Header) -> Result<Json<Value>, ApiError> {
    let (mut text, mut reason) = (String::new(), FinishReason::Stop);
    while let Some(part) = generation.next().await {
        match part {
            Part::Text(more) => text.push_str(&more),
            Part::End(why) => reason = why,
            Part::Failed => return Err(ApiError::internal("the answer could not be computed")),
        }
    }
    Ok(Json(header.whole(&text, reason, generation.usage())))
}
