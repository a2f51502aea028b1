//! Every error of the API: one type, one `IntoResponse`, in OpenAI's shape; and what it is made into for Anthropic's.

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use contract::http::API_KEY_HEADER;
use serde_json::{Value, json};

use super::gate::{MAX_HEADER_BYTES, MAX_HEADERS};
use crate::engine::{InvalidJob, Refused};
use crate::request::{Invalid, InvalidKind, MAX_BODY};

/// Seconds after which a refused client should try again where nothing was measured.
const RETRY_SECONDS: u32 = 1;

/// An answer that is an error.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
    /// Seconds after which a client that is refused for now should try again.
    retry_after: u32,
}

impl ApiError {
    fn new(status: StatusCode, code: Option<&'static str>, message: impl Into<String>) -> Self {
        let kind = match status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::UNAUTHORIZED => "authentication_error",
            s if s.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        Self { status, kind, code, param: None, message: message.into(), retry_after: RETRY_SECONDS }
    }

    /// Not now.
    pub(super) fn unavailable(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Some("unavailable"), message)
    }

    /// Nothing is free for it now.
    pub(super) fn busy(message: &str) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, Some("queue_full"), message)
    }

    /// Not here any more.
    pub(super) fn draining() -> Self {
        Self::unavailable("this replica is draining; send the request again")
    }

    pub(super) fn unauthorized() -> Self {
        let message = format!(
            "a valid API key is needed, as `authorization: Bearer <key>` or as `{API_KEY_HEADER}: <key>`"
        );
        Self::new(StatusCode::UNAUTHORIZED, Some("invalid_api_key"), message)
    }

    pub(super) fn headers_too_large() -> Self {
        let message = format!(
            "the headers are more than {MAX_HEADERS}, or longer than {MAX_HEADER_BYTES} bytes together"
        );
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Some("headers_too_large"), message)
    }

    pub(super) fn path_too_long(most: usize) -> Self {
        let message = format!("the path is longer than {most} bytes");
        Self::new(StatusCode::URI_TOO_LONG, Some("path_too_long"), message)
    }

    /// Past the deadline. Not an answer that ends in `length`: that limit is the client's own, and who has set it takes
    /// what came until then for all that was asked for. The deadline is the server's, and cuts anywhere.
    pub(super) fn too_long() -> Self {
        let message = "the request took longer than this server allows, and was given up";
        Self::new(StatusCode::GATEWAY_TIMEOUT, Some("deadline_exceeded"), message)
    }

    pub(super) fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, Some("unknown_url"), "there is no such path")
    }

    pub(super) fn no_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, None, "this path does not take this method")
    }

    pub(super) fn too_large() -> Self {
        let message = format!("the body is longer than the limit of {MAX_BODY} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Some("body_too_large"), message)
    }

    pub(super) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, None, "the body did not arrive in time")
    }

    pub(super) fn broken_body() -> Self {
        Self::new(StatusCode::BAD_REQUEST, None, "the body could not be read")
    }

    /// Something on our side; the log says more.
    pub(super) fn internal(message: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Some("internal_error"), message)
    }

    /// The body of the answer in Anthropic's shape.
    pub(super) fn anthropic(&self) -> Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
            StatusCode::GATEWAY_TIMEOUT => "timeout_error",
            s if s.is_server_error() => "api_error",
            _ => "invalid_request_error",
        };
        json!({ "type": "error", "error": { "type": kind, "message": self.message } })
    }

    /// The body of the answer.
    pub(super) fn body(&self) -> Value {
        let Self { kind, code, param, message, .. } = self;
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
    }
}

impl From<Invalid> for ApiError {
    fn from(Invalid { kind, message, param }: Invalid) -> Self {
        let (status, code) = match kind {
            InvalidKind::Value => (StatusCode::BAD_REQUEST, Some("invalid_value")),
            InvalidKind::Unsupported => (StatusCode::BAD_REQUEST, Some("unsupported_parameter")),
            InvalidKind::Model => (StatusCode::NOT_FOUND, Some("model_not_found")),
            InvalidKind::ContextLength => (StatusCode::BAD_REQUEST, Some("context_length_exceeded")),
        };
        Self { param, ..Self::new(status, code, message) }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::QueueFull { retry_after, .. } | Refused::TokensFull { retry_after, .. } => {
                Self { retry_after, ..Self::new(StatusCode::TOO_MANY_REQUESTS, Some("queue_full"), message) }
            }
            Refused::Invalid(invalid) => {
                let param = match invalid {
                    InvalidJob::Prompt | InvalidJob::Token { .. } => "prompt",
                    InvalidJob::Choices => "n",
                    InvalidJob::Tokens => "max_tokens",
                };
                Invalid::new(InvalidKind::Value, param, message).into()
            }
            Refused::Late => Self::too_long(),
            Refused::TooLong { .. } => Invalid::new(InvalidKind::ContextLength, "max_tokens", message).into(),
            Refused::Ended => Self::internal(&message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(self.retry_after));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// An answer that is an error gets the shape of Anthropic's API; others stay as they are.
pub(super) fn as_anthropic(response: &mut Response, request: &str) {
    let Some(error) = response.extensions_mut().remove::<ApiError>() else { return };
    let mut body = error.anthropic();
    body["request_id"] = json!(request);
    let body = body.to_string();
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    *response.body_mut() = Body::from(body);
}
