//! The routers without a port, over the toy model.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use contract::geometry::ModelGeometry;
use contract::header::gguf::{Metadata, Value as Item};
use contract::http::TENANT_HEADER;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use contract::Bytes;

use super::*;
use crate::dialect::Said;
use crate::embeds::Shorter;
use crate::engine::pool::Pooling;
use crate::engine::worker::Worker;
use crate::fixture::toy::{self, Rule, limits, toy};
use crate::http::admin::{Drain, admin};

mod choices;
mod dialects;
mod embeddings;

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
    loaded(loading(), rule)
}

fn ready_as(front: Front) -> Arc<App> {
    loaded(App::open(front, Tracker::default()), Rule::Successor)
}

fn loaded(state: Arc<App>, rule: Rule) -> Arc<App> {
    loaded_with(state, rule, (toy::metadata(), Said::default()))
}

fn loaded_with(state: Arc<App>, rule: Rule, (metadata, said): (Metadata, Said)) -> Arc<App> {
    let (model, cache) = toy(rule, 8);
    let (worker, engine) = Worker::new(model, cache, limits(CONTEXT, 2, 4));
    std::thread::spawn(|| worker.run());
    let tokens = Arc::new(Tokens::from_metadata(&metadata, geometry().vocab).unwrap());
    let (planned, allocated) = (MemoryPlan::default(), MemoryPlan::default());
    let (guides, defaults) = (Arc::new(Guides::new(tokens.clone(), said).unwrap()), Defaults::default());
    state.serve(Serving {
        tokens,
        guides,
        defaults,
        embeds: Embeds { pooling: Pooling::Last, width: 2, shorter: Shorter::Never },
        engine,
        planned,
        allocated,
        mapped: Bytes::ZERO,
        simulated: false,
        fingerprint: "fp_toy".into(),
    });
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
        (
            CHAT_COMPLETIONS,
            chat("a", &json!({"best_of": 2})),
            400,
            json!("best_of"),
            json!("unsupported_parameter"),
        ),
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

#[tokio::test]
async fn what_is_served_is_told_under_every_name() {
    let state = ready_as(Front { names: vec!["toy".into(), "org/alias".into()], ..Front::default() });
    let (_, list) = get(app(state.clone()), MODELS).await;
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["data"].as_array().unwrap().len(), 2, "{list}");
    let (status, model) = get(app(state.clone()), "/v1/models/org/alias").await;
    let model: Value = serde_json::from_str(&model).unwrap();
    assert_eq!((status, &model["id"], &model["root"]), (StatusCode::OK, &json!("org/alias"), &json!("toy")));
    assert_eq!(get(app(state.clone()), "/v1/models/none").await.0, StatusCode::NOT_FOUND);
    let (_, answer) = post(&state, CHAT_COMPLETIONS, &chat("uvw", &json!({"model": "org/alias"}))).await;
    assert_eq!(
        (&answer["model"], &answer["system_fingerprint"]),
        (&json!("org/alias"), &json!("fp_toy")),
        "{answer}"
    );
    let version = get(app(state.clone()), VERSION).await.1;
    assert_eq!(version, json!({"version": env!("CARGO_PKG_VERSION")}).to_string());
    assert_eq!(get(app(state.clone()), LOAD).await.1, r#"{"server_load":0}"#);
    for path in [HEALTH, PING] {
        assert_eq!(get(app(state.clone()), path).await.0, StatusCode::OK);
        assert_eq!(get(app(loading()), path).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }
    state.progress.enter(Phase::Draining);
    assert_eq!(get(app(state), HEALTH).await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn text_is_cut_into_tokens_and_put_together_again() {
    let state = ready(Rule::Successor);
    let ask = json!({"model": "toy", "prompt": "ab", "return_token_strs": true});
    let (_, cut) = post(&state, TOKENIZE, &ask).await;
    let ids = [toy::token("a"), toy::token("b")];
    let expected = json!({"count": 2, "max_model_len": CONTEXT, "tokens": ids, "token_strs": ["a", "b"]});
    assert_eq!(cut, expected);
    let (_, text) = post(&state, DETOKENIZE, &json!({"tokens": ids})).await;
    assert_eq!(text, json!({"prompt": "ab"}));
    let messages = json!({"messages": [{"role": "user", "content": "xyz"}]});
    let (_, cut) = post(&state, TOKENIZE, &messages).await;
    assert_eq!((&cut["count"], &cut["token_strs"]), (&json!(3), &Value::Null));
    for (path, body, param) in [
        (TOKENIZE, json!({"prompt": 7}), "prompt"),
        (TOKENIZE, json!({"prompt": "a", "continue_final_message": true}), "continue_final_message"),
        (TOKENIZE, json!({"prompt": "a".repeat(1 << 16)}), "prompt"),
        (DETOKENIZE, json!({"tokens": [-1]}), "tokens"),
        (DETOKENIZE, json!({"tokens": [1_000_000]}), "tokens"),
        (DETOKENIZE, json!({"tokens": vec![0; 65]}), "tokens"),
    ] {
        let (status, answer) = post(&state, path, &body).await;
        assert_eq!((status.as_u16(), answer["error"]["param"].as_str()), (400, Some(param)), "{answer}");
    }
}

#[tokio::test]
async fn several_prompts_get_an_answer_each() {
    let state = ready(Rule::Successor);
    let body = |extra: Value| {
        let mut body = json!({
            "model": "toy", "prompt": ["a", [toy::token("p"), toy::token("q")], "w"], "max_tokens": 3, "echo": true, "temperature": 0
        });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let (status, whole) = post(&state, COMPLETIONS, &body(json!({}))).await;
    assert_eq!(status, StatusCode::OK, "{whole}");
    let texts: Vec<_> = (0..3).map(|n| whole["choices"][n]["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["abcd", "pqrst", "wxyz"]);
    let (usage, total) = (&whole["usage"], whole["usage"]["total_tokens"].as_u64());
    assert_eq!(
        (&usage["prompt_tokens"], &usage["completion_tokens"], total),
        (&json!(4), &json!(9), Some(13))
    );

    let stream = json!({"stream": true, "stream_options": {"include_usage": true}});
    let chunks = chunks(&state, COMPLETIONS, &body(stream)).await;
    let mut streamed = vec![String::new(); 3];
    for choice in chunks.iter().filter_map(|c| c["choices"].get(0)) {
        let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
        streamed[index].push_str(choice["text"].as_str().unwrap());
    }
    assert_eq!(streamed, texts);
    assert_eq!(&chunks.last().unwrap()["usage"], usage);

    // The engine of the test lets four wait.
    let (status, answer) = post(&state, COMPLETIONS, &body(json!({"prompt": vec!["a"; 9]}))).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!("queue_full")));
    let poisoned = body(json!({"prompt": ["a", toy::POISON]}));
    assert_eq!(post(&state, COMPLETIONS, &poisoned).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    let strange = body(json!({"prompt": [[1_000_000]]}));
    assert_eq!(post(&state, COMPLETIONS, &strange).await.1["error"]["param"], "prompt");
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let names = vec!["toy".to_owned()];
    let state = ready_as(Front { names, longest: Some(std::time::Duration::ZERO), ..Front::default() });
    let (status, answer) = post(&state, CHAT_COMPLETIONS, &chat("a", &json!({}))).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (StatusCode::GATEWAY_TIMEOUT, &json!("deadline_exceeded"))
    );
    let (status, _) = post(
        &state,
        MESSAGES,
        &json!({"model": "toy", "max_tokens": 2, "messages": [{"role": "user", "content": "a"}]}),
    )
    .await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
}
