//! Tools for models whose template does not know them: what the template would have said is said in words. Pure.
//!
//! The words are those of Hermes' template, whose dialect most models have seen.

use std::fmt::Write;

use serde_json::{Map, Value as Json, json};

/// One message, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn<'a> {
    /// Whose.
    pub role: &'a str,
    /// What was said.
    pub content: &'a str,
    /// Calls that it made.
    pub calls: &'a [Json],
}

/// Instructions for the system's message.
#[must_use]
pub fn instructions(tools: &[Json]) -> String {
    let mut text = "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are \
        provided with function signatures within <tools></tools> XML tags:\n<tools>"
        .to_owned();
    for tool in tools {
        // Writing to a text cannot fail.
        let _ = write!(text, "\n{tool}");
    }
    text + "\n</tools>\n\nFor each function call, return a json object with function name and arguments within \
        <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": \
        <args-json-object>}\n</tool_call>"
}

/// A turn as the model would have written or read it: its role and its text.
#[must_use]
pub fn told(turn: &Turn) -> (String, String) {
    match turn.role {
        "tool" => ("user".to_owned(), format!("<tool_response>\n{}\n</tool_response>", turn.content)),
        role => {
            let mut text = turn.content.to_owned();
            for call in turn.calls {
                let (name, arguments) = (&call["function"]["name"], &call["function"]["arguments"]);
                let mut map = Map::new();
                map.insert("name".to_owned(), name.clone());
                map.insert(
                    "arguments".to_owned(),
                    if arguments.is_null() { json!({}) } else { arguments.clone() },
                );
                let line = if text.is_empty() { "" } else { "\n" };
                let _ = write!(text, "{line}<tool_call>\n{}\n</tool_call>", Json::Object(map));
            }
            (role.to_owned(), text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_answers_are_written_as_they_are_read() {
        assert!(instructions(&[json!({ "a": 1 })]).contains("<tools>\n{\"a\":1}\n</tools>"));
        let calls = [json!({ "function": { "name": "now", "arguments": { "a": 1 } } })];
        let turn = Turn { role: "assistant", content: "Hm.", calls: &calls };
        let (role, text) = told(&turn);
        assert_eq!(role, "assistant");
        assert_eq!(text, "Hm.\n<tool_call>\n{\"name\":\"now\",\"arguments\":{\"a\":1}}\n</tool_call>");
        let answer = told(&Turn { role: "tool", content: "12:00", calls: &[] });
        assert_eq!(answer, ("user".into(), "<tool_response>\n12:00\n</tool_response>".into()));
    }
}
