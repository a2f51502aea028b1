//! The grammar of calls, in Lark's syntax, such that what it accepts is what the parser of the same format reads. Pure.

use std::fmt::Write;

use serde_json::{Value as Json, json};

use super::markup::is_text;
use super::{Tool, ToolFormat};

/// Writes literal text and schemas in Lark's syntax; the first knows which of it are special tokens.
pub struct Spelling<'a> {
    /// Literal text.
    pub text: &'a dyn Fn(&str) -> String,
    /// JSON that a schema accepts.
    pub json: &'a dyn Fn(&Json) -> String,
}

/// One call or several, and nothing else.
#[must_use]
pub fn calls(format: ToolFormat, tools: &[Tool], several: bool, spelling: &Spelling) -> String {
    Writer { format, spelling }.grammar(tools, several, false)
}

/// The same for what follows the mark that calls begin with.
#[must_use]
pub fn calls_after_mark(format: ToolFormat, tools: &[Tool], several: bool, spelling: &Spelling) -> String {
    Writer { format, spelling }.grammar(tools, several, true)
}

/// What stands around the calls of a format.
struct Frame {
    /// Before all calls, where it is not before each.
    before: &'static str,
    /// Before each.
    open: &'static str,
    /// After each.
    close: &'static str,
    between: &'static str,
    after: &'static str,
}

impl ToolFormat {
    const fn frame(self) -> Frame {
        let (before, open, close, between, after) = match self {
            Self::Hermes => ("", "<tool_call>\n", "\n</tool_call>", "\n", ""),
            Self::QwenXml => ("", "<tool_call>\n<function=", "</function>\n</tool_call>", "\n", ""),
            Self::Llama => ("", "", "", "; ", ""),
            Self::DeepseekV3 => (
                "<｜tool▁calls▁begin｜>",
                "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
                "\n```<｜tool▁call▁end｜>",
                "\n",
                "<｜tool▁calls▁end｜>",
            ),
            Self::DeepseekV31 => (
                "<｜tool▁calls▁begin｜>",
                "<｜tool▁call▁begin｜>",
                "<｜tool▁call▁end｜>",
                "",
                "<｜tool▁calls▁end｜>",
            ),
            Self::Glm => ("", "<tool_call>", "</tool_call>", "\n", ""),
            Self::Minimax => {
                ("<minimax:tool_call>\n", "<invoke name=\"", "</invoke>\n", "", "</minimax:tool_call>")
            }
            Self::Mistral => ("[TOOL_CALLS][", "", "", ", ", "]"),
            Self::MistralArgs => ("", "[TOOL_CALLS]", "", "", ""),
        };
        Frame { before, open, close, between, after }
    }
}

struct Writer<'a> {
    format: ToolFormat,
    spelling: &'a Spelling<'a>,
}

impl Writer<'_> {
    fn text(&self, text: &str) -> String {
        if text.is_empty() { String::new() } else { (self.spelling.text)(text) }
    }

    fn grammar(&self, tools: &[Tool], several: bool, after_mark: bool) -> String {
        let frame = self.format.frame();
        // The mark is where the first literal begins.
        let mark = self.format.mark().filter(|_| after_mark).unwrap_or_default();
        let cut = |text: &'static str| text.strip_prefix(mark).unwrap_or(text);
        let (before, first) =
            if frame.before.is_empty() { ("", cut(frame.open)) } else { (cut(frame.before), frame.open) };
        let mut rules = String::new();
        let more = if several {
            format!(
                "({} {} any_call {})*",
                self.text(frame.between),
                self.text(frame.open),
                self.text(frame.close)
            )
        } else {
            String::new()
        };
        let (after, end) = (self.text(frame.after), self.text(frame.close));
        let start = [&*self.text(before), &self.text(first), "any_call", &end, &more, &after].join(" ");
        let any: Vec<_> = (0..tools.len()).map(|n| format!("call_{n}")).collect();
        // Writing to a text cannot fail.
        let _ = write!(rules, "start: {start}\nany_call: {}\n", any.join(" | "));
        for (n, tool) in tools.iter().enumerate() {
            let _ = write!(rules, "{}", self.tool(n, tool));
        }
        rules
    }

    fn tool(&self, n: usize, tool: &Tool) -> String {
        let name = &tool.name;
        let quoted = Json::from(name.as_str()).to_string();
        let (before, after) = match self.format {
            ToolFormat::Hermes | ToolFormat::Mistral => {
                (format!("{{\"name\": {quoted}, \"arguments\": "), "}")
            }
            ToolFormat::Llama => (format!("{{\"name\": {quoted}, \"parameters\": "), "}"),
            ToolFormat::DeepseekV3 => (format!("{name}\n```json\n"), ""),
            ToolFormat::DeepseekV31 => (format!("{name}<｜tool▁sep｜>"), ""),
            ToolFormat::MistralArgs => (format!("{name}[ARGS]"), ""),
            ToolFormat::QwenXml => {
                return self.tagged(
                    n,
                    tool,
                    &format!("{name}>\n"),
                    ("<parameter=", ">\n", "\n</parameter>\n"),
                );
            }
            ToolFormat::Glm => {
                return self.tagged(
                    n,
                    tool,
                    &format!("{name}\n"),
                    ("<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n"),
                );
            }
            ToolFormat::Minimax => {
                return self.tagged(
                    n,
                    tool,
                    &format!("{name}\">\n"),
                    ("<parameter name=\"", "\">", "</parameter>\n"),
                );
            }
        };
        let arguments = (self.spelling.json)(&tool.parameters);
        format!("call_{n}: {} args_{n} {}\nargs_{n}: {arguments}\n", self.text(&before), self.text(after))
    }

    /// Arguments between tags: those of the schema, in its order; texts as they are, everything else as JSON.
    fn tagged(&self, n: usize, tool: &Tool, before: &str, (key, value, end): (&str, &str, &str)) -> String {
        let none = serde_json::Map::new();
        let properties = tool.parameters["properties"].as_object().unwrap_or(&none);
        let required = |name: &str| {
            tool.parameters["required"].as_array().is_some_and(|list| list.iter().any(|r| r == name))
        };
        let (mut rules, mut arguments) = (String::new(), String::new());
        for (at, (name, schema)) in properties.iter().enumerate() {
            let may = if required(name) { "" } else { "?" };
            let _ = write!(arguments, " arg_{n}_{at}{may}");
            let begin = self.text(&format!("{key}{name}{value}"));
            let known = schema["enum"].as_array().filter(|_| is_text(schema));
            let _ = match known {
                _ if !is_text(schema) => {
                    let schema = self.with_definitions(schema, &tool.parameters);
                    let json = (self.spelling.json)(&schema);
                    write!(
                        rules,
                        "arg_{n}_{at}: {begin} value_{n}_{at} {}\nvalue_{n}_{at}: {json}\n",
                        self.text(end)
                    )
                }
                Some(values) => {
                    let texts: Vec<_> =
                        values.iter().filter_map(Json::as_str).map(|t| self.text(t)).collect();
                    writeln!(rules, "arg_{n}_{at}: {begin} ({}) {}", texts.join(" | "), self.text(end))
                }
                None => {
                    // Up to where the parser sees the end: the tag, whatever is before it.
                    let tag = end.trim().replace('/', "\\/");
                    let rest = self.text("\n");
                    write!(
                        rules,
                        "arg_{n}_{at}: {begin} text_{n}_{at} {rest}\ntext_{n}_{at}[lazy]: /(?s:.*){tag}/\n"
                    )
                }
            };
        }
        format!("call_{n}: {}{arguments}\n{rules}", self.text(before))
    }

    /// References of a part of a schema are to its whole.
    fn with_definitions(&self, schema: &Json, whole: &Json) -> Json {
        let mut schema = schema.clone();
        for name in ["$defs", "definitions"] {
            if let (Some(map), Some(definitions)) = (schema.as_object_mut(), whole.get(name)) {
                map.insert(name.to_owned(), definitions.clone());
            }
        }
        if schema.is_object() { schema } else { json!(true) }
    }
}
