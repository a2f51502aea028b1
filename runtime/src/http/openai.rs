//! OpenAI's endpoints. Shapes: the API reference of platform.openai.com, sections Chat, Completions and Embeddings.

mod body;
pub(super) mod embeddings;
mod logprobs;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;

use super::App;
use super::answer::{Asked, answer};
use super::client::Client;
use super::error::ApiError;
use crate::request::{self, Delivery, ValidRequest};
use body::{OpenAi, Shape};

/// `POST /v1/chat/completions`.
pub(super) async fn chat(
    State(app): State<Arc<App>>,
    client: Client,
    body: Body,
) -> Result<Response, ApiError> {
    let Asked { place, request } = Asked::read(&app, &client, body, request::chat).await?;
    let render = render(&app, Shape::Chat, &request);
    answer(&app, (place, client), request, render).await
}

/// `POST /v1/completions`.
pub(super) async fn completions(
    State(app): State<Arc<App>>,
    client: Client,
    body: Body,
) -> Result<Response, ApiError> {
    let Asked { place, request } = Asked::read(&app, &client, body, request::completion).await?;
    let render = render(&app, Shape::Completion, &request);
    answer(&app, (place, client), request, render).await
}

fn render(app: &App, shape: Shape, request: &ValidRequest) -> Box<OpenAi> {
    let count = matches!(request.delivery, Delivery::Stream { usage: true });
    Box::new(OpenAi::new(app, shape, &request.model, count))
}
