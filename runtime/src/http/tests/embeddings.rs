//! `/v1/embeddings` over the toy, whose states say how long their past is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::http::EMBEDDINGS;

use super::*;

async fn ask(state: &Arc<App>, extra: &Value) -> (StatusCode, Value) {
    let mut body = json!({ "model": "toy", "input": "abc" });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    post(state, EMBEDDINGS, &body).await
}

fn floats(item: &Value) -> Vec<f64> {
    item["embedding"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
}

#[tokio::test]
async fn texts_and_tokens_get_vectors_of_length_one() {
    let state = ready(Rule::Hash);
    let (status, whole) = ask(&state, &json!({ "input": ["abc", "uvwxyz"] })).await;
    assert_eq!(status, StatusCode::OK, "{whole}");
    assert_eq!((&whole["object"], &whole["model"]), (&json!("list"), &json!("toy")));
    assert_eq!(whole["usage"], json!({ "prompt_tokens": 9, "total_tokens": 9 }));
    let data = whole["data"].as_array().unwrap();
    let named = |item: &Value| (item["object"].clone(), item["index"].clone());
    assert_eq!([named(&data[0]), named(&data[1])], [0, 1].map(|n| (json!("embedding"), json!(n))));
    for item in data {
        let length: f64 = floats(item).iter().map(|n| n * n).sum();
        assert!((length - 1.0).abs() < 1e-6, "{item}");
    }
    assert_ne!(floats(&data[0]), floats(&data[1]));
    let ids = ["a", "b", "c"].map(toy::token);
    for same in [json!("abc"), json!(ids), json!([ids])] {
        assert_eq!(ask(&state, &json!({ "input": same })).await.1["data"][0], data[0]);
    }
    let (_, packed) = ask(&state, &json!({ "encoding_format": "base64" })).await;
    let bytes = STANDARD.decode(packed["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let numbers: Vec<_> = bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    // What JSON says is the shortest number that no other `f32` is nearer to.
    let plain: Vec<_> = floats(&data[0]).into_iter().map(|n| n as f32).collect();
    assert_eq!(numbers, plain);
}

#[tokio::test]
async fn many_texts_need_no_more_places_than_one_and_come_in_order() {
    let state = ready(Rule::Hash);
    let texts: Vec<_> = (1..=40).map(|n| "a".repeat(n)).collect();
    let (status, whole) = ask(&state, &json!({ "input": texts })).await;
    assert_eq!(status, StatusCode::OK, "{whole}");
    for (n, text) in texts.iter().enumerate() {
        let (_, alone) = ask(&state, &json!({ "input": text })).await;
        assert_eq!(whole["data"][n]["embedding"], alone["data"][0]["embedding"], "text {n}");
    }
    let (_, text) = get(admin(state.clone(), None), contract::http::METRICS).await;
    let total = |name: &str| {
        let line =
            text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(total("vllm:prompt_tokens_total"), 2.0 * (40.0 * 41.0 / 2.0));
    assert_eq!(total("vllm:generation_tokens_total"), 0.0);
}

#[tokio::test]
async fn who_finds_no_room_for_vectors_is_refused_and_room_comes_back() {
    let state = ready(Rule::Hash);
    let room = state.vectors.available_permits();
    let all = state.vectors.clone().try_acquire_many_owned(u32::try_from(room).unwrap()).unwrap();
    let (status, said) = ask(&state, &json!({})).await;
    assert_eq!((status, &said["error"]["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!("queue_full")));
    assert_eq!(state.serving().unwrap().engine.load().waiting, 0, "no place is kept");
    drop(all);
    assert_eq!(ask(&state, &json!({ "input": ["a", "b"] })).await.0, StatusCode::OK);
    assert_eq!(state.vectors.available_permits(), room);
}

#[tokio::test]
async fn what_cannot_be_embedded_is_refused_by_name() {
    let state = ready(Rule::Hash);
    let long = "a".repeat(CONTEXT as usize + 1);
    for (extra, param, code) in [
        (json!({ "input": long }), "input", "context_length_exceeded"),
        (json!({ "input": ["a", long] }), "input", "context_length_exceeded"),
        (json!({ "input": "" }), "input", "invalid_value"),
        (json!({ "input": [9999] }), "input", "invalid_value"),
        (json!({ "dimensions": 1 }), "dimensions", "invalid_value"),
        (json!({ "stream": true }), "stream", "unsupported_parameter"),
    ] {
        let (status, error) = ask(&state, &extra).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{extra}: {error}");
        assert_eq!(
            (&error["error"]["param"], &error["error"]["code"]),
            (&json!(param), &json!(code)),
            "{error}"
        );
    }
    let (status, whole) =
        ask(&state, &json!({ "input": "a".repeat(CONTEXT as usize), "dimensions": 2 })).await;
    assert_eq!(status, StatusCode::OK, "{whole}");
    let (status, error) = ask(&state, &json!({ "input": ["a", toy::POISON] })).await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (StatusCode::INTERNAL_SERVER_ERROR, &json!("internal_error"))
    );
    assert_eq!(ask(&state, &json!({ "model": "none" })).await.0, StatusCode::NOT_FOUND);
}
