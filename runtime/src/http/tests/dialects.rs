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

/// The toy says the likeliest of what it may, so a choice of one says it all.
fn forced(extra: &Value) -> Value {
    let mut body = json!({"temperature": 0, "structured_outputs": {"choice": ["ok{}"]}});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn answers_keep_to_their_format_in_every_api() {
    let state = ready(Rule::Successor);
    let chat = json!({"model": "toy", "messages": [{"role": "user", "content": "a"}]});
    let (status, answer) = post(&state, CHAT_COMPLETIONS, &forced(&chat)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["choices"][0]["message"]["content"], "ok{}");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let (_, answer) = post(&state, COMPLETIONS, &forced(&json!({"model": "toy", "prompt": "a"}))).await;
    assert_eq!(answer["choices"][0]["text"], "ok{}");
    let format = json!({"format": {"type": "json_schema", "name": "x", "schema": {"const": 7}}});
    let responses = json!({"model": "toy", "input": "a", "temperature": 0, "text": format});
    let (_, answer) = post(&state, RESPONSES, &responses).await;
    assert_eq!(answer["output"][0]["content"][0]["text"], "7", "{answer}");
    let wrong = forced(&json!({"structured_outputs": {"regex": "("}, "model": "toy", "prompt": "a"}));
    let (status, answer) = post(&state, COMPLETIONS, &wrong).await;
    assert_eq!((status.as_u16(), &answer["error"]["param"]), (400, &json!("structured_outputs")), "{answer}");
}

fn speaking(template: &str) -> Arc<App> {
    let mut metadata = toy::metadata();
    metadata.insert("tokenizer.chat_template".into(), Item::String(template.into()));
    loaded_with(loading(), Rule::Successor, (metadata, Said::default()))
}

fn said(content: &str, extra: &Value) -> Value {
    let mut body =
        json!({"model": "toy", "messages": [{"role": "user", "content": content}], "temperature": 0});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn calls_are_told_in_every_api() {
    let state = speaking("{% for m in messages %}{{ m.content }}{% endfor %}{# tools [TOOL_CALLS] [ARGS] #}");
    let parameters = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let tools = json!([{"type": "function", "function": {"name": "now", "parameters": parameters}}]);
    let required = json!({"tools": tools, "tool_choice": "required", "parallel_tool_calls": false});
    let (status, answer) = post(&state, CHAT_COMPLETIONS, &said("a", &required)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &Value::Null)
    );
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(
        (&call["type"], &call["function"]),
        (&json!("function"), &json!({"name": "now", "arguments": "{}"}))
    );
    assert!(call["id"].as_str().unwrap().starts_with("call_"));

    let mut streaming = said("a", &required);
    streaming["stream"] = json!(true);
    let request = Request::post(CHAT_COMPLETIONS).body(Body::from(streaming.to_string())).unwrap();
    let (_, _, text) = send(app(state.clone()), request).await;
    assert!(text.contains(r#""function":{"name":"now","arguments":"{}"},"index":0"#), "{text}");
    assert!(text.contains(r#""finish_reason":"tool_calls""#) && !text.contains("[TOOL_CALLS]"), "{text}");

    // Cut off, it is no call.
    let mut short = said("a", &required);
    short["max_tokens"] = json!(20);
    let (_, answer) = post(&state, CHAT_COMPLETIONS, &short).await;
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["tool_calls"]),
        (&json!("length"), &Value::Null)
    );
    assert_eq!(choice["message"]["content"], "[TOOL_CALLS]now[ARGS");

    let theirs = json!({"max_tokens": 40, "tools": [{"name": "now", "input_schema": parameters}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": true}});
    let (status, answer) = post(&state, MESSAGES, &said("a", &theirs)).await;
    assert_eq!((status, &answer["stop_reason"]), (StatusCode::OK, &json!("tool_use")), "{answer}");
    let block = &answer["content"][0];
    assert_eq!(
        (&block["type"], &block["name"], &block["input"]),
        (&json!("tool_use"), &json!("now"), &json!({}))
    );
    let mut streaming = said("a", &theirs);
    streaming["stream"] = json!(true);
    let names: Vec<_> =
        events(&state, MESSAGES, &streaming).await.into_iter().map(|(name, _)| name).collect();
    let block = ["content_block_start", "content_block_delta", "content_block_stop"];
    assert_eq!(names, [&["message_start", "ping"][..], &block, &["message_delta", "message_stop"]].concat());

    let mut body = json!({"model": "toy", "input": "a", "temperature": 0, "tool_choice": "required",
        "parallel_tool_calls": false, "tools": [{"type": "function", "name": "now", "parameters": parameters}]});
    let (status, answer) = post(&state, RESPONSES, &body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let item = &answer["output"][0];
    assert_eq!(
        (&item["type"], &item["name"], &item["arguments"]),
        (&json!("function_call"), &json!("now"), &json!("{}"))
    );
    body["stream"] = json!(true);
    let events = events(&state, RESPONSES, &body).await;
    assert_eq!(events.last().unwrap().1["response"]["output"][0]["arguments"], "{}");
    assert!(events.iter().any(|(name, _)| name == "response.function_call_arguments.done"));
}

#[tokio::test]
async fn reasoning_is_told_in_every_api() {
    let state = speaking("{{ messages[0].content }}<think>{# </think> #}");
    let short = json!({"max_tokens": 3});
    let (_, answer) = post(&state, CHAT_COMPLETIONS, &said("a", &short)).await;
    let message = &answer["choices"][0]["message"];
    assert_eq!((&message["reasoning"], &message["content"]), (&json!("?@A"), &Value::Null), "{answer}");
    assert_eq!(message["reasoning_content"], message["reasoning"]);
    let hidden = json!({"max_tokens": 3, "include_reasoning": false});
    let (_, answer) = post(&state, CHAT_COMPLETIONS, &said("a", &hidden)).await;
    assert_eq!(answer["choices"][0]["message"]["reasoning"], Value::Null);
    let (_, answer) = post(&state, MESSAGES, &said("a", &short)).await;
    assert_eq!((&answer["content"][0]["thinking"], &answer["content"][1]), (&json!("?@A"), &Value::Null));
    let mut streaming = said("a", &short);
    streaming["stream"] = json!(true);
    let events = events(&state, MESSAGES, &streaming).await;
    let text: String = events.iter().filter_map(|(_, data)| data["delta"]["thinking"].as_str()).collect();
    assert_eq!(text, "?@A");
    let body = json!({"model": "toy", "input": "a", "temperature": 0, "max_output_tokens": 3});
    let (_, answer) = post(&state, RESPONSES, &body).await;
    assert_eq!(
        (&answer["output"][0]["type"], &answer["output"][0]["content"][0]["text"]),
        (&json!("reasoning"), &json!("?@A"))
    );
}
