//! Anthropic's messages, said in the words of chat completions. One set of rules then holds for both. Pure.
//!
//! In: a body of `/v1/messages`. Out: the same as an object of `/v1/chat/completions`, or what is wrong with it.

use serde_json::{Map, Value as Json, json};

use super::fields::{Fields, short};
use super::{Invalid, InvalidKind, wrong};

/// The marks of Anthropic's prompt cache, which ours does not need.
const CACHE_CONTROL: &str = "cache_control";

/// Says it in other words. Counting needs no `max_tokens`.
pub(super) fn translate(mut fields: Fields, counting: bool) -> Result<Fields, Invalid> {
    if counting {
        // What is counted is the prompt alone; whatever else is asked for, no answer may begin.
        fields.put("max_tokens", Json::Null);
    } else if !fields.has("max_tokens") {
        return Err(wrong("max_tokens", "max_tokens is missing: this API needs it".to_owned()));
    }
    let mut list = Vec::new();
    if let Some(system) = fields.take("system") {
        let text = texts(&mut fields, "system", system)?;
        list.push(json!({ "role": "system", "content": text }));
    }
    let Some(Json::Array(messages)) = fields.take("messages") else {
        return Err(wrong("messages", "messages must be a list".to_owned()));
    };
    if messages.last().is_none_or(|last| last["role"] != "user") {
        let message = "the last of messages must be the user's; to begin the assistant's is not supported";
        return Err(wrong("messages", message.to_owned()));
    }
    for (at, message) in messages.into_iter().enumerate() {
        turn(&mut fields, &format!("messages[{at}]"), message, &mut list)?;
    }
    fields.put("messages", Json::Array(list));
    if let Some(stop) = fields.take("stop_sequences") {
        fields.put("stop", stop);
    }
    tools(&mut fields)?;
    Ok(fields)
}

fn unsupported(param: &str, kind: &Json) -> Invalid {
    let message = format!("{param}: blocks of type {} are not supported", short(kind));
    Invalid::new(InvalidKind::Unsupported, param, message)
}

/// A text, or a list of text blocks.
fn texts(fields: &mut Fields, param: &str, value: Json) -> Result<String, Invalid> {
    let blocks = match value {
        Json::String(text) => return Ok(text),
        Json::Array(blocks) => blocks,
        _ => return Err(wrong(param, format!("{param} must be a text or a list of blocks"))),
    };
    let mut all = String::new();
    for (at, block) in blocks.iter().enumerate() {
        cached(fields, block);
        match (&block["type"], block["text"].as_str()) {
            (kind, Some(text)) if kind == "text" => all.push_str(text),
            (kind, _) => return Err(unsupported(&format!("{param}[{at}]"), kind)),
        }
    }
    Ok(all)
}

fn cached(fields: &mut Fields, block: &Json) {
    if block.get(CACHE_CONTROL).is_some() {
        fields.ignore(CACHE_CONTROL);
    }
}

fn turn(fields: &mut Fields, param: &str, mut message: Json, list: &mut Vec<Json>) -> Result<(), Invalid> {
    let role = message["role"].as_str().filter(|role| ["user", "assistant"].contains(role));
    let Some(role) = role.map(str::to_owned) else {
        let message = format!("{param}.role must be user or assistant, not {}", short(&message["role"]));
        return Err(wrong(&format!("{param}.role"), message));
    };
    let param = format!("{param}.content");
    let blocks = match message["content"].take() {
        Json::String(text) => vec![json!({ "type": "text", "text": text })],
        Json::Array(blocks) => blocks,
        _ => return Err(wrong(&param, format!("{param} must be a text or a list of blocks"))),
    };
    let (mut text, mut calls) = (String::new(), Vec::new());
    let n = list.len();
    for (at, mut block) in blocks.into_iter().enumerate() {
        let param = format!("{param}[{at}]");
        cached(fields, &block);
        match (block["type"].as_str().unwrap_or_default(), role.as_str()) {
            ("text", _) => match block["text"].as_str() {
                Some(more) => text.push_str(more),
                None => return Err(wrong(&param, format!("{param}.text must be a text"))),
            },
            ("tool_use", "assistant") => {
                let call = json!({ "name": block["name"], "arguments": block["input"].to_string() });
                calls.push(json!({ "id": block["id"], "type": "function", "function": call }));
            }
            ("tool_result", "user") => {
                let content = match block["content"].take() {
                    Json::Null => String::new(),
                    content => texts(fields, &format!("{param}.content"), content)?,
                };
                list.push(
                    json!({ "role": "tool", "tool_call_id": block["tool_use_id"], "content": content }),
                );
            }
            // What was thought in earlier turns is not shown to the model again.
            ("thinking" | "redacted_thinking", "assistant") => {}
            _ => return Err(unsupported(&param, &block["type"])),
        }
    }
    // A turn of results alone has nothing else to say.
    if list.len() == n || !text.is_empty() {
        let mut message = json!({ "role": role, "content": text });
        if !calls.is_empty() {
            message["tool_calls"] = Json::Array(calls);
        }
        list.push(message);
    }
    Ok(())
}

fn tools(fields: &mut Fields) -> Result<(), Invalid> {
    let Some(tools) = fields.list("tools")? else { return Ok(()) };
    let mut list = Vec::new();
    for (at, tool) in tools.into_iter().enumerate() {
        cached(fields, &tool);
        if tool.get("type").is_some_and(|kind| kind != "custom") {
            return Err(unsupported(&format!("tools[{at}]"), &tool["type"]));
        }
        let mut function = Map::new();
        for (theirs, ours) in
            [("name", "name"), ("description", "description"), ("input_schema", "parameters")]
        {
            if let Some(value) = tool.get(theirs) {
                function.insert(ours.to_owned(), value.clone());
            }
        }
        list.push(json!({ "type": "function", "function": function }));
    }
    fields.put("tools", Json::Array(list));
    let Some(choice) = fields.take("tool_choice") else { return Ok(()) };
    if choice["disable_parallel_tool_use"] == true {
        fields.put("parallel_tool_calls", json!(false));
    }
    let choice = match choice["type"].as_str() {
        Some("auto") => json!("auto"),
        Some("any") => json!("required"),
        Some("none") => json!("none"),
        Some("tool") => json!({ "type": "function", "function": { "name": choice["name"] } }),
        _ => {
            let message =
                format!("tool_choice.type must be auto, any, tool or none, not {}", short(&choice["type"]));
            return Err(wrong("tool_choice", message));
        }
    };
    fields.put("tool_choice", choice);
    Ok(())
}
