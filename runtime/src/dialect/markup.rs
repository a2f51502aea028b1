//! From the text between two marks to calls. Pure.
//!
//! A text that is not calls from its beginning to its end is no call at all.

use serde::de::IgnoredAny;
use serde_json::{Map, Value as Json};

use super::{Call, Tool, ToolFormat};

/// Reads all calls of a text.
pub(super) fn parse(format: ToolFormat, text: &str, tools: &[Tool]) -> Option<Vec<Call>> {
    let calls = match format {
        ToolFormat::Hermes => objects(text, ""),
        ToolFormat::Llama => known(objects(text, ";")?, tools),
        ToolFormat::Mistral | ToolFormat::MistralArgs => mistral(text),
        ToolFormat::DeepseekV3 => deepseek(text, true),
        ToolFormat::DeepseekV31 => deepseek(text, false),
        ToolFormat::QwenXml => qwen(text, tools),
        ToolFormat::Glm => glm(text, tools).map(|call| vec![call]),
        ToolFormat::Minimax => minimax(text, tools),
    };
    calls.filter(|calls| !calls.is_empty() && calls.iter().all(|call| !call.name.is_empty()))
}

/// Where nothing else tells a call from an answer in JSON, the name has to be that of a tool.
fn known(calls: Vec<Call>, tools: &[Tool]) -> Option<Vec<Call>> {
    calls.iter().all(|call| tools.iter().any(|tool| tool.name == call.name)).then_some(calls)
}

/// A call that is written as an object; its arguments stay as they were written.
fn object(text: &str) -> Option<Call> {
    let mut rest = text.trim().strip_prefix('{')?.trim_start();
    let (mut name, mut written) = (None, "{}");
    while !rest.starts_with('}') {
        let (key, after) = json_prefix(rest)?;
        let (value, after) = json_prefix(after.trim_start().strip_prefix(':')?.trim_start())?;
        match serde_json::from_str::<String>(key).ok()?.as_str() {
            "name" => name = Some(serde_json::from_str(value).ok()?),
            "arguments" | "parameters" => written = value,
            _ => {}
        }
        rest = after.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    Some(Call { name: name?, arguments: arguments(written)? })
}

/// Arguments are an object, as it was written; some models write it into a string.
fn arguments(raw: &str) -> Option<String> {
    let raw = raw.trim();
    match raw.chars().next()? {
        '{' => json_prefix(raw).filter(|(_, rest)| rest.trim().is_empty()).map(|(value, _)| value.to_owned()),
        '"' => {
            let text: String = serde_json::from_str(raw).ok()?;
            if text.trim_start().starts_with('{') { arguments(&text) } else { None }
        }
        _ => (raw == "null").then(|| "{}".to_owned()),
    }
}

/// Objects one after the other, or lists of them.
fn objects(text: &str, between: &str) -> Option<Vec<Call>> {
    let (mut rest, mut calls) = (text.trim(), Vec::new());
    while !rest.is_empty() {
        let (value, after) = json_prefix(rest)?;
        match value.strip_prefix('[').and_then(|list| list.strip_suffix(']')) {
            Some(list) => calls.extend(objects(list, ",")?),
            None => calls.push(object(value)?),
        }
        rest = after.trim_start();
        rest = rest.strip_prefix(between).unwrap_or(rest).trim_start();
    }
    Some(calls)
}

/// The JSON value that a text begins with, and what follows it.
fn json_prefix(text: &str) -> Option<(&str, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    Some((&text[..values.byte_offset()], &text[values.byte_offset()..]))
}

/// A list, or names with their arguments; the mark before all of them is also between them.
fn mistral(text: &str) -> Option<Vec<Call>> {
    if text.trim_start().starts_with(['[', '{']) {
        return objects(text, ",");
    }
    let (mut rest, mut calls) = (text, Vec::new());
    while !rest.trim().is_empty() {
        let (name, after) = match (rest.split_once("[ARGS]"), rest.find('{')) {
            (Some((name, after)), Some(brace)) if name.len() < brace => (name, after),
            (_, Some(brace)) => rest.split_at(brace),
            (_, None) => return None,
        };
        let name = name.split("[CALL_ID]").next().unwrap_or_default().trim().to_owned();
        let (value, after) = json_prefix(after)?;
        calls.push(Call { name, arguments: arguments(value)? });
        rest = after.trim_start();
        rest = rest.strip_prefix("[TOOL_CALLS]").unwrap_or(rest);
    }
    Some(calls)
}

fn deepseek(text: &str, with_type: bool) -> Option<Vec<Call>> {
    let (mut rest, mut calls) = (text.trim(), Vec::new());
    while !rest.is_empty() {
        let (before, after) = rest.strip_prefix("<｜tool▁call▁begin｜>")?.split_once("<｜tool▁sep｜>")?;
        let (name, value) = if with_type {
            let (name, block) = after.split_once('\n')?;
            (name, block.trim_start().strip_prefix("```json")?)
        } else {
            (before, after)
        };
        let (value, after) = json_prefix(value)?;
        calls.push(Call { name: name.trim().to_owned(), arguments: arguments(value)? });
        let after = after.trim_start();
        let after = if with_type { after.strip_prefix("```")?.trim_start() } else { after };
        rest = after.strip_prefix("<｜tool▁call▁end｜>")?.trim_start();
    }
    Some(calls)
}

fn qwen(text: &str, tools: &[Tool]) -> Option<Vec<Call>> {
    let (mut rest, mut calls) = (text.trim(), Vec::new());
    while !rest.is_empty() {
        let (name, mut inner) = rest.strip_prefix("<function=")?.split_once('>')?;
        let mut values = Values::of(name.trim(), tools);
        inner = inner.trim_start();
        while let Some(parameter) = inner.strip_prefix("<parameter=") {
            let (key, after) = parameter.split_once('>')?;
            let (value, after) = after.split_once("</parameter>")?;
            let value = value.strip_prefix('\n').unwrap_or(value);
            values.add(key.trim(), value.strip_suffix('\n').unwrap_or(value));
            inner = after.trim_start();
        }
        calls.push(values.call());
        rest = inner.strip_prefix("</function>")?.trim_start();
    }
    Some(calls)
}

fn minimax(text: &str, tools: &[Tool]) -> Option<Vec<Call>> {
    let (mut rest, mut calls) = (text.trim(), Vec::new());
    while !rest.is_empty() {
        let (name, mut inner) = rest.strip_prefix("<invoke name=\"")?.split_once("\">")?;
        let mut values = Values::of(name.trim(), tools);
        inner = inner.trim_start();
        while let Some(parameter) = inner.strip_prefix("<parameter name=\"") {
            let (key, after) = parameter.split_once("\">")?;
            let (value, after) = after.split_once("</parameter>")?;
            values.add(key.trim(), value);
            inner = after.trim_start();
        }
        calls.push(values.call());
        rest = inner.strip_prefix("</invoke>")?.trim_start();
    }
    Some(calls)
}

fn glm(text: &str, tools: &[Tool]) -> Option<Call> {
    let at = text.find("<arg_key>").unwrap_or(text.len());
    let (name, mut rest) = text.split_at(at);
    let name = name.trim();
    if name.contains(['<', '\n', '{']) {
        return None;
    }
    let mut values = Values::of(name, tools);
    rest = rest.trim();
    while !rest.is_empty() {
        let (key, after) = rest.strip_prefix("<arg_key>")?.split_once("</arg_key>")?;
        let (value, after) = after.trim_start().strip_prefix("<arg_value>")?.split_once("</arg_value>")?;
        values.add(key.trim(), value);
        rest = after.trim_start();
    }
    Some(values.call())
}

/// Arguments that are written as text, and are what the tool's schema says.
struct Values<'a> {
    name: &'a str,
    properties: Option<&'a Json>,
    map: Map<String, Json>,
}

impl<'a> Values<'a> {
    fn of(name: &'a str, tools: &'a [Tool]) -> Self {
        let tool = tools.iter().find(|tool| tool.name == name);
        Self { name, properties: tool.map(|tool| &tool.parameters["properties"]), map: Map::new() }
    }

    fn add(&mut self, key: &str, text: &str) {
        let schema = self.properties.map(|properties| &properties[key]);
        let value = if schema.is_some_and(is_text) {
            Json::from(text)
        } else {
            serde_json::from_str(text).unwrap_or_else(|_| Json::from(text))
        };
        self.map.insert(key.to_owned(), value);
    }

    fn call(self) -> Call {
        Call { name: self.name.to_owned(), arguments: Json::Object(self.map).to_string() }
    }
}

/// Whether a schema accepts texts and nothing else.
pub(super) fn is_text(schema: &Json) -> bool {
    let all_text = |list: &Vec<Json>| !list.is_empty() && list.iter().all(Json::is_string);
    match (&schema["type"], schema["enum"].as_array()) {
        (Json::String(kind), _) => kind == "string",
        (Json::Array(kinds), _) => kinds.iter().all(|kind| kind == "string"),
        (_, Some(values)) => all_text(values),
        (_, None) => schema["const"].is_string(),
    }
}
