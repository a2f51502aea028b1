//! The messages of a conversation. Pure.

use serde_json::{Map, Value as Json};

use super::fields::{Fields, short};
use super::{Invalid, InvalidKind};
use crate::tokens::Message;

/// Roles that templates know.
const ROLES: [&str; 3] = ["system", "user", "assistant"];

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
    let content = content(&param(".content"), map.remove("content"))?;
    rest(fields, at, map)?;
    Ok(Message { role, content })
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
        let others =
            |map: &Map<String, Json>| map.keys().find(|key| *key != "type" && *key != "text").cloned();
        if let Some(key) = part.as_object().and_then(others) {
            let param = format!("{param}[].{}", short(&Json::String(key)).trim_matches('"'));
            let message = format!("{param} is not supported");
            return Err(Invalid::new(InvalidKind::Unsupported, &param, message));
        }
        match (part["type"].as_str(), part["text"].as_str()) {
            (Some("text"), Some(part)) => text.push_str(part),
            (Some("text") | None, _) => return Err(wrong()),
            (Some(_), _) => {
                let message = format!("{param}: parts of type {} are not supported", short(&part["type"]));
                return Err(Invalid::new(InvalidKind::Unsupported, param, message));
            }
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
