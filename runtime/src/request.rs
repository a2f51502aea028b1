//! Wire request → [`ValidRequest`]. Nothing behind this re-checks.
//!
//! In: the bytes of a body and the names of the served model. Out: a request whose every field is in its bounds, or
//! one sentence that names the field.
//! A field that would change the answer and that we do not implement is refused; a harmless one is ignored, and
//! named to the client. It must not know tokens, engines or HTTP.

mod anthropic;
mod bounds;
mod choices;
pub mod embeddings;
mod fields;
mod messages;
mod prompt;
mod reasoning;
mod responses;
mod sampling;
mod structured;
pub mod tokenize;
mod tools;

use serde_json::{Value as Json, json};

use crate::tokens::Chat;
use fields::Fields;
pub use sampling::Sampling;
pub use structured::Wishes;
pub use tools::Tools;

/// Most bytes of a body.
pub const MAX_BODY: usize = 4 << 20;
/// Most stop strings of a request, and the longest of them in bytes.
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;
/// Longest salt, in bytes.
const MAX_SALT_BYTES: usize = 256;
/// OpenAI's default of `max_tokens` for plain completions.
const COMPLETION_TOKENS: u32 = 16;

/// A request that can be served as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidRequest {
    /// The name that the model was asked for by.
    pub model: String,
    /// What to answer or to go on with; at least one, and only one of a chat.
    pub prompts: Vec<Prompt>,
    /// Whether the answer begins with the prompt.
    pub echo: bool,
    /// Answers to each prompt.
    pub n: u16,
    /// Whether it is told how probable tokens were, and of how many of the most likely in their place.
    pub logprobs: Option<u32>,
    /// Most tokens of the answer; absent: as many as the context has room for.
    pub max_tokens: Option<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What the answer is to look like.
    pub wishes: Wishes,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// Requests of lower numbers are admitted first.
    pub priority: i32,
    /// Requests of different salts do not share cached prompts.
    pub cache_salt: String,
    /// How the answer is delivered.
    pub delivery: Delivery,
    /// Fields that were ignored.
    pub ignored: Vec<String>,
}

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// A conversation.
    Chat(Chat),
    /// Plain text.
    Text(String),
    /// Tokens, whatever they mean.
    Tokens(Vec<u32>),
}

impl Prompt {
    /// Bytes of all its texts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Chat(chat) => chat.bytes(),
            Self::Text(text) => text.len(),
            Self::Tokens(_) => 0,
        }
    }

    /// The field that it came in.
    #[must_use]
    pub const fn param(&self) -> &'static str {
        match self {
            Self::Chat(_) => "messages",
            Self::Text(_) | Self::Tokens(_) => "prompt",
        }
    }
}

/// How an answer is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// In one piece.
    Whole,
    /// As it comes, with or without a last chunk that counts tokens.
    Stream {
        /// Whether to count.
        usage: bool,
    },
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// What kind of refusal.
    pub kind: InvalidKind,
    /// One sentence for the client.
    pub message: String,
    /// The field.
    pub param: Option<String>,
}

/// Kinds of refusals that clients tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidKind {
    /// A value out of its bounds, or a body that is no JSON.
    Value,
    /// A field that is not implemented.
    Unsupported,
    /// Another model than the served one.
    Model,
    /// More tokens than the context has.
    ContextLength,
}

impl Invalid {
    /// A refusal that names a field.
    pub fn new(kind: InvalidKind, param: &str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: Some(param.to_owned()) }
    }
}

/// A value that the field cannot have.
fn wrong(param: &str, message: impl Into<String>) -> Invalid {
    Invalid::new(InvalidKind::Value, param, message)
}

/// Reads a body of `/v1/chat/completions`.
pub fn chat(body: &[u8], served: &[String]) -> Result<ValidRequest, Invalid> {
    chat_fields(Fields::parse(body)?, served)
}

/// Reads a body of `/v1/messages`.
pub fn anthropic(body: &[u8], served: &[String]) -> Result<ValidRequest, Invalid> {
    let request = chat_fields(anthropic::translate(Fields::parse(body)?, false)?, served);
    request.and_then(single).map_err(|error| match error {
        // The one field whose name differs.
        Invalid { kind, message, param: Some(param) } if param == "stop" => {
            Invalid::new(kind, "stop_sequences", message.replacen("stop", "stop_sequences", 1))
        }
        other => other,
    })
}

/// Reads a body of `/v1/messages/count_tokens`.
pub fn anthropic_count(body: &[u8], served: &[String]) -> Result<ValidRequest, Invalid> {
    chat_fields(anthropic::translate(Fields::parse(body)?, true)?, served)
}

/// Reads a body of `/v1/responses`.
pub fn responses(body: &[u8], served: &[String]) -> Result<ValidRequest, Invalid> {
    chat_fields(responses::translate(Fields::parse(body)?)?, served).and_then(single)
}

/// Of what only chat completions have words for in their answers.
fn single(request: ValidRequest) -> Result<ValidRequest, Invalid> {
    let unsupported = |name: &str| {
        Err(Invalid::new(InvalidKind::Unsupported, name, format!("{name} is not supported by this endpoint")))
    };
    match request {
        ValidRequest { n: 2.., .. } => unsupported("n"),
        ValidRequest { logprobs: Some(_), .. } => unsupported("logprobs"),
        request => Ok(request),
    }
}

fn chat_fields(mut fields: Fields, served: &[String]) -> Result<ValidRequest, Invalid> {
    let model = model(&mut fields, served)?;
    let (chat, wishes) = structured::chat(&mut fields)?;
    fields.only("echo", false)?;
    let logprobs = choices::of_chat(&mut fields)?;
    let most = fields.count("max_completion_tokens")?;
    let max_tokens = fields.count("max_tokens")?;
    if most.is_some() && max_tokens.is_some() && most != max_tokens {
        let message = "max_tokens is the older name of max_completion_tokens, and they say different things";
        return Err(Invalid::new(InvalidKind::Value, "max_tokens", message));
    }
    let prompts = vec![Prompt::Chat(chat)];
    common(fields, Asked { model, prompts, max_tokens: most.or(max_tokens), echo: false, logprobs, wishes })
}

/// Reads a body of `/v1/completions`.
pub fn completion(body: &[u8], served: &[String]) -> Result<ValidRequest, Invalid> {
    let mut fields = Fields::parse(body)?;
    let model = model(&mut fields, served)?;
    let prompts = prompt::prompts(&mut fields, "prompt", prompt::MAX_PROMPTS)?;
    let max_tokens = Some(fields.count("max_tokens")?.unwrap_or(COMPLETION_TOKENS));
    let echo = fields.flag("echo")?.unwrap_or(false);
    let logprobs = choices::of_completion(&mut fields)?;
    let wishes = structured::text(&mut fields)?;
    common(fields, Asked { model, prompts, max_tokens, echo, logprobs, wishes })
}

/// What the endpoints name differently.
struct Asked {
    model: String,
    prompts: Vec<Prompt>,
    max_tokens: Option<u32>,
    echo: bool,
    logprobs: Option<u32>,
    wishes: Wishes,
}

fn common(mut fields: Fields, asked: Asked) -> Result<ValidRequest, Invalid> {
    let Asked { model, prompts, max_tokens, echo, logprobs, wishes } = asked;
    let n = choices::n(&mut fields)?;
    if prompts.len() * usize::from(n) > choices::MAX_CHOICES {
        let message =
            format!("{} prompts with n = {n} are more than {} answers", prompts.len(), choices::MAX_CHOICES);
        return Err(Invalid::new(InvalidKind::Value, "n", message));
    }
    let sampling = sampling::sampling(&mut fields, max_tokens)?;
    let stop = stop(&mut fields)?;
    let priority = fields.rank("priority")?.unwrap_or_default();
    let cache_salt = cache_salt(&mut fields)?;
    let delivery = delivery(&mut fields)?;
    neutral(&mut fields)?;
    let ignored = fields.finish()?;
    Ok(ValidRequest {
        model,
        prompts,
        echo,
        n,
        logprobs,
        max_tokens,
        sampling,
        wishes,
        stop,
        priority,
        cache_salt,
        delivery,
        ignored,
    })
}

fn model(fields: &mut Fields, names: &[String]) -> Result<String, Invalid> {
    let model = named_model(fields, names)?;
    model.ok_or_else(|| Invalid::new(InvalidKind::Value, "model", "model is missing: name one"))
}

/// The model, for requests that need not name it.
fn named_model(fields: &mut Fields, names: &[String]) -> Result<Option<String>, Invalid> {
    let model = fields.text("model")?;
    model.iter().try_for_each(|model| served(model, names))?;
    Ok(model)
}

/// Whether a model of this name is served.
pub fn served(model: &str, names: &[String]) -> Result<(), Invalid> {
    if names.iter().any(|name| name == model) {
        return Ok(());
    }
    let shown = fields::short(&Json::from(model));
    let message = format!("the model {shown} is not served here; {} is", names.join(", "));
    Err(Invalid::new(InvalidKind::Model, "model", message))
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, Invalid> {
    let wrong = || {
        let message = format!(
            "stop must be a text or a list of at most {MAX_STOPS} texts, each of 1 to {MAX_STOP_BYTES} bytes"
        );
        Invalid::new(InvalidKind::Value, "stop", message)
    };
    let list = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(Json::Array(list)) => list,
        Some(one) => vec![one],
    };
    let text =
        |value: &Json| value.as_str().filter(|s| (1..=MAX_STOP_BYTES).contains(&s.len())).map(str::to_owned);
    let stops: Option<Vec<_>> = list.iter().map(text).collect();
    stops.filter(|s| s.len() <= MAX_STOPS).ok_or_else(wrong)
}

fn cache_salt(fields: &mut Fields) -> Result<String, Invalid> {
    let salt = fields.text("cache_salt")?;
    if salt.as_ref().is_some_and(|salt| !(1..=MAX_SALT_BYTES).contains(&salt.len())) {
        let message = format!("cache_salt must be a text of 1 to {MAX_SALT_BYTES} bytes");
        return Err(Invalid::new(InvalidKind::Value, "cache_salt", message));
    }
    Ok(salt.unwrap_or_default())
}

fn delivery(fields: &mut Fields) -> Result<Delivery, Invalid> {
    let stream = fields.flag("stream")?.unwrap_or(false);
    let options = fields.take("stream_options");
    let usage = match options {
        None => false,
        Some(Json::Object(options)) if stream => {
            let mut options = Fields::of("stream_options.", options);
            let usage = options.flag("include_usage")?.unwrap_or(false);
            for ignored in options.finish()? {
                fields.ignore(&ignored);
            }
            usage
        }
        Some(_) => {
            let message = "stream_options must be an object, and only goes with \"stream\": true";
            return Err(Invalid::new(InvalidKind::Value, "stream_options", message));
        }
    };
    Ok(if stream { Delivery::Stream { usage } } else { Delivery::Whole })
}

/// Fields that are not implemented, with the values that mean the same as leaving them out.
fn neutral(fields: &mut Fields) -> Result<(), Invalid> {
    let none: [Json; 0] = [];
    let table = [
        ("best_of", vec![json!(1)]),
        ("suffix", vec![json!("")]),
        ("functions", vec![json!(none)]),
        ("function_call", vec![json!("none"), json!("auto")]),
        ("modalities", vec![json!(["text"])]),
    ];
    for (name, neutral) in table {
        let same = |value: &Json| {
            neutral.iter().any(|n| n == value || n.as_f64().is_some_and(|n| value.as_f64() == Some(n)))
        };
        if let Some(value) = fields.take(name).filter(|value| !same(value)) {
            let shown = neutral.iter().map(Json::to_string).collect::<Vec<_>>().join(" or ");
            let message =
                format!("{name} is not supported yet, other than {shown}: {}", fields::short(&value));
            return Err(Invalid::new(InvalidKind::Unsupported, name, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
