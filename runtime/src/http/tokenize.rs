//! `/tokenize` and `/detokenize`, in vLLM's shapes.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use serde_json::{Value, json};

use super::App;
use super::error::ApiError;
use super::generation::{encode, known};
use crate::request::tokenize::{ToText, ToTokens};
use crate::request::{Invalid, InvalidKind};

/// `POST /tokenize`.
pub(super) async fn tokenize(State(app): State<Arc<App>>, body: Body) -> Result<Json<Value>, ApiError> {
    let serving = app.serving()?;
    let ToTokens { prompt, special, strings } =
        ToTokens::parse(&app.intake.read(body).await?.bytes, &app.names)?;
    let param = prompt.param();
    let ids = encode(&app, prompt, param, special).await?.tokens;
    let strings: Option<Vec<_>> =
        strings.then(|| ids.iter().map(|id| serving.tokens.spelling(*id)).collect());
    Ok(Json(json!({
        "count": ids.len(), "max_model_len": serving.engine.context(), "tokens": ids, "token_strs": strings
    })))
}

/// `POST /detokenize`.
pub(super) async fn detokenize(State(app): State<Arc<App>>, body: Body) -> Result<Json<Value>, ApiError> {
    let serving = app.serving()?;
    let ToText { tokens } = ToText::parse(&app.intake.read(body).await?.bytes, &app.names)?;
    if tokens.len() > serving.engine.context() as usize {
        let message =
            format!("tokens has {} entries, and the context only {}", tokens.len(), serving.engine.context());
        return Err(Invalid::new(InvalidKind::ContextLength, "tokens", message).into());
    }
    known(&serving.tokens, "tokens", &tokens)?;
    Ok(Json(json!({ "prompt": serving.tokens.decode_all(&tokens) })))
}
