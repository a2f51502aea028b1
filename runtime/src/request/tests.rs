use super::*;

const SERVED: &str = "smollm2";

fn names() -> Vec<String> {
    vec![SERVED.to_owned()]
}

fn chat_with(extra: Json) -> Result<ValidRequest, Invalid> {
    let mut body = json!({"model": SERVED, "messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    chat(body.to_string().as_bytes(), &names())
}

/// What is meant where nothing is said.
fn unsaid() -> Sampling {
    Sampling {
        temperature: None,
        top_p: None,
        top_k: None,
        min_p: None,
        seed: None,
        repetition_penalty: None,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        logit_bias: [].into(),
        stop_token_ids: [].into(),
        ignore_eos: false,
        min_tokens: 0,
    }
}

fn refused(extra: Json) -> (InvalidKind, String, String) {
    let shown = extra.to_string();
    let Invalid { kind, message, param } = chat_with(extra).expect_err(&shown);
    (kind, param.unwrap_or_default(), message)
}

#[test]
fn defaults_are_those_of_the_api() {
    let request = chat_with(json!({})).unwrap();
    assert_eq!(request.sampling, unsaid());
    assert_eq!((request.max_tokens, request.delivery), (None, Delivery::Whole));
    let completion = completion(br#"{"model":"smollm2","prompt":"Once"}"#, &names()).unwrap();
    assert_eq!((completion.prompts, completion.max_tokens), (vec![Prompt::Text("Once".into())], Some(16)));
}

#[test]
fn every_field_reaches_its_place() {
    let request = chat_with(json!({
        "temperature": 0, "top_p": 0.5, "seed": -1, "max_completion_tokens": 7, "max_tokens": 7,
        "stop": ["a", "b"], "stream": true, "stream_options": {"include_usage": true}, "user": "x", "n": 1.0,
        "presence_penalty": 0, "tools": [], "logit_bias": {}, "response_format": {"type": "text"}, "logprobs": null,
        "priority": -3, "cache_salt": "mine"
    }))
    .unwrap();
    let said = Sampling { temperature: Some(0.0), top_p: Some(0.5), seed: Some(u64::MAX), ..unsaid() };
    assert_eq!(request.sampling, said);
    assert_eq!((request.max_tokens, request.stop), (Some(7), vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(request.delivery, Delivery::Stream { usage: true });
    assert_eq!((request.priority, request.cache_salt.as_str()), (-3, "mine"));
    assert_eq!(request.ignored, ["user"]);
}

#[test]
fn the_ways_of_choosing_are_openais_and_vllms() {
    let request = chat_with(json!({
        "top_k": 40, "min_p": 0.1, "repetition_penalty": 1.1, "presence_penalty": -2, "frequency_penalty": 0.5,
        "logit_bias": {"7": -100, "8": 1.5}, "stop_token_ids": [3, 2], "ignore_eos": true, "min_tokens": 4,
        "max_tokens": 4
    }));
    let expected = Sampling {
        top_k: Some(40),
        min_p: Some(0.1),
        repetition_penalty: Some(1.1),
        presence_penalty: -2.0,
        frequency_penalty: 0.5,
        logit_bias: [(7, -100.0), (8, 1.5)].into(),
        stop_token_ids: [2, 3].into(),
        ignore_eos: true,
        min_tokens: 4,
        ..unsaid()
    };
    assert_eq!(request.unwrap().sampling, expected);
    for all in [json!(-1), json!(0)] {
        let expected = Sampling { top_k: Some(0), ..unsaid() };
        assert_eq!(chat_with(json!({"top_k": all})).unwrap().sampling, expected);
    }
}

#[test]
fn content_may_come_in_parts() {
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    let request = chat_with(json!({"messages": [
        {"role": "system", "content": parts, "name": "s"},
        {"role": "assistant", "content": "c", "tool_calls": [], "refusal": null}
    ]}))
    .unwrap();
    let [Prompt::Chat(Chat { messages, .. })] = &request.prompts[..] else { panic!("a chat") };
    assert_eq!((messages[0].content.as_str(), messages[1].role.as_str()), ("ab", "assistant"));
    assert_eq!(request.ignored, ["messages[].name"]);
}

#[test]
fn values_out_of_bounds_are_named() {
    for (extra, param) in [
        (json!({"temperature": 2.1}), "temperature"),
        (json!({"n": 0}), "n"),
        (json!({"n": 17}), "n"),
        (json!({"n": 1.5}), "n"),
        (json!({"logprobs": 3}), "logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"top_p": -0.1}), "top_p"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": 1u64 << 40}), "max_tokens"),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"seed": 0.5}), "seed"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"min_p": 1.1}), "min_p"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"presence_penalty": 2.5}), "presence_penalty"),
        (json!({"frequency_penalty": "x"}), "frequency_penalty"),
        (json!({"logit_bias": {"x": 1}}), "logit_bias"),
        (json!({"logit_bias": {"1": 101}}), "logit_bias"),
        (json!({"logit_bias": [1]}), "logit_bias"),
        (json!({"stop_token_ids": vec![1; 65]}), "stop_token_ids"),
        (json!({"stop_token_ids": [-1]}), "stop_token_ids"),
        (json!({"ignore_eos": 1}), "ignore_eos"),
        (json!({"min_tokens": 5, "max_tokens": 4}), "min_tokens"),
        (json!({"priority": 1u64 << 31}), "priority"),
        (json!({"cache_salt": ""}), "cache_salt"),
        (json!({"cache_salt": "x".repeat(257)}), "cache_salt"),
        (json!({"stop": ""}), "stop"),
        (json!({"stop": [1]}), "stop"),
        (json!({"stop": vec!["x"; 17]}), "stop"),
        (json!({"stop": "x".repeat(257)}), "stop"),
        (json!({"stream": 1}), "stream"),
        (json!({"stream_options": {}}), "stream_options"),
        (json!({"stream": true, "stream_options": {"include_usage": 1}}), "stream_options.include_usage"),
        (json!({"max_tokens": 4, "max_completion_tokens": 5}), "max_tokens"),
        (json!({"model": 7}), "model"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": "Hi"}), "messages"),
        (json!({"messages": ["Hi"]}), "messages[0]"),
        (json!({"messages": [{"content": "Hi"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "robot", "content": "Hi"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
        (json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}), "messages[0].content"),
    ] {
        let (kind, found, message) = refused(extra.clone());
        assert_eq!((kind, found.as_str()), (InvalidKind::Value, param), "{extra}: {message}");
    }
}

#[test]
fn what_would_change_the_answer_is_refused() {
    for (extra, param) in [
        (json!({"best_of": 2}), "best_of"),
        (json!({"stream": true, "stream_options": {"bogus": 1}}), "stream_options.bogus"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "cache": 1}]}]}),
            "messages[0].content[].cache",
        ),
        (json!({"tools": [{"type": "custom"}]}), "tools[0].type"),
        (json!({"guided_json": {}}), "guided_json"),
        (json!({"structured_outputs": {"structural_tag": "x"}}), "structured_outputs.structural_tag"),
        (json!({"made_up": 1}), "made_up"),
        (json!({"messages": [{"role": "user", "content": "", "tool_calls": [1]}]}), "messages[0].tool_calls"),
        (json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "messages[0].content"),
    ] {
        let (kind, found, message) = refused(extra.clone());
        assert_eq!((kind, found.as_str()), (InvalidKind::Unsupported, param), "{extra}: {message}");
    }
    assert_eq!(refused(json!({"model": "gpt"})).0, InvalidKind::Model);
}

#[test]
fn messages_stay_short_whatever_the_client_sends() {
    let (_, _, message) = refused(json!({"temperature": "x".repeat(1 << 20)}));
    assert!(message.len() < 200, "{message}");
    let (_, param, message) = refused(json!({"é".repeat(1 << 20): 1}));
    assert!(param.len() + message.len() < 400, "{message}");
}

#[test]
fn hostile_bodies_are_errors_and_never_panics() {
    let deep = "[".repeat(1 << 16);
    for body in
        [&b""[..], b"[]", b"{", b"\xff\xfe", b"{\"model\":\"\\ud800\"}", deep.as_bytes(), b"{\"n\":1e999}"]
    {
        let error = chat(body, &names()).unwrap_err();
        assert!(error.message.starts_with("the body"), "{}", error.message);
    }
    for prompt in [
        json!(null),
        json!([]),
        json!([[]]),
        json!([1, "a"]),
        json!([[1], [-1]]),
        json!(7),
        json!(vec!["a"; 33]),
    ] {
        let body = json!({"model": SERVED, "prompt": prompt}).to_string();
        let body = body.as_bytes();
        assert_eq!(completion(body, &names()).unwrap_err().param.as_deref(), Some("prompt"));
    }
}

#[test]
fn answers_may_be_several_and_their_tokens_told_of() {
    let request = chat_with(json!({"n": 3, "logprobs": true, "top_logprobs": 4})).unwrap();
    assert_eq!((request.n, request.logprobs), (3, Some(4)));
    assert_eq!(chat_with(json!({"logprobs": true})).unwrap().logprobs, Some(0));
    assert_eq!(chat_with(json!({"logprobs": false, "top_logprobs": 0})).unwrap().logprobs, None);
    let read = |extra: Json| {
        let mut body = json!({"model": SERVED, "prompt": vec!["a"; 8]});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        completion(body.to_string().as_bytes(), &names())
    };
    assert_eq!(read(json!({"logprobs": 5})).unwrap().logprobs, Some(5));
    assert_eq!(read(json!({"n": 8})).unwrap().n, 8);
    assert_eq!(read(json!({"n": 9})).unwrap_err().param.as_deref(), Some("n"));
    assert_eq!(read(json!({"logprobs": 21})).unwrap_err().param.as_deref(), Some("logprobs"));
}

#[test]
fn prompts_come_as_text_as_tokens_and_as_lists_of_either() {
    let read = |prompt: Json| {
        let body = json!({"model": SERVED, "prompt": prompt, "echo": true});
        completion(body.to_string().as_bytes(), &names()).unwrap()
    };
    let (text, tokens) = (Prompt::Text("a".into()), Prompt::Tokens(vec![1, 2]));
    assert_eq!(read(json!("a")).prompts, std::slice::from_ref(&text));
    assert_eq!(read(json!(["a", "a"])).prompts, [text.clone(), text.clone()]);
    assert_eq!(read(json!([1, 2])).prompts, std::slice::from_ref(&tokens));
    assert_eq!(read(json!([[1, 2], "a"])).prompts, [tokens, text]);
    assert!(read(json!("a")).echo);
}

fn weather() -> Json {
    json!({"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}, "strict": true}})
}

#[test]
fn tools_are_called_as_the_choice_says() {
    let other = json!({"type": "function", "function": {"name": "now"}});
    let tools = |choice: Json| {
        let extra = json!({"tools": [weather(), other], "tool_choice": choice, "parallel_tool_calls": false});
        chat_with(extra).unwrap()
    };
    let names = |request: &ValidRequest| {
        request.wishes.tools.callable.iter().map(|tool| tool.name.clone()).collect::<Vec<_>>().join(" ")
    };
    let auto = tools(json!("auto"));
    assert_eq!((names(&auto).as_str(), auto.wishes.tools.required), ("weather now", false));
    assert!(!auto.wishes.tools.several && auto.wishes.tools.callable[0].strict);
    let [Prompt::Chat(chat)] = &auto.prompts[..] else { panic!("a chat") };
    assert_eq!(chat.tools, [weather(), other.clone()]);
    assert!(tools(json!("required")).wishes.tools.required);
    let named = tools(json!({"type": "function", "function": {"name": "now"}}));
    assert_eq!((names(&named).as_str(), named.wishes.tools.required), ("now", true));
    let none = tools(json!("none"));
    assert!(none.wishes.tools == Tools::default());
    for (extra, param) in [
        (json!({"tools": {}}), "tools"),
        (json!({"tools": vec![weather(); 129]}), "tools"),
        (json!({"tools": [{"type": "function", "function": {"name": "a b"}}]}), "tools[0].function.name"),
        (
            json!({"tools": [{"type": "function", "function": {"name": "a", "parameters": 1}}]}),
            "tools[0].function.parameters",
        ),
        (
            json!({"tools": [{"type": "function", "function": {"name": "a", "strict": 1}}]}),
            "tools[0].function.strict",
        ),
        (json!({"tools": [weather()], "tool_choice": "some"}), "tool_choice"),
        (
            json!({"tools": [weather()], "tool_choice": {"type": "function", "function": {"name": "x"}}}),
            "tool_choice",
        ),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"parallel_tool_calls": 1}), "parallel_tool_calls"),
    ] {
        let (kind, found, message) = refused(extra.clone());
        assert_eq!((kind, found.as_str()), (InvalidKind::Value, param), "{extra}: {message}");
    }
}

#[test]
fn formats_become_grammars() {
    use crate::grammar::Grammar;
    let schema = json!({"type": "null"});
    let json_schema = |strict: bool| Grammar::JsonSchema { schema: schema.clone(), strict };
    for (extra, expected) in [
        (json!({"response_format": {"type": "text"}}), None),
        (json!({"response_format": {"type": "json_object"}}), Some(Grammar::JsonObject)),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": true}}}),
            Some(json_schema(true)),
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}),
            Some(json_schema(false)),
        ),
        (json!({"structured_outputs": {"json": schema, "regex": null}}), Some(json_schema(false))),
        (json!({"structured_outputs": {"json": schema.to_string()}}), Some(json_schema(false))),
        (json!({"structured_outputs": {"json_object": true}}), Some(Grammar::JsonObject)),
        (json!({"structured_outputs": {"regex": "a"}}), Some(Grammar::Regex("a".into()))),
        (json!({"structured_outputs": {"choice": ["a"]}}), Some(Grammar::Choice(vec!["a".into()]))),
        (json!({"structured_outputs": {"grammar": "a"}}), Some(Grammar::Lark("a".into()))),
    ] {
        assert_eq!(chat_with(extra.clone()).unwrap().wishes.format, expected, "{extra}");
    }
    for (extra, param) in [
        (json!({"response_format": "json"}), "response_format.type"),
        (json!({"response_format": {"type": "xml"}}), "response_format.type"),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": 1}}}),
            "response_format.json_schema.schema",
        ),
        (json!({"structured_outputs": 1}), "structured_outputs"),
        (json!({"structured_outputs": {}}), "structured_outputs"),
        (json!({"structured_outputs": {"regex": "a", "choice": ["a"]}}), "structured_outputs"),
        (json!({"structured_outputs": {"json": "{"}}), "structured_outputs.json"),
        (json!({"structured_outputs": {"choice": [1]}}), "structured_outputs.choice"),
        (
            json!({"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}),
            "structured_outputs",
        ),
    ] {
        let (kind, found, message) = refused(extra.clone());
        assert_eq!((kind, found.as_str()), (InvalidKind::Value, param), "{extra}: {message}");
    }
}

#[test]
fn templates_are_told_what_the_client_says_and_what_follows_from_the_effort() {
    let told = |extra: Json| {
        let request = chat_with(extra).unwrap();
        let Some(Prompt::Chat(chat)) = request.prompts.first().cloned() else { panic!("a chat") };
        (Json::Object(chat.settings), chat.continues, request.wishes.include_reasoning)
    };
    assert_eq!(told(json!({})), (json!({}), false, true));
    let high = json!({"enable_thinking": true, "thinking": true, "reasoning_effort": "high"});
    assert_eq!(told(json!({"reasoning_effort": "high"})), (high, false, true));
    let kept = json!({"enable_thinking": true, "thinking": false, "reasoning_effort": "none"});
    let extra = json!({"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": true}, "include_reasoning": false});
    assert_eq!(told(extra), (kept, false, false));
    let last = json!({"messages": [{"role": "assistant", "content": "Once"}]});
    let with = |extra: Json| {
        let mut all = last.clone();
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        all
    };
    assert!(told(with(json!({"continue_final_message": true, "add_generation_prompt": false}))).1);
    assert!(told(with(json!({"continue_final_message": true}))).1);
    for (extra, param) in [
        (json!({"reasoning_effort": "extreme"}), "reasoning_effort"),
        (json!({"chat_template_kwargs": []}), "chat_template_kwargs"),
        (json!({"chat_template_kwargs": {"messages": []}}), "chat_template_kwargs.messages"),
        (json!({"continue_final_message": true}), "continue_final_message"),
        (
            with(json!({"continue_final_message": true, "add_generation_prompt": true})),
            "add_generation_prompt",
        ),
        (json!({"add_generation_prompt": false}), "add_generation_prompt"),
    ] {
        let (kind, found, message) = refused(extra.clone());
        assert_eq!((kind, found.as_str()), (InvalidKind::Value, param), "{extra}: {message}");
    }
}

#[test]
fn earlier_calls_and_their_answers_reach_the_template() {
    let call = |arguments: &str| json!({"id": "c1", "type": "function", "function": {"name": "weather", "arguments": arguments}});
    let messages = |arguments: &str| {
        json!({"messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "assistant", "content": null, "reasoning": "Hm.", "tool_calls": [call(arguments)]},
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "12"}]},
        ]})
    };
    let Some(Prompt::Chat(chat)) = chat_with(messages("{\"city\": \"Bern\"}")).unwrap().prompts.pop() else {
        panic!("a chat")
    };
    let made = json!({"reasoning_content": "Hm.", "tool_calls":
        [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Bern"}}}]});
    assert_eq!((chat.messages[1].content.as_str(), Json::Object(chat.messages[1].more.clone())), ("", made));
    assert_eq!(
        (chat.messages[2].content.as_str(), &chat.messages[2].more["tool_call_id"]),
        ("12", &json!("c1"))
    );
    let (_, param, _) = refused(messages("[1]"));
    assert_eq!(param, "messages[1].tool_calls[0]");
    let (_, _, message) = refused(
        json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
    );
    assert!(message.contains("reads text only"), "{message}");
}
