//! What is refused of a grammar before it is compiled: what is too deep, and what has too many parts. Pure.

use serde_json::Value as Json;

use super::{GrammarError, MAX_CHOICES};

/// Deepest nesting of a schema or a regular expression.
const MAX_DEPTH: usize = 64;
/// Most objects and values of a schema.
const MAX_NODES: usize = 20_000;
/// The largest number that says how often something may come.
const MAX_REPEAT: u64 = 10_000;
/// Keywords whose number is such.
const REPEATS: [&str; 6] =
    ["minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"];

/// A schema that is no larger than may be.
pub(super) fn schema(schema: &Json) -> Result<(), GrammarError> {
    let mut nodes = 0;
    let mut rest = vec![(schema, 0, String::new())];
    while let Some((value, depth, place)) = rest.pop() {
        nodes += 1;
        if depth > MAX_DEPTH {
            return Err(GrammarError::TooLarge { what: "levels", found: depth, limit: MAX_DEPTH });
        }
        match value {
            Json::Object(map) => {
                for (key, value) in map {
                    let place = format!("{place}/{key}");
                    if REPEATS.contains(&key.as_str()) && value.as_u64().is_some_and(|n| n > MAX_REPEAT) {
                        let message = format!("{key} is more than {MAX_REPEAT} at #{place}");
                        return Err(GrammarError::Malformed(message));
                    }
                    rest.push((value, depth + 1, place));
                }
            }
            Json::Array(list) => rest.extend(list.iter().map(|value| (value, depth + 1, place.clone()))),
            _ => {}
        }
    }
    let limit = MAX_NODES;
    if nodes > limit { Err(GrammarError::TooLarge { what: "parts", found: nodes, limit }) } else { Ok(()) }
}

/// A text whose brackets are not nested deeper than may be.
pub(super) fn depth(text: &str) -> Result<(), GrammarError> {
    let mut depth = 0usize;
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(GrammarError::TooLarge { what: "open brackets", found: depth, limit: MAX_DEPTH });
        }
    }
    Ok(())
}

pub(super) fn lark(text: &str) -> Result<(), GrammarError> {
    if text.contains("::=") {
        let message = "this is EBNF; grammars are written in Lark's syntax here, as \"start: \\\"yes\\\" | \\\"no\\\"\"";
        return Err(GrammarError::Malformed(message.into()));
    }
    depth(text)
}

pub(super) fn choices(texts: &[String]) -> Result<(), GrammarError> {
    match texts.len() {
        0 => Err(GrammarError::Malformed("there is nothing to choose from".into())),
        found if found > MAX_CHOICES => {
            Err(GrammarError::TooLarge { what: "choices", found, limit: MAX_CHOICES })
        }
        _ => Ok(()),
    }
}

/// Where in a schema the first of the keywords or values stands that a message names, in quotation marks or at its end.
pub(super) fn place(schema: &Json, message: &str) -> Option<String> {
    let quoted = message.split('"').skip(1).step_by(2);
    let last = message.rsplit(": ").next().filter(|last| *last != message);
    let named: Vec<&str> = quoted.chain(last).filter(|name| !name.is_empty()).collect();
    let mut rest = vec![(schema, "#".to_owned())];
    while let Some((value, place)) = rest.pop() {
        match value {
            Json::Object(map) => {
                for (key, value) in map.iter().rev() {
                    let here = format!("{place}/{key}");
                    if named.contains(&key.as_str())
                        || value.as_str().is_some_and(|text| named.contains(&text))
                    {
                        return Some(here);
                    }
                    rest.push((value, here));
                }
            }
            Json::Array(list) => {
                rest.extend(
                    list.iter().enumerate().rev().map(|(at, value)| (value, format!("{place}/{at}"))),
                );
            }
            _ => {}
        }
    }
    None
}
