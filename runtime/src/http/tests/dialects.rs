//! The same answers in the other APIs' words.

use super::*;

/// Names and data of a stream's events.
async fn events(state: &Arc<App>, path: &str, body: &Value) -> Vec<(String, Value)> {
    let request = Request::post(path).body(Body::from(body.to_string())).unwrap();
    let (status, _, text) = send(app(state.clone()), request).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let event = |event: &str| {
        let (name, data) = event.split_once("\ndata: ").unwrap();
        (name.strip_prefix("event: ").unwrap().to_owned(), serde_json::from_str(data).unwrap())
    };
    text.trim_end().split("\n\n").map(event).collect()
}

fn message(content: Value, extra: &Value) -> Value {
    let mut body = json!({
        "model": "toy", "max_tokens": 30, "temperature": 0, "messages": [{"role": "user", "content": content}]
    });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn anthropics_messages_are_answered_whole_and_in_pieces() {
    let state = ready(Rule::Successor);
    let blocks = json!([{"type": "text", "text": "uv", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "w"}]);
    let (status, whole) = post(&state, MESSAGES, &message(blocks.clone(), &json!({"system": "k"}))).await;
    assert_eq!(status, StatusCode::OK, "{whole}");
    assert_eq!((&whole["type"], &whole["role"]), (&json!("message"), &json!("assistant")));
    assert_eq!(whole["content"], json!([{"type": "text", "text": "xyz"}]));
    assert_eq!((&whole["stop_reason"], &whole["stop_sequence"]), (&json!("end_turn"), &Value::Null));
    assert_eq!((&whole["usage"]["input_tokens"], &whole["usage"]["output_tokens"]), (&json!(4), &json!(4)));

    let events = events(&state, MESSAGES, &message(blocks, &json!({"stream": true}))).await;
    assert!(events.iter().all(|(name, data)| *name == data["type"]));
    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..3], ["message_start", "ping", "content_block_start"]);
    assert_eq!(names[names.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    assert!(names[3..names.len() - 3].iter().all(|name| *name == "content_block_delta"));
    let text: String = events.iter().filter_map(|(_, data)| data["delta"]["text"].as_str()).collect();
    assert_eq!(text, "xyz");
    let last = &events[events.len() - 2].1;
    assert_eq!(
        (&last["delta"]["stop_reason"], &last["usage"]["output_tokens"]),
        (&json!("end_turn"), &json!(4))
    );

    let stop = message(json!("uv"), &json!({"stop_sequences": ["yz"]}));
    let (_, stopped) = post(&state, MESSAGES, &stop).await;
    assert_eq!((&stopped["stop_reason"], &stopped["stop_sequence"]), (&json!("stop_sequence"), &json!("yz")));
    let (_, short) = post(&state, MESSAGES, &message(json!("a"), &json!({"max_tokens": 2}))).await;
    assert_eq!(short["stop_reason"], "max_tokens");
    let mut count = message(json!("uvw"), &json!({"system": [{"type": "text", "text": "k"}]}));
    count.as_object_mut().unwrap().remove("max_tokens");
    assert_eq!(post(&state, COUNT_TOKENS, &count).await.1, json!({"input_tokens": 4}));
}

#[tokio::test]
async fn anthropics_errors_have_anthropics_shape() {
    let state = ready(Rule::Successor);
    let image = json!([{"type": "image", "source": {}}]);
    for (body, status, kind, says) in [
        (
            message(json!("a"), &json!({"max_tokens": null})),
            400,
            "invalid_request_error",
            "max_tokens is missing",
        ),
        (message(json!("a"), &json!({"model": "x"})), 404, "not_found_error", "not served"),
        (message(image, &json!({})), 400, "invalid_request_error", "messages[0].content[0]"),
        (
            message(json!("a"), &json!({"stop_sequences": [""]})),
            400,
            "invalid_request_error",
            "stop_sequences must",
        ),
        (message(json!("a"), &json!({"messages": []})), 400, "invalid_request_error", "the last of messages"),
        (message(json!("a".repeat(64)), &json!({})), 400, "invalid_request_error", "context"),
        (message(json!(toy::POISON), &json!({})), 500, "api_error", "could not be computed"),
    ] {
        let (found, answer) = post(&state, MESSAGES, &body).await;
        assert_eq!(
            (found.as_u16(), &answer["type"], &answer["error"]["type"]),
            (status, &json!("error"), &json!(kind)),
            "{answer}"
        );
        assert!(answer["error"]["message"].as_str().unwrap().contains(says), "{says}: {answer}");
        assert!(answer["request_id"].as_str().unwrap().starts_with("req_"), "{answer}");
    }
    let failed = events(&state, MESSAGES, &message(json!(toy::POISON), &json!({"stream": true}))).await;
    assert_eq!(failed.last().unwrap().1["error"]["type"], "api_error");
}

#[tokio::test]
async fn responses_are_answered_whole_and_in_pieces() {
    let state = ready(Rule::Successor);
    let ask = |extra: Value| {
        let mut body =
            json!({"model": "toy", "input": "uvw", "instructions": "k", "temperature": 0, "store": true});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let (status, whole) = post(&state, RESPONSES, &ask(json!({}))).await;
    assert_eq!(status, StatusCode::OK, "{whole}");
    assert_eq!((&whole["object"], &whole["status"]), (&json!("response"), &json!("completed")));
    assert_eq!(whole["output"][0]["content"][0]["text"], "xyz");
    assert_eq!((&whole["usage"]["input_tokens"], &whole["usage"]["total_tokens"]), (&json!(4), &json!(8)));

    let items = json!([
        {"role": "developer", "content": "k"}, {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "uvw"}]}
    ]);
    let streaming = ask(json!({"input": items, "instructions": null, "stream": true}));
    let events = events(&state, RESPONSES, &streaming).await;
    let names: Vec<_> = events.iter().map(|(name, _)| name.strip_prefix("response.").unwrap()).collect();
    assert_eq!(names[..4], ["created", "in_progress", "output_item.added", "content_part.added"]);
    assert_eq!(
        names[names.len() - 4..],
        ["output_text.done", "content_part.done", "output_item.done", "completed"]
    );
    let numbers: Vec<_> = events.iter().map(|(_, data)| data["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
    let text: String = events.iter().filter_map(|(_, data)| data["delta"].as_str()).collect();
    assert_eq!(text, "xyz");
    assert_eq!(events.last().unwrap().1["response"]["output"][0]["content"], whole["output"][0]["content"]);

    let (_, short) = post(&state, RESPONSES, &ask(json!({"max_output_tokens": 2}))).await;
    assert_eq!(short["incomplete_details"]["reason"], "max_output_tokens");
    for (extra, param) in [
        (json!({"previous_response_id": "resp_1"}), "previous_response_id"),
        (json!({"conversation": "c"}), "conversation"),
        (json!({"background": true}), "background"),
        (json!({"input": []}), "input"),
        (json!({"input": [{"type": "computer_call"}]}), "input[0]"),
        (json!({"truncation": "auto"}), "truncation"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0]"),
    ] {
        let (status, answer) = post(&state, RESPONSES, &ask(extra)).await;
        assert_eq!((status.as_u16(), answer["error"]["param"].as_str()), (400, Some(param)), "{answer}");
    }
}
