//! The routers without a port, over the toy model.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use contract::geometry::ModelGeometry;
use contract::http::TENANT_HEADER;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use contract::Bytes;

use super::*;
use crate::engine::worker::Worker;
use crate::fixture::toy::{self, Rule, limits, toy};
use crate::http::admin::{Drain, admin};

const CONTEXT: u32 = 64;

fn geometry() -> ModelGeometry {
    let config = json!({
        "model_type": "llama", "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 1,
        "intermediate_size": 32, "vocab_size": toy::vocabulary().len(), "max_position_embeddings": CONTEXT
    });
    ModelGeometry::from_config(&config).unwrap()
}

fn loading() -> Arc<App> {
    App::new("toy", Tracker::default())
}

fn ready(rule: Rule) -> Arc<App> {
    let state = loading();
    let (model, cache) = toy(rule, 8);
    let (worker, engine) = Worker::new(model, cache, limits(CONTEXT, 2, 4));
    std::thread::spawn(|| worker.run());
    let tokens = Arc::new(Tokens::from_metadata(&toy::metadata(), geometry().vocab).unwrap());
    let (planned, allocated) = (MemoryPlan::default(), MemoryPlan::default());
    state.serve(Serving { tokens, engine, planned, allocated, mapped: Bytes::ZERO, simulated: false });
    state
}

async fn send(router: Router, request: Request<Body>) -> (StatusCode, header::HeaderMap, String) {
    let response = router.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn post(state: &Arc<App>, path: &str, body: &Value) -> (StatusCode, Value) {
    let request = Request::post(path).body(Body::from(body.to_string())).unwrap();
    let (status, _, text) = send(app(state.clone()), request).await;
    (status, serde_json::from_str(&text).unwrap())
}

async fn get(router: Router, path: &str) -> (StatusCode, String) {
    let (status, _, text) = send(router, Request::get(path).body(Body::empty()).unwrap()).await;
    (status, text)
}

fn chat(content: &str, extra: &Value) -> Value {
    let message = json!({ "role": "user", "content": content });
    let mut body = json!({ "model": "toy", "messages": [message], "temperature": 0 });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

/// The chunks of a stream, without the mark that ends it.
async fn chunks(state: &Arc<App>, path: &str, body: &Value) -> Vec<Value> {
    let request = Request::post(path).body(Body::from(body.to_string())).unwrap();
    let (status, headers, text) = send(app(state.clone()), request).await;
    assert_eq!(
        (status, headers[header::CONTENT_TYPE].to_str().unwrap()),
        (StatusCode::OK, "text/event-stream")
    );
    let mut events: Vec<_> = text.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
    assert_eq!(events.pop(), Some("[DONE]"));
    events.into_iter().map(|e| serde_json::from_str(e).unwrap()).collect()
}

#[tokio::test]
async fn a_chat_is_answered_whole_and_in_pieces() {
    let state = ready(Rule::Successor);
    let (status, whole) = post(&state, CHAT_COMPLETIONS, &chat("uvw", &json!({}))).await;
    assert_eq!(status, StatusCode::OK, "{whole}");
    assert_eq!(whole["choices"][0]["message"]["content"], "xyz");
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    let usage = json!({
        "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "prompt_tokens_details": { "cached_tokens": 0 }
    });
    assert_eq!(whole["usage"], usage);

    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let chunks = chunks(&state, CHAT_COMPLETIONS, &chat("uvw", &options)).await;
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String = chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "xyz");
    assert_eq!(chunks[chunks.len() - 2]["choices"][0]["finish_reason"], "stop");
    assert_eq!(chunks.last().unwrap()["usage"], whole["usage"]);
    assert_eq!(chunks.last().unwrap()["choices"], json!([]));
}

#[tokio::test]
async fn a_prompt_that_was_read_before_is_not_read_again_except_for_strangers() {
    let state = ready(Rule::Hash);
    let cached = async |tenant: &str, extra: Value| {
        let body = chat(&"x".repeat(40), &extra).to_string();
        let request = Request::post(CHAT_COMPLETIONS).header(TENANT_HEADER, tenant).body(Body::from(body));
        let (status, _, answer) = send(app(state.clone()), request.unwrap()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        (answer["usage"]["prompt_tokens_details"]["cached_tokens"].clone(), answer["choices"].clone())
    };
    let few = json!({"max_tokens": 3});
    let (first, answer) = cached("a", few.clone()).await;
    assert_eq!((first, cached("a", few.clone()).await), (json!(0), (json!(32), answer.clone())));
    assert_eq!(cached("b", few).await, (json!(0), answer.clone()));
    assert_eq!(cached("a", json!({"max_tokens": 3, "cache_salt": "s"})).await, (json!(0), answer));
}

#[tokio::test]
async fn plain_text_goes_on_until_its_length_or_a_stop_string() {
    let state = ready(Rule::Successor);
    let body = |extra: Value| {
        let mut body = json!({"model": "toy", "prompt": "A", "max_tokens": 5, "temperature": 0});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let (_, answer) = post(&state, COMPLETIONS, &body(json!({}))).await;
    assert_eq!(answer["choices"][0]["text"], "BCDEF", "{answer}");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let (_, answer) = post(&state, COMPLETIONS, &body(json!({"stop": "DE"}))).await;
    assert_eq!(answer["choices"][0]["text"], "BC");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let stop = json!({"stop_token_ids": [toy::token("D")]});
    let (_, answer) = post(&state, COMPLETIONS, &body(stop)).await;
    assert_eq!(
        (&answer["choices"][0]["text"], &answer["usage"]["completion_tokens"]),
        (&json!("BC"), &json!(3))
    );
    let past = json!({"prompt": "x", "ignore_eos": true});
    let (_, answer) = post(&state, COMPLETIONS, &body(past)).await;
    assert_eq!(
        (&answer["choices"][0]["text"], &answer["choices"][0]["finish_reason"]),
        (&json!("yz{|"), &json!("length"))
    );
    let streamed = chunks(&state, COMPLETIONS, &body(json!({"stop": ["DE"], "stream": true}))).await;
    let text: String = streamed.iter().filter_map(|c| c["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, "BC");
}

#[tokio::test]
async fn characters_are_never_split() {
    // The toy's alphabet spells é as two bytes, which the hash yields in any order: every text must be UTF-8, and
    // streamed and whole ones the same.
    let state = ready(Rule::Hash);
    for n in 0..8 {
        let prompt = "é".repeat(n + 1);
        let body = chat(&prompt, &json!({"max_tokens": 40}));
        let (_, whole) = post(&state, CHAT_COMPLETIONS, &body).await;
        let streamed =
            chunks(&state, CHAT_COMPLETIONS, &chat(&prompt, &json!({"max_tokens": 40, "stream": true})))
                .await;
        let text: String =
            streamed.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(whole["choices"][0]["message"]["content"], text);
    }
}

#[tokio::test]
async fn errors_have_the_shape_that_clients_know() {
    let state = ready(Rule::Successor);
    for (path, body, status, param, code) in [
        (
            CHAT_COMPLETIONS,
            chat("a", &json!({"temperature": 9})),
            400,
            json!("temperature"),
            json!("invalid_value"),
        ),
        (CHAT_COMPLETIONS, chat("a", &json!({"n": 2})), 400, json!("n"), json!("unsupported_parameter")),
        (CHAT_COMPLETIONS, chat("a", &json!({"model": "x"})), 404, json!("model"), json!("model_not_found")),
        (
            CHAT_COMPLETIONS,
            chat(&"a".repeat(64), &json!({})),
            400,
            json!("messages"),
            json!("context_length_exceeded"),
        ),
        (
            CHAT_COMPLETIONS,
            chat("a", &json!({"max_tokens": 64})),
            400,
            json!("max_tokens"),
            json!("context_length_exceeded"),
        ),
        (COMPLETIONS, json!({"model": "toy", "prompt": ""}), 400, json!("prompt"), json!("invalid_value")),
        (COMPLETIONS, json!([]), 400, Value::Null, json!("invalid_value")),
        ("/v1/nothing", json!({}), 404, Value::Null, json!("unknown_url")),
        (MODELS, json!({}), 405, Value::Null, Value::Null),
        (CHAT_COMPLETIONS, chat(toy::POISON, &json!({})), 500, Value::Null, json!("internal_error")),
    ] {
        let (found, answer) = post(&state, path, &body).await;
        let error = &answer["error"];
        assert_eq!((found.as_u16(), &error["param"], &error["code"]), (status, &param, &code), "{answer}");
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{answer}");
    }
    let large =
        Request::post(COMPLETIONS).body(Body::from(vec![b' '; crate::request::MAX_BODY + 1])).unwrap();
    assert_eq!(send(app(state), large).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn what_is_ignored_is_named() {
    let body = chat("x", &json!({"user": "me", "store": false}));
    let request = Request::post(CHAT_COMPLETIONS).body(Body::from(body.to_string())).unwrap();
    let (status, headers, _) = send(app(ready(Rule::Successor)), request).await;
    assert_eq!((status, headers["x-ignored-params"].to_str().unwrap()), (StatusCode::OK, "store, user"));
}

#[tokio::test]
async fn before_the_model_is_loaded_and_while_draining_the_answer_is_503() {
    let state = loading();
    let (status, answer) = post(&state, CHAT_COMPLETIONS, &chat("a", &json!({}))).await;
    assert_eq!(
        (status, answer["error"]["code"].as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, Some("unavailable"))
    );
    let request = Request::get(MODELS).body(Body::empty()).unwrap();
    let (_, headers, _) = send(app(state), request).await;
    assert!(headers.contains_key(header::RETRY_AFTER));

    let state = ready(Rule::Successor);
    assert_eq!(get(app(state.clone()), MODELS).await.0, StatusCode::OK);
    state.close();
    assert_eq!(get(app(state), MODELS).await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn the_admin_port_tells_phases_load_and_metrics() {
    let state = loading();
    let router = || admin(state.clone(), None);
    assert_eq!(get(router(), "/healthz").await.0, StatusCode::OK);
    assert_eq!(get(router(), "/readyz").await, (StatusCode::SERVICE_UNAVAILABLE, "Starting\n".into()));
    assert_eq!(get(router(), "/status").await.0, StatusCode::SERVICE_UNAVAILABLE);
    state.progress.enter(Phase::Loading);
    let progress: Value = serde_json::from_str(&get(router(), "/progress").await.1).unwrap();
    assert_eq!((progress["phase"].as_str(), progress["bytesDone"].as_u64()), (Some("Loading"), Some(0)));

    let state = ready(Rule::Successor);
    let router = || admin(state.clone(), None);
    post(&state, CHAT_COMPLETIONS, &chat("uvw", &json!({}))).await;
    assert_eq!(get(router(), "/readyz").await.0, StatusCode::OK);
    let status: Value = serde_json::from_str(&get(router(), "/status").await.1).unwrap();
    assert_eq!((status["running"].as_u64(), status["simulated"].as_bool()), (Some(0), Some(false)));
    let metrics = get(router(), "/metrics").await.1;
    for line in [
        "vllm:generation_tokens_total{engine=\"0\",model_name=\"toy\"} 4",
        "vllm:prompt_tokens_total{engine=\"0\",model_name=\"toy\"} 3",
        "vllm:num_requests_running{engine=\"0\",model_name=\"toy\"} 0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} in\n{metrics}");
    }
    assert!(metrics.contains("llmfleet_load_seconds{phase=\"Starting\"}"));
    state.progress.enter(Phase::Draining);
    assert_eq!(get(router(), "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn only_who_knows_the_token_may_drain() {
    let state = ready(Rule::Hash);
    let request = |token: &str| {
        let request = Request::post("/drain").header(header::AUTHORIZATION, format!("Bearer {token}"));
        request.body(Body::empty()).unwrap()
    };
    assert_eq!(send(admin(state.clone(), None), request("")).await.0, StatusCode::NOT_FOUND);
    let within = std::time::Duration::from_secs(5);
    let router = || admin(state.clone(), Some(Drain { token: "secret".into(), within }));
    assert_eq!(send(router(), request("wrong")).await.0, StatusCode::UNAUTHORIZED);

    // A stream in flight is finished before the answer comes.
    let body = chat("a", &json!({"stream": true, "max_tokens": 60})).to_string();
    let request_body = Request::post(CHAT_COMPLETIONS).body(Body::from(body)).unwrap();
    let streaming = app(state.clone()).oneshot(request_body).await.unwrap();
    let drained = tokio::spawn(send(router(), request("secret")));
    let text = streaming.into_body().collect().await.unwrap().to_bytes();
    assert!(text.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(drained.await.unwrap().0, StatusCode::OK);
}
