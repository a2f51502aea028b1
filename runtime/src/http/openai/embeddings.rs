//! `/v1/embeddings`: vectors of texts. Shapes: the API reference of platform.openai.com, section Embeddings.
//!
//! In: texts or tokens. Out: a vector of length one for each. Each text is a request of its own to the engine, a few of
//! them at a time, so that one client's thousand texts neither fill the queue nor go before everybody else.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::super::answer::{Asked, add_ignored};
use super::super::client::Client;
use super::super::error::ApiError;
use super::super::generation::{encode, told};
use super::super::{App, InFlight};
use crate::embeds::unit;
use crate::engine::sequence::Class;
use crate::engine::{Event, FinishReason, Job, Place};
use crate::metrics::RequestGuard;
use crate::request::embeddings::{DIMENSIONS, Encoding, INPUT, ToVectors};
use crate::request::{Invalid, InvalidKind, Prompt};

/// Texts of one request that the engine has at a time.
const AT_A_TIME: usize = 8;
/// Most tokens of all texts of a request, as OpenAI has it.
const MAX_TOKENS: usize = 300_000;
/// Most numbers of all vectors of a request.
const MAX_NUMBERS: usize = 1 << 20;
/// Most numbers of all vectors that are being made or taken; other requests are refused.
pub(in super::super) const ALL_NUMBERS: usize = 2 * MAX_NUMBERS;

#[derive(Serialize)]
struct Item {
    object: &'static str,
    index: usize,
    embedding: Written,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Written {
    Float(Vec<f32>),
    Base64(String),
}

/// What the texts of a request have in common.
struct Common<'a> {
    app: &'a Arc<App>,
    class: Class,
    arrived: Instant,
    width: usize,
}

/// `POST /v1/embeddings`.
pub(in super::super) async fn embeddings(
    State(app): State<Arc<App>>,
    client: Client,
    body: Body,
) -> Result<Response, ApiError> {
    let Asked { place, request } = Asked::read(&app, &client, body, ToVectors::parse).await?;
    let arrived = Instant::now();
    let answer = vectors(&app, (place, &client), request, arrived);
    match app.longest {
        // The engine sees to the deadline of what it has; this one is for those who still wait for a place.
        Some(longest) => tokio::time::timeout(longest, answer).await.map_err(|_| ApiError::too_long())?,
        None => answer.await,
    }
}

async fn vectors(
    app: &Arc<App>,
    (place, client): (Place, &Client),
    request: ToVectors,
    arrived: Instant,
) -> Result<Response, ApiError> {
    let in_flight = InFlight::new(app);
    let embeds = &app.serving()?.embeds;
    let wide = embeds.width as usize;
    let width = request.dimensions.map_or(Ok(wide), |asked| {
        let wrong =
            |allowed| Invalid::new(InvalidKind::Value, DIMENSIONS, format!("{DIMENSIONS} must be {allowed}"));
        embeds.cut_to(asked).map_err(wrong)
    })?;
    let n = request.inputs.len();
    if n * width > MAX_NUMBERS {
        let most = MAX_NUMBERS / width;
        return Err(too_many(format!(
            "{INPUT} has {n} entries; at {width} numbers each there may be at most {most}"
        )));
    }
    // Nobody waits here: who waits keeps a place in the queue, and those who have numbers need places too.
    let numbers = u32::try_from(n * width).unwrap_or(u32::MAX);
    let held = app.vectors.clone().try_acquire_many_owned(numbers);
    let held =
        held.map_err(|_| ApiError::busy("others are being given as many vectors as there is room for"))?;
    let prompts = encoded(app, request.inputs, request.special).await?;
    let prompt_tokens: usize = prompts.iter().map(Vec::len).sum();
    let class = client.class(request.priority, &request.cache_salt);
    let common = Common { app, class, arrived, width };
    let places = std::iter::once(Some(place)).chain(std::iter::repeat_with(|| None));
    let each = prompts.into_iter().zip(places);
    let vectors = stream::iter(each.map(|(prompt, place)| one(&common, prompt, place)));
    let vectors = vectors.buffered(AT_A_TIME).try_collect().await?;
    let usage = json!({ "prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens });
    let end = format!(r#"],"model":{},"usage":{usage}}}"#, json!(request.model));
    let body = written(vectors, request.encoding, end, (held, in_flight));
    let mut response = ([(CONTENT_TYPE, "application/json")], body).into_response();
    add_ignored(response.headers_mut(), &request.ignored.join(", "));
    Ok(response)
}

/// The answer, a vector at a time: written out it is several times as large, and its client may take it slowly.
fn written(
    vectors: Vec<Vec<f32>>,
    encoding: Encoding,
    end: String,
    held: (OwnedSemaphorePermit, InFlight),
) -> Body {
    let items = vectors.into_iter().enumerate().map(move |(index, vector)| {
        // What is held is given back with the last of them.
        let _held = &held;
        let embedding = match encoding {
            Encoding::Float => Written::Float(vector),
            Encoding::Base64 => {
                let bytes: Vec<u8> = vector.into_iter().flat_map(f32::to_le_bytes).collect();
                Written::Base64(STANDARD.encode(bytes))
            }
        };
        let item = serde_json::to_string(&Item { object: "embedding", index, embedding })?;
        Ok::<_, serde_json::Error>(format!("{}{item}", if index == 0 { "" } else { "," }))
    });
    let begin = r#"{"object":"list","data":["#.to_owned();
    Body::from_stream(stream::iter(std::iter::once(Ok(begin)).chain(items).chain(std::iter::once(Ok(end)))))
}

/// The tokens of all texts: nothing is computed of a request that cannot be answered to the end.
async fn encoded(app: &App, inputs: Vec<Prompt>, special: bool) -> Result<Vec<Vec<u32>>, ApiError> {
    let context = app.serving()?.engine.context();
    let (mut prompts, mut total) = (Vec::with_capacity(inputs.len()), 0);
    for (index, input) in inputs.into_iter().enumerate() {
        let tokens = encode(app, input, INPUT, special).await?.tokens;
        total += tokens.len();
        match tokens.len() {
            0 => {
                let message = format!("entry {index} of {INPUT} has no tokens");
                return Err(Invalid::new(InvalidKind::Value, INPUT, message).into());
            }
            n if n > context as usize => {
                let message =
                    format!("entry {index} of {INPUT} has {n} tokens, and the context only {context}");
                return Err(Invalid::new(InvalidKind::ContextLength, INPUT, message).into());
            }
            _ if total > MAX_TOKENS => {
                return Err(too_many(format!("{INPUT} has more than {MAX_TOKENS} tokens")));
            }
            _ => prompts.push(tokens),
        }
    }
    Ok(prompts)
}

fn too_many(message: String) -> ApiError {
    Invalid::new(InvalidKind::Value, INPUT, message).into()
}

/// The vector of one text. The first has a place; others wait for one.
async fn one(common: &Common<'_>, prompt: Vec<u32>, place: Option<Place>) -> Result<Vec<f32>, ApiError> {
    let Common { app, class, arrived, width } = common;
    let serving = app.serving()?;
    let n_prompt = prompt.len();
    let job = Job {
        class: class.clone(),
        deadline: app.longest.map(|longest| *arrived + longest),
        ..Job::embedding(prompt, serving.embeds.pooling)
    };
    let mut events = match place {
        Some(place) => serving.engine.submit(place, job)?,
        None => serving.engine.submit_next(job).await?,
    };
    // Each is measured from when it was handed over: those before it are requests of their own.
    let mut measure = RequestGuard::new(app.metrics.clone(), Instant::now(), n_prompt, 1);
    loop {
        match events.recv().await {
            Some(Event::Admitted { cached }) => measure.admitted(cached),
            Some(Event::Embedded(state)) => {
                measure.read();
                let Some(vector) = unit(&state, *width) else { break };
                measure.finished(FinishReason::Stop, Instant::now());
                return Ok(vector);
            }
            Some(Event::Finished { reason: FinishReason::Deadline, .. }) => return Err(ApiError::too_long()),
            Some(Event::Failed(failure)) => {
                measure.failed();
                return Err(ApiError::internal(&told(&failure)));
            }
            Some(Event::Finished { .. }) | None => break,
            Some(Event::Queued { .. } | Event::Prompt(_) | Event::Token { .. }) => {}
        }
    }
    measure.failed();
    Err(ApiError::internal("the vector could not be computed"))
}
