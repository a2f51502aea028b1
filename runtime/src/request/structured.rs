//! What the answer has to look like: OpenAI's `response_format` and vLLM's `structured_outputs`, and with the tools
//! and the reasoning all that a client wishes of an answer's form. Pure.

use serde_json::{Map, Value as Json};

use super::fields::{Fields, short};
use super::tools::{Tools, tools};
use super::{Invalid, InvalidKind, messages, reasoning, wrong};
use crate::grammar::Grammar;
use crate::tokens::Chat;

const FORMAT: &str = "response_format";
const STRUCTURED: &str = "structured_outputs";
/// What vLLM called its parts before they were parts of one field.
const FORMER: [(&str, &str); 4] = [
    ("guided_json", "json"),
    ("guided_regex", "regex"),
    ("guided_choice", "choice"),
    ("guided_grammar", "grammar"),
];

/// What a client wishes of an answer's form.
#[derive(Clone, Debug, PartialEq)]
pub struct Wishes {
    /// What it has to look like.
    pub format: Option<Grammar>,
    /// Tools that it may call.
    pub tools: Tools,
    /// Whether its reasoning is shown.
    pub include_reasoning: bool,
}

/// Takes a conversation and the wishes that go with it.
pub(super) fn chat(fields: &mut Fields) -> Result<(Chat, Wishes), Invalid> {
    let messages = messages::messages(fields)?;
    let reasoning::Told { settings, include_reasoning, continues } = reasoning::told(fields)?;
    let wishes = Wishes { format: structured(fields)?, tools: tools(fields)?, include_reasoning };
    let last_is_assistants = messages.last().is_some_and(|message| message.role == "assistant");
    if continues && !last_is_assistants {
        let message = "continue_final_message goes with a last message of the assistant's";
        return Err(wrong("continue_final_message", message));
    }
    Ok((Chat { messages, tools: wishes.tools.described.clone(), settings, continues }, wishes))
}

/// Takes the wishes that go with plain text.
pub(super) fn text(fields: &mut Fields) -> Result<Wishes, Invalid> {
    Ok(Wishes { format: structured(fields)?, tools: Tools::default(), include_reasoning: true })
}

/// Takes what there is of them.
fn structured(fields: &mut Fields) -> Result<Option<Grammar>, Invalid> {
    for (name, part) in FORMER {
        if fields.take(name).is_some() {
            let message = format!("{name} is not supported: say {{\"{STRUCTURED}\": {{\"{part}\": …}}}}");
            return Err(Invalid::new(InvalidKind::Unsupported, name, message));
        }
    }
    let format = fields.take(FORMAT).map(|value| format(&value)).transpose()?.flatten();
    let structured = match fields.take(STRUCTURED) {
        None => None,
        Some(Json::Object(parts)) => Some(structured_outputs(parts)?),
        Some(_) => return Err(wrong(STRUCTURED, "structured_outputs must be an object")),
    };
    match (format, structured) {
        (Some(_), Some(_)) => {
            Err(wrong(STRUCTURED, "response_format and structured_outputs exclude each other"))
        }
        (format, structured) => Ok(format.or(structured)),
    }
}

fn format(value: &Json) -> Result<Option<Grammar>, Invalid> {
    match value["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Grammar::JsonObject)),
        Some("json_schema") => {
            // Responses have the parts of `json_schema` beside the type.
            let described = if value["json_schema"].is_object() { &value["json_schema"] } else { value };
            let strict = described["strict"].as_bool().unwrap_or(false);
            match &described["schema"] {
                schema @ (Json::Object(_) | Json::Bool(_)) => {
                    Ok(Some(Grammar::JsonSchema { schema: schema.clone(), strict }))
                }
                Json::Null if !strict => Ok(Some(Grammar::JsonObject)),
                _ => {
                    let param = "response_format.json_schema.schema";
                    Err(wrong(param, "response_format.json_schema.schema must be a JSON schema"))
                }
            }
        }
        _ => {
            let shown = short(&value["type"]);
            let message = format!(
                "response_format.type must be \"text\", \"json_object\" or \"json_schema\", not {shown}"
            );
            Err(wrong("response_format.type", message))
        }
    }
}

/// One part says what; options that we need not heed may stand beside it.
fn structured_outputs(parts: Map<String, Json>) -> Result<Grammar, Invalid> {
    let mut found = None;
    for (name, value) in parts {
        let param = format!("{STRUCTURED}.{name}");
        let text = |what: &str| match &value {
            Json::String(text) => Ok(text.clone()),
            _ => Err(wrong(&param, format!("{param} must be {what}"))),
        };
        let grammar = match (name.as_str(), &value) {
            (_, Json::Null | Json::Bool(false)) => continue,
            ("json", Json::Object(_)) => Grammar::JsonSchema { schema: value.clone(), strict: false },
            ("json", _) => {
                let schema = serde_json::from_str(&text("a JSON schema")?);
                let schema = schema.map_err(|error| wrong(&param, format!("{param} is no JSON: {error}")))?;
                Grammar::JsonSchema { schema, strict: false }
            }
            ("json_object", Json::Bool(true)) => Grammar::JsonObject,
            ("regex", _) => Grammar::Regex(text("a regular expression")?),
            ("grammar", _) => Grammar::Lark(text("a grammar")?),
            ("choice", Json::Array(list)) => {
                let texts =
                    list.iter().map(|choice| choice.as_str().map(str::to_owned)).collect::<Option<_>>();
                Grammar::Choice(
                    texts.ok_or_else(|| wrong(&param, format!("{param} must be a list of texts")))?,
                )
            }
            _ => {
                let param = format!("{STRUCTURED}.{}", short(&Json::String(name)).trim_matches('"'));
                let message = format!(
                    "{param} is not supported, only one of json, json_object, regex, choice, grammar"
                );
                return Err(Invalid::new(InvalidKind::Unsupported, &param, message));
            }
        };
        if found.replace(grammar).is_some() {
            return Err(wrong(STRUCTURED, "structured_outputs must say one thing, not several"));
        }
    }
    found.ok_or_else(|| {
        wrong(STRUCTURED, "structured_outputs must say one of json, json_object, regex, choice, grammar")
    })
}
