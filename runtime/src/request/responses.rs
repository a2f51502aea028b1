//! OpenAI's responses, said in the words of chat completions. One set of rules then holds for both. Pure.
//!
//! In: a body of `/v1/responses`. Out: the same as an object of `/v1/chat/completions`, or what is wrong with it.

use serde_json::{Map, Value as Json, json};

use super::fields::{Fields, short};
use super::{Invalid, InvalidKind, wrong};

/// Roles of messages here.
const ROLES: [&str; 4] = ["user", "assistant", "system", "developer"];

/// Says it in other words.
pub(super) fn translate(mut fields: Fields) -> Result<Fields, Invalid> {
    stateless(&mut fields)?;
    let mut list = Vec::new();
    if let Some(instructions) = fields.text("instructions")? {
        list.push(json!({ "role": "system", "content": instructions }));
    }
    match fields.take("input") {
        Some(Json::String(text)) => list.push(json!({ "role": "user", "content": text })),
        Some(Json::Array(items)) if !items.is_empty() => {
            for (at, value) in items.into_iter().enumerate() {
                item(&mut fields, &format!("input[{at}]"), value, &mut list)?;
            }
        }
        _ => return Err(wrong("input", "input must be a text or a list of items".to_owned())),
    }
    fields.put("messages", Json::Array(list));
    if let Some(most) = fields.count("max_output_tokens")? {
        fields.put("max_tokens", json!(most));
    }
    format(&mut fields)?;
    if let Some(reasoning) = fields.take("reasoning") {
        if let Some(effort) = reasoning.get("effort").filter(|effort| !effort.is_null()) {
            fields.put("reasoning_effort", effort.clone());
        }
        if reasoning.get("summary").is_some_and(|summary| !summary.is_null()) {
            fields.ignore("reasoning.summary");
        }
    }
    tools(&mut fields)?;
    Ok(fields)
}

fn unsupported(param: &str, message: String) -> Invalid {
    Invalid::new(InvalidKind::Unsupported, param, message)
}

/// What needs a memory of earlier answers, or that one is kept, is refused; that nothing is kept is no harm to others.
fn stateless(fields: &mut Fields) -> Result<(), Invalid> {
    for name in ["previous_response_id", "conversation", "prompt"] {
        if fields.take(name).is_some() {
            let message =
                format!("{name} is not supported: nothing is stored here; send the whole input again");
            return Err(unsupported(name, message));
        }
    }
    fields.only("background", false)?;
    match fields.text("truncation")?.as_deref() {
        None | Some("disabled") => {}
        Some(_) => {
            return Err(unsupported(
                "truncation",
                "truncation is not supported, other than \"disabled\"".to_owned(),
            ));
        }
    }
    for name in ["include", "max_tool_calls"] {
        if fields.take(name).is_some_and(|value| value != json!([])) {
            fields.ignore(name);
        }
    }
    Ok(())
}

fn item(fields: &mut Fields, param: &str, mut item: Json, list: &mut Vec<Json>) -> Result<(), Invalid> {
    match item["type"].as_str().unwrap_or("message") {
        "message" => {
            let role = item["role"].as_str().filter(|role| ROLES.contains(role));
            let Some(role) = role.map(str::to_owned) else {
                let message = format!("{param}.role must be one of {}", ROLES.join(", "));
                return Err(wrong(&format!("{param}.role"), message));
            };
            // Templates know the older name only.
            let role = if role == "developer" { "system".to_owned() } else { role };
            let content = content(&format!("{param}.content"), item["content"].take())?;
            list.push(json!({ "role": role, "content": content }));
        }
        "function_call" => {
            let call = json!({ "name": item["name"], "arguments": item["arguments"] });
            let call = json!({ "id": item["call_id"], "type": "function", "function": call });
            match list.last_mut().filter(|last| last["role"] == "assistant") {
                Some(last) => match last["tool_calls"].as_array_mut() {
                    Some(calls) => calls.push(call),
                    None => last["tool_calls"] = json!([call]),
                },
                None => list.push(json!({ "role": "assistant", "content": "", "tool_calls": [call] })),
            }
        }
        "function_call_output" => {
            let content = content(&format!("{param}.output"), item["output"].take())?;
            list.push(json!({ "role": "tool", "tool_call_id": item["call_id"], "content": content }));
        }
        "reasoning" => fields.ignore("input[].reasoning"),
        other => {
            let kind = short(&Json::from(other));
            return Err(unsupported(param, format!("{param}: items of type {kind} are not supported")));
        }
    }
    Ok(())
}

/// A text, or a list of text parts.
fn content(param: &str, value: Json) -> Result<String, Invalid> {
    let parts = match value {
        Json::String(text) => return Ok(text),
        Json::Array(parts) => parts,
        _ => return Err(wrong(param, format!("{param} must be a text or a list of parts"))),
    };
    let mut all = String::new();
    for part in &parts {
        match (part["type"].as_str(), part["text"].as_str()) {
            (Some("input_text" | "output_text" | "text"), Some(text)) => all.push_str(text),
            (Some("input_text" | "output_text" | "text"), None) => {
                return Err(wrong(param, format!("{param}[].text must be a text")));
            }
            _ => {
                let kind = short(&part["type"]);
                return Err(unsupported(param, format!("{param}: parts of type {kind} are not supported")));
            }
        }
    }
    Ok(all)
}

/// `text` says what the answer's format is.
fn format(fields: &mut Fields) -> Result<(), Invalid> {
    let Some(text) = fields.take("text") else { return Ok(()) };
    if text.get("verbosity").is_some_and(|verbosity| !verbosity.is_null() && verbosity != "medium") {
        let message = "text.verbosity is not supported, other than \"medium\"";
        return Err(unsupported("text.verbosity", message.to_owned()));
    }
    let Some(Json::Object(mut format)) = text.get("format").cloned() else { return Ok(()) };
    if format.get("type").is_some_and(|kind| kind == "json_schema") {
        format.remove("type");
        fields.put("response_format", json!({ "type": "json_schema", "json_schema": format }));
    } else {
        fields.put("response_format", Json::Object(format));
    }
    Ok(())
}

fn tools(fields: &mut Fields) -> Result<(), Invalid> {
    let Some(tools) = fields.list("tools")? else { return Ok(()) };
    let mut list = Vec::new();
    for (at, tool) in tools.into_iter().enumerate() {
        if tool["type"] != "function" {
            let (param, kind) = (format!("tools[{at}]"), short(&tool["type"]));
            return Err(unsupported(&param, format!("{param}: tools of type {kind} are not supported")));
        }
        let mut function = Map::new();
        for name in ["name", "description", "parameters", "strict"] {
            if let Some(value) = tool.get(name).filter(|value| !value.is_null()) {
                function.insert(name.to_owned(), value.clone());
            }
        }
        list.push(json!({ "type": "function", "function": function }));
    }
    fields.put("tools", Json::Array(list));
    if let Some(choice) = fields.take("tool_choice") {
        let named =
            choice.get("name").map(|name| json!({ "type": "function", "function": { "name": name } }));
        fields.put("tool_choice", named.unwrap_or(choice));
    }
    Ok(())
}
