//! Whatever a body is, reading it ends in a request within its limits or in a short sentence, and never in a panic.

use proptest::prelude::*;
use serde_json::Map;

use super::tokenize::{ToText, ToTokens};
use super::*;

const NAMES: [&str; 40] = [
    "model",
    "messages",
    "prompt",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "stop_token_ids",
    "stream",
    "stream_options",
    "logit_bias",
    "n",
    "echo",
    "logprobs",
    "top_logprobs",
    "tools",
    "tool_choice",
    "response_format",
    "cache_salt",
    "priority",
    "min_tokens",
    "ignore_eos",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "tokens",
    "suffix",
    "user",
    "role",
    "content",
    "system",
    "input",
    "instructions",
    "text",
    "reasoning",
    "stop_sequences",
];

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        ".{0,12}".prop_map(Json::from),
        prop::sample::select(&["m", "user", "text", "system"][..]).prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            object(inner).prop_map(Json::Object),
        ]
    })
}

fn object(values: impl Strategy<Value = Json>) -> impl Strategy<Value = Map<String, Json>> {
    let name = prop_oneof![4 => prop::sample::select(&NAMES[..]).prop_map(str::to_owned), 1 => ".{0,8}"];
    prop::collection::vec((name, values), 0..8).prop_map(|fields| fields.into_iter().collect())
}

fn read_all(body: &[u8]) -> Result<(), TestCaseError> {
    let names = ["m".to_owned()];
    for read in [chat, completion, anthropic, anthropic_count, responses] {
        match read(body, &names) {
            Ok(request) => {
                prop_assert!((1..=prompt::MAX_PROMPTS).contains(&request.prompts.len()));
                prop_assert!(request.prompts.len() * usize::from(request.n) <= choices::MAX_CHOICES);
                prop_assert!(request.stop.len() <= MAX_STOPS && request.max_tokens != Some(0));
                prop_assert!(request.sampling.temperature.is_none_or(|t| (0.0..=2.0).contains(&t)));
            }
            Err(error) => prop_assert!((1..1024).contains(&error.message.len()), "{}", error.message),
        }
    }
    let _ = (ToTokens::parse(body, &names), ToText::parse(body, &names));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(body in prop::collection::vec(any::<u8>(), 0..512)) {
        read_all(&body)?;
    }

    #[test]
    fn any_object(fields in object(json())) {
        read_all(Json::Object(fields).to_string().as_bytes())?;
    }

    /// One field of a good request is replaced.
    #[test]
    fn any_field(name in prop::sample::select(&NAMES[..]), value in json()) {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "prompt": "Hi", "input": "Hi"});
        body[name] = value;
        read_all(body.to_string().as_bytes())?;
    }
}
