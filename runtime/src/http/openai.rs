//! OpenAI's endpoints. Shapes: the API reference of platform.openai.com, sections Chat, Completions and Models.

use std::error::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;
use serde_json::{Value, json};

use super::error::ApiError;
use super::generation::{Generation, Part, Usage};
use super::{App, sse};
use crate::engine::FinishReason;
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
pub(super) async fn chat(State(app): State<Arc<App>>, body: Body) -> Result<Response, ApiError> {
    app.serving()?;
    let request = request::chat(&read(body).await?, &app.served_name)?;
    answer(&app, request, Shape::Chat).await
}

/// `POST /v1/completions`.
pub(super) async fn completions(State(app): State<Arc<App>>, body: Body) -> Result<Response, ApiError> {
    app.serving()?;
    let request = request::completion(&read(body).await?, &app.served_name)?;
    answer(&app, request, Shape::Completion).await
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

async fn answer(app: &Arc<App>, request: ValidRequest, shape: Shape) -> Result<Response, ApiError> {
    let ignored = request.ignored.join(", ");
    let delivery = request.delivery;
    let generation = Generation::start(app, request).await?;
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

/// Which of the two endpoints an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Chat,
    Completion,
}

/// What all chunks of one answer have in common.
#[derive(Clone, Debug)]
pub(super) struct Header {
    id: String,
    created: u64,
    model: String,
    shape: Shape,
}

impl Header {
    fn new(app: &App, shape: Shape) -> Self {
        let prefix = match shape {
            Shape::Chat => "chatcmpl",
            Shape::Completion => "cmpl",
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            id: format!("{prefix}-{:016x}{:016x}", random(), random()),
            created: now.map_or(0, |d| d.as_secs()),
            model: app.served_name.clone(),
            shape,
        }
    }

    fn with(&self, object: &str, choices: &Value) -> Value {
        let Self { id, created, model, shape: _ } = self;
        json!({ "id": id, "object": object, "created": created, "model": model, "choices": choices })
    }

    fn whole(&self, text: &str, reason: FinishReason, usage: Usage) -> Value {
        let reason = reason_name(reason);
        let mut body = match self.shape {
            Shape::Chat => self.with(
                "chat.completion",
                &json!([{
                    "index": 0, "message": { "role": "assistant", "content": text, "refusal": null },
                    "logprobs": null, "finish_reason": reason
                }]),
            ),
            Shape::Completion => self.with(
                "text_completion",
                &json!([{ "index": 0, "text": text, "logprobs": null, "finish_reason": reason }]),
            ),
        };
        body["usage"] = usage_json(usage);
        body
    }

    /// The chunk that says who speaks; plain completions have none.
    pub(super) fn first(&self) -> Option<Value> {
        let delta = json!({ "role": "assistant", "content": "" });
        (self.shape == Shape::Chat).then(|| self.chat_chunk(&delta, None))
    }

    /// A chunk of text.
    pub(super) fn text(&self, text: &str) -> Value {
        match self.shape {
            Shape::Chat => self.chat_chunk(&json!({ "content": text }), None),
            Shape::Completion => self.text_chunk(text, None),
        }
    }

    /// The chunk that says why there is no more.
    pub(super) fn end(&self, reason: FinishReason) -> Value {
        match self.shape {
            Shape::Chat => self.chat_chunk(&json!({}), Some(reason)),
            Shape::Completion => self.text_chunk("", Some(reason)),
        }
    }

    /// The chunk that counts tokens.
    pub(super) fn usage(&self, usage: Usage) -> Value {
        let mut body = self.with(self.chunk_object(), &json!([]));
        body["usage"] = usage_json(usage);
        body
    }

    const fn chunk_object(&self) -> &'static str {
        match self.shape {
            Shape::Chat => "chat.completion.chunk",
            Shape::Completion => "text_completion",
        }
    }

    fn chat_chunk(&self, delta: &Value, reason: Option<FinishReason>) -> Value {
        let reason = reason.map(reason_name);
        let choice = json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": reason });
        self.with(self.chunk_object(), &json!([choice]))
    }

    fn text_chunk(&self, text: &str, reason: Option<FinishReason>) -> Value {
        let reason = reason.map(reason_name);
        let choice = json!({ "index": 0, "text": text, "logprobs": null, "finish_reason": reason });
        self.with(self.chunk_object(), &json!([choice]))
    }
}

const fn reason_name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

fn usage_json(Usage { prompt, completion }: Usage) -> Value {
    json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion })
}

/// A number that nobody has seen before: the standard library seeds its hash maps from the system.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
