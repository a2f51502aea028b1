//! Several answers to one prompt, and how probable their tokens are.

use super::*;

/// The toy's model gives its choice 10 and every other token 0.
fn expected(likely: bool) -> f64 {
    let total = 10f64.exp() + toy::vocabulary().len() as f64 - 1.0;
    (if likely { 10.0 } else { 0.0 }) - total.ln()
}

fn is(value: &Value, expected: f64) -> bool {
    value.as_f64().is_some_and(|found| (found - expected).abs() < 1e-3)
}

#[tokio::test]
async fn one_prompt_has_as_many_answers_as_were_asked_for() {
    let state = ready(Rule::Successor);
    let options = json!({"n": 3, "stop": ["y"]});
    let (status, whole) = post(&state, CHAT_COMPLETIONS, &chat("uvw", &options)).await;
    assert_eq!(status, StatusCode::OK, "{whole}");
    let choices = whole["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 3);
    for (index, choice) in choices.iter().enumerate() {
        assert_eq!((&choice["index"], &choice["message"]["content"]), (&json!(index), &json!("x")));
        assert_eq!((&choice["finish_reason"], &choice["stop_reason"]), (&json!("stop"), &json!("y")));
    }
    assert_eq!(whole["usage"]["prompt_tokens"], 3, "the prompt is read once");

    let options = json!({"n": 3, "stream": true, "stream_options": {"include_usage": true}});
    let chunks = chunks(&state, CHAT_COMPLETIONS, &chat("uvw", &options)).await;
    let mut texts = vec![String::new(); 3];
    let mut ends = 0;
    for choice in chunks.iter().filter_map(|chunk| chunk["choices"].get(0)) {
        let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
        texts[index].push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        ends += usize::from(choice["finish_reason"] == "stop");
    }
    assert_eq!((texts, ends), (vec!["xyz".to_owned(); 3], 3));
    assert_eq!(chunks.last().unwrap()["usage"]["completion_tokens"], 12);
}

#[tokio::test]
async fn chats_tell_how_probable_each_token_was() {
    let state = ready(Rule::Successor);
    let options = json!({"logprobs": true, "top_logprobs": 2});
    let (_, whole) = post(&state, CHAT_COMPLETIONS, &chat("uvw", &options)).await;
    let content = whole["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let tokens: Vec<_> = content.iter().map(|entry| entry["token"].as_str().unwrap()).collect();
    assert_eq!(tokens, ["x", "y", "z"], "{whole}");
    assert_eq!(
        (&content[0]["bytes"], content[0]["top_logprobs"].as_array().unwrap().len()),
        (&json!([120]), 2)
    );
    assert!(is(&content[0]["logprob"], expected(true)), "{whole}");
    assert!(is(&content[0]["top_logprobs"][0]["logprob"], expected(true)));
    assert!(is(&content[0]["top_logprobs"][1]["logprob"], expected(false)));
    let streaming = json!({"logprobs": true, "top_logprobs": 2, "stream": true});
    let chunks = chunks(&state, CHAT_COMPLETIONS, &chat("uvw", &streaming)).await;
    let streamed: Vec<_> =
        chunks.iter().filter_map(|c| c["choices"][0]["logprobs"]["content"].as_array()).flatten().collect();
    assert_eq!(streamed, content.iter().collect::<Vec<_>>());
    let (_, plain) = post(&state, CHAT_COMPLETIONS, &chat("uvw", &json!({}))).await;
    assert_eq!(plain["choices"][0]["logprobs"], Value::Null);
}

#[tokio::test]
async fn completions_tell_where_each_token_begins_and_of_the_prompt_too() {
    let state = ready(Rule::Successor);
    let body = |stream: bool| {
        json!({
            "model": "toy", "prompt": "abd", "max_tokens": 2, "echo": true, "logprobs": 1, "temperature": 0,
            "stream": stream
        })
    };
    let (_, whole) = post(&state, COMPLETIONS, &body(false)).await;
    let told = &whole["choices"][0]["logprobs"];
    assert_eq!(whole["choices"][0]["text"], "abdef");
    assert_eq!(told["tokens"], json!(["a", "b", "d", "e", "f"]), "{whole}");
    assert_eq!(told["text_offset"], json!([0, 1, 2, 3, 4]));
    assert_eq!((&told["token_logprobs"][0], &told["top_logprobs"][0]), (&Value::Null, &Value::Null));
    // After a comes b, and after b comes c, which is not what the prompt has.
    assert!(
        is(&told["token_logprobs"][1], expected(true)) && is(&told["token_logprobs"][2], expected(false))
    );
    assert!(
        is(&told["top_logprobs"][2]["c"], expected(true))
            && is(&told["top_logprobs"][2]["d"], expected(false))
    );
    let chunks = chunks(&state, COMPLETIONS, &body(true)).await;
    let joined = |name: &str| -> Vec<Value> {
        let lists = chunks.iter().filter_map(|c| c["choices"][0]["logprobs"][name].as_array());
        lists.flatten().cloned().collect()
    };
    for name in ["tokens", "token_logprobs", "text_offset", "top_logprobs"] {
        assert_eq!(json!(joined(name)), told[name], "{name}");
    }
}
