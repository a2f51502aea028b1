//! The messages of a conversation. Pure.

use serde_json::{Map, Value as Json, json};

use super::fields::{Fields, short};
use super::{Invalid, InvalidKind};
use crate::tokens::Message;

/// Roles that templates know, or that stand for one that they know.
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];
/// What templates call the reasoning of an earlier turn, and what clients do.
const REASONING: &str = "reasoning_content";
const REASONINGS: [&str; 2] = [REASONING, "reasoning"];

/// Reads and checks `messages`.
pub(super) fn messages(fields: &mut Fields) -> Result<Vec<Message>, Invalid> {
    let wrong = |message: &str| Invalid::new(InvalidKind::Value, "messages", message);
    let list = match fields.take("messages") {
        Some(Json::Array(list)) => list,
        Some(_) => return Err(wrong("messages must be a list")),
        None => return Err(wrong("messages is missing")),
    };
    if list.is_empty() {
        return Err(wrong("messages must not be empty"));
    }
    list.into_iter().enumerate().map(|(at, value)| message(fields, at, value)).collect()
}

fn message(fields: &mut Fields, at: usize, value: Json) -> Result<Message, Invalid> {
    let param = |name: &str| format!("messages[{at}]{name}");
    let Json::Object(mut map) = value else {
        return Err(Invalid::new(InvalidKind::Value, &param(""), format!("{} must be an object", param(""))));
    };
    let role = match map.remove("role") {
        Some(Json::String(role)) if ROLES.contains(&role.as_str()) => role,
        other => {
            let found = other.as_ref().map_or_else(|| "nothing".into(), short);
            let message = format!("{} must be one of {}, not {found}", param(".role"), ROLES.join(", "));
            return Err(Invalid::new(InvalidKind::Value, &param(".role"), message));
        }
    };
    let mut more = Map::new();
    match role.as_str() {
        "assistant" => assistant(at, &mut map, &mut more)?,
        "tool" => {
            for name in ["tool_call_id", "name"] {
                more.extend(
                    text(&param(&format!(".{name}")), map.remove(name))?
                        .map(|id| (name.to_owned(), id.into())),
                );
            }
        }
        _ => {}
    }
    // Whoever called a tool need not have said anything.
    let silent = |content: &Json| content.is_null() && more.contains_key("tool_calls");
    let content = match map.remove("content").unwrap_or_default() {
        content if silent(&content) => String::new(),
        content => self::content(&param(".content"), Some(content))?,
    };
    rest(fields, at, map)?;
    Ok(Message { role, content, more })
}

/// Reasoning and calls of an earlier turn.
fn assistant(at: usize, map: &mut Map<String, Json>, more: &mut Map<String, Json>) -> Result<(), Invalid> {
    for name in REASONINGS {
        if let Some(reasoning) = text(&format!("messages[{at}].{name}"), map.remove(name))? {
            more.insert(REASONING.to_owned(), reasoning.into());
        }
    }
    let param = format!("messages[{at}].tool_calls");
    let calls = match map.remove("tool_calls") {
        None | Some(Json::Null) => return Ok(()),
        Some(Json::Array(calls)) => calls,
        Some(_) => return Err(Invalid::new(InvalidKind::Value, &param, format!("{param} must be a list"))),
    };
    let calls = calls.iter().enumerate().map(|(n, value)| call(&format!("{param}[{n}]"), value));
    let calls = calls.collect::<Result<Vec<_>, _>>()?;
    if !calls.is_empty() {
        more.insert("tool_calls".to_owned(), calls.into());
    }
    Ok(())
}

/// A call as templates want it: with arguments that are an object, and no text of one.
fn call(param: &str, value: &Json) -> Result<Json, Invalid> {
    let wrong = |message: &str| Err(Invalid::new(InvalidKind::Value, param, format!("{param}{message}")));
    let Some(name) = value["function"]["name"].as_str() else {
        return wrong(".function.name must be a text");
    };
    let arguments = match &value["function"]["arguments"] {
        Json::Null => json!({}),
        Json::Object(map) => Json::Object(map.clone()),
        Json::String(text) if text.trim().is_empty() => json!({}),
        Json::String(text) => match serde_json::from_str::<Map<String, Json>>(text) {
            Ok(map) => Json::Object(map),
            Err(_) => return wrong(".function.arguments must be the JSON of an object"),
        },
        _ => return wrong(".function.arguments must be a text"),
    };
    let function = json!({ "name": name, "arguments": arguments });
    Ok(match value["id"].as_str() {
        Some(id) => json!({ "id": id, "type": "function", "function": function }),
        None => json!({ "type": "function", "function": function }),
    })
}

fn text(param: &str, value: Option<Json>) -> Result<Option<String>, Invalid> {
    match value {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(_) => Err(Invalid::new(InvalidKind::Value, param, format!("{param} must be a text"))),
    }
}

/// A text, or a list of text parts.
fn content(param: &str, value: Option<Json>) -> Result<String, Invalid> {
    let wrong =
        || Invalid::new(InvalidKind::Value, param, format!("{param} must be a text or a list of text parts"));
    let parts = match value {
        Some(Json::String(text)) => return Ok(text),
        Some(Json::Array(parts)) => parts,
        _ => return Err(wrong()),
    };
    let mut text = String::new();
    for part in parts {
        match (part["type"].as_str(), part["text"].as_str()) {
            (Some("text"), Some(part)) => text.push_str(part),
            (Some("text") | None, _) => return Err(wrong()),
            (Some("image_url" | "image" | "input_image" | "input_audio" | "video_url" | "file"), _) => {
                let message =
                    format!("{param}: this model reads text only, no parts of type {}", short(&part["type"]));
                return Err(Invalid::new(InvalidKind::Unsupported, param, message));
            }
            (Some(_), _) => {
                let message = format!("{param}: parts of type {} are not supported", short(&part["type"]));
                return Err(Invalid::new(InvalidKind::Unsupported, param, message));
            }
        }
        let others =
            |map: &Map<String, Json>| map.keys().find(|key| *key != "type" && *key != "text").cloned();
        if let Some(key) = part.as_object().and_then(others) {
            let param = format!("{param}[].{}", short(&Json::String(key)).trim_matches('"'));
            let message = format!("{param} is not supported");
            return Err(Invalid::new(InvalidKind::Unsupported, &param, message));
        }
    }
    Ok(text)
}

/// What else a message may carry: a name is ignored, everything else would change the prompt.
fn rest(fields: &mut Fields, at: usize, map: Map<String, Json>) -> Result<(), Invalid> {
    for (name, value) in map {
        let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        let name = short(&Json::String(name));
        let param = format!("messages[{at}].{}", name.trim_matches('"'));
        if name == "\"name\"" {
            // Once for all messages: what was ignored goes into a header.
            fields.ignore("messages[].name");
        } else if !empty {
            let message = format!("{param} is not supported");
            return Err(Invalid::new(InvalidKind::Unsupported, &param, message));
        }
    }
    Ok(())
}
