//! From a body to an answer: what all endpoints that generate have in common.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::answers::Answers;
use super::client::Client;
use super::error::ApiError;
use super::render::Render;
use super::{App, sse};
use crate::engine::Place;
use crate::request::{Delivery, Invalid, ValidRequest};

/// Names the fields of a request that were ignored.
const IGNORED_HEADER: &str = "x-ignored-params";

/// A request that has been read, and its place among those who wait.
pub(super) struct Asked<T> {
    pub(super) place: Place,
    pub(super) request: T,
}

impl<T> Asked<T> {
    /// Reads a body, unless nobody may wait any more. A place is only taken when the body is there: whoever sends slowly
    /// keeps nobody else from it.
    pub(super) async fn read(
        app: &App,
        client: &Client,
        body: Body,
        parse: fn(&[u8], &[String]) -> Result<T, Invalid>,
    ) -> Result<Self, ApiError> {
        drop(app.serving()?.engine.reserve(client.tenant())?);
        let received = app.intake.read(body).await?;
        let place = app.serving()?.engine.reserve(client.tenant())?;
        Ok(Self { place, request: parse(&received.bytes, &app.names)? })
    }
}

/// Answers it.
pub(super) async fn answer(
    app: &Arc<App>,
    (place, client): (Place, Client),
    mut request: ValidRequest,
    mut render: Box<dyn Render>,
) -> Result<Response, ApiError> {
    let ignored = std::mem::take(&mut request.ignored).join(", ");
    let delivery = request.delivery;
    let answers = Answers::start(app, place, &client, request).await?;
    let mut response = match delivery {
        Delivery::Whole => {
            let (answers, usage) = answers.complete().await?;
            Json(render.whole(answers, usage)).into_response()
        }
        Delivery::Stream { .. } => sse::stream(answers, render),
    };
    add_ignored(response.headers_mut(), &ignored);
    Ok(response)
}

/// Names what of a request was ignored.
pub(super) fn add_ignored(headers: &mut HeaderMap, ignored: &str) {
    if ignored.is_empty() {
        return;
    }
    if let Ok(value) = HeaderValue::from_str(ignored) {
        headers.insert(IGNORED_HEADER, value);
    }
}
