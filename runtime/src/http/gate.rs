//! What every request passes, whatever it asks for: its name, limits of its headers, keys, origins.
//!
//! In: a request. Out: the same, or a refusal; and its answer, with its name on it.
//! It must not read bodies, nor log anything that a client has written.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use contract::http::{HEALTH, MESSAGES, PING, REQUEST_ID_HEADER};

use super::App;
use super::error::{self, ApiError};
use super::generation::random;
use super::keys::{self, Keys};
use super::watched::Watched;

/// Most headers of a request, and most bytes of all of them.
pub(super) const MAX_HEADERS: usize = 100;
pub(super) const MAX_HEADER_BYTES: usize = 32 << 10;
/// Longest path with its query, in bytes.
const MAX_PATH_BYTES: usize = 1024;
/// Longest name of a request that is kept.
const MAX_NAME_BYTES: usize = 128;
/// Seconds for which a browser remembers what it may do.
const PREFLIGHT_SECONDS: &str = "600";
const ALLOWED_METHODS: &str = "GET, POST, OPTIONS";
/// Every origin.
const ANY: &str = "*";

/// Who may come in.
#[derive(Debug, Default)]
pub struct Guard {
    /// Keys, one of which is needed; absent: everybody may.
    pub keys: Option<Watched<Keys>>,
    /// Origins whose pages may.
    pub origins: Vec<String>,
}

impl Guard {
    fn admits(&self, request: &Request) -> bool {
        // What probes ask says nothing that is not seen from outside anyway.
        let open = [HEALTH, PING].contains(&request.uri().path());
        let known = |keys: &Watched<Keys>| {
            keys::carried(request.headers()).is_some_and(|key| keys.borrow().know(key))
        };
        open || self.keys.as_ref().is_none_or(known)
    }

    /// The origin of a request, if its pages may read answers.
    fn origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let allowed = self.origins.iter().any(|o| o == ANY || o.as_bytes() == origin.as_bytes());
        allowed.then(|| origin.clone())
    }
}

/// What a request is called.
#[derive(Clone, Debug)]
struct Name(HeaderValue);

impl Name {
    fn of(headers: &HeaderMap) -> Self {
        let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
        let own = headers.get(REQUEST_ID_HEADER).filter(|value| {
            (1..=MAX_NAME_BYTES).contains(&value.len()) && value.as_bytes().iter().all(harmless)
        });
        Self(own.cloned().unwrap_or_else(|| {
            let made = format!("req_{:016x}{:016x}", random(), random());
            HeaderValue::try_from(made).expect("hexadecimal digits can stand in a header")
        }))
    }
}

/// Lets a request pass, or does not.
pub(super) async fn pass(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let name = Name::of(request.headers());
    let origin = app.guard.origin(request.headers());
    let anthropic = request.uri().path().starts_with(MESSAGES);
    let preflight = request.method() == Method::OPTIONS && origin.is_some();
    let mut response = match checked(&app.guard, &request) {
        _ if preflight => allowed(request.headers()),
        Err(error) => error.into_response(),
        Ok(()) => next.run(request).await,
    };
    if anthropic {
        error::as_anthropic(&mut response, name.0.to_str().unwrap_or_default());
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID_HEADER, name.0);
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        let exposed = HeaderValue::from_static(REQUEST_ID_HEADER);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    response
}

fn checked(guard: &Guard, request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        return Err(ApiError::headers_too_large());
    }
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if path > MAX_PATH_BYTES {
        return Err(ApiError::path_too_long(MAX_PATH_BYTES));
    }
    if guard.admits(request) { Ok(()) } else { Err(ApiError::unauthorized()) }
}

/// The answer to a browser that asks whether it may.
fn allowed(headers: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let mut set = |name: HeaderName, value| response.headers_mut().insert(name, value);
    set(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(ALLOWED_METHODS));
    set(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECONDS));
    if let Some(wanted) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        set(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    response
}

#[cfg(test)]
mod tests;
