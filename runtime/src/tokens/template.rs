//! The checkpoint's chat template: Jinja as Hugging Face's `apply_chat_template` runs it.
//! Source: `transformers`, `utils/chat_template_utils.py`.
//!
//! In: a conversation. Out: the text of the prompt.
//! A template comes with the weights, and what it renders with a client, so it is bounded: it has fuel and a longest
//! output, and reaches nothing but its arguments.

use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::{Map, Value as Json, json};

/// Steps that a template may take; real ones take a few hundred a message.
const FUEL: u64 = 20_000_000;
/// Longest prompt: a few times the longest body of a request, since templates repeat little.
const LONGEST: usize = 32 << 20;
const NAME: &str = "chat";

/// Names that a template is given, and that no client may take.
pub const RESERVED: [&str; 7] = [
    "messages",
    "tools",
    "documents",
    "bos_token",
    "eos_token",
    "add_generation_prompt",
    "continue_final_message",
];

/// One turn of a conversation, as templates see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Whose turn.
    pub role: String,
    /// What was said.
    pub content: String,
    /// What else there is of it: reasoning, calls of tools, which call it answers.
    #[serde(flatten)]
    pub more: Map<String, Json>,
}

impl Message {
    /// Something that was said.
    #[must_use]
    pub fn new(role: &str, content: &str) -> Self {
        Self { role: role.to_owned(), content: content.to_owned(), more: Map::new() }
    }
}

/// A conversation, and what a template may do with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chat {
    /// Turns; not empty.
    pub messages: Vec<Message>,
    /// Tools that the model may call, as clients describe them.
    pub tools: Vec<Json>,
    /// Settings of the template's own.
    pub settings: Map<String, Json>,
    /// Whether the answer goes on with the last message, instead of being the assistant's next.
    pub continues: bool,
}

impl Chat {
    /// Bytes of everything that the prompt is made of.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let size = |map: &Map<String, Json>| if map.is_empty() { 0 } else { json!(map).to_string().len() };
        let messages: usize = self.messages.iter().map(|m| m.content.len() + size(&m.more)).sum();
        messages + self.tools.iter().map(|tool| tool.to_string().len()).sum::<usize>() + size(&self.settings)
    }
}

impl From<Vec<Message>> for Chat {
    fn from(messages: Vec<Message>) -> Self {
        Self { messages, ..Self::default() }
    }
}

/// A compiled template.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
}

/// What a template said when it failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(pub(super) String);

impl From<Error> for TemplateError {
    fn from(error: Error) -> Self {
        // `Display` of the engine's error has kind, detail and line; its source adds nothing for a client.
        Self(error.to_string())
    }
}

impl Template {
    /// Compiles a template for a tokenizer with these special tokens.
    pub fn new(source: String, bos: Option<String>, eos: Option<String>) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", tojson);
        environment.add_test("iterable", iterable);
        environment.add_template_owned(NAME, without_generation(&source))?;
        Ok(Self { environment, source, bos: bos.unwrap_or_default(), eos: eos.unwrap_or_default() })
    }

    /// Its text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What of a conversation the template reads. Instructions of a developer are the system's where it knows no
    /// developer.
    pub(super) fn inputs(&self, chat: &Chat) -> Json {
        let developer = self.source.contains("developer");
        let mut messages = json!(chat.messages);
        for message in messages.as_array_mut().into_iter().flatten() {
            if message["role"] == "developer" && !developer {
                message["role"] = "system".into();
            }
        }
        let mut inputs = chat.settings.clone();
        let tools = if chat.tools.is_empty() { Json::Null } else { json!(chat.tools) };
        inputs.insert("messages".into(), messages);
        inputs.insert("tools".into(), tools);
        inputs.insert("documents".into(), Json::Null);
        Json::Object(inputs)
    }

    /// The prompt from what [`Template::inputs`] gave.
    pub(super) fn render(&self, mut inputs: Json, continues: bool) -> Result<String, TemplateError> {
        let last = inputs["messages"].as_array().and_then(|list| list.last());
        let last = last.and_then(|message| message["content"].as_str()).unwrap_or_default().trim().to_owned();
        if let Some(map) = inputs.as_object_mut() {
            map.insert("bos_token".into(), self.bos.as_str().into());
            map.insert("eos_token".into(), self.eos.as_str().into());
            map.insert("add_generation_prompt".into(), (!continues).into());
        }
        let mut output = Output(Vec::new());
        let template = self.environment.get_template(NAME)?;
        template.render_captured_to(Value::from(Serde(inputs)), &mut output)?;
        let mut text = String::from_utf8(output.0).map_err(|error| TemplateError(error.to_string()))?;
        if continues {
            let end = text.rfind(&last).map(|at| at + last.len()).filter(|_| !last.is_empty());
            text.truncate(
                end.ok_or_else(|| TemplateError("it leaves out the message to go on with".into()))?,
            );
        }
        Ok(text)
    }
}

/// As much as a prompt may have.
struct Output(Vec<u8>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST {
            return Err(io::Error::other(format!("the prompt has more than {LONGEST} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As in Python, where nothing is not iterable.
fn iterable(value: &Value) -> bool {
    !value.is_none() && !value.is_undefined() && value.try_iter().is_ok()
}

/// The tags that say what a model is trained on mean nothing here.
fn without_generation(source: &str) -> String {
    let (mut text, mut rest) = (String::with_capacity(source.len()), source);
    while let Some((before, after)) = rest.split_once("{%") {
        let Some((tag, after)) = after.split_once("%}") else { break };
        let tag = match tag.trim_matches(['-', '+']).trim() {
            "generation" => tag.replace("generation", "if true"),
            "endgeneration" => tag.replace("endgeneration", "endif"),
            _ => tag.to_owned(),
        };
        text.extend([before, "{%", &tag, "%}"]);
        rest = after;
    }
    text + rest
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// The date, which some templates tell the model. UTC, since a replica has no place.
fn strftime_now(format: &str) -> Result<String, Error> {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    jiff::fmt::strtime::format(format, &now)
        .map_err(|e| Error::new(ErrorKind::InvalidOperation, e.to_string()))
}

/// Python's `json.dumps`: the engine's own filter, without its escapes for HTML.
fn tojson(value: &Value, indent: Option<Value>, args: Kwargs) -> Result<Value, Error> {
    // Hugging Face's filter never escapes what is not ASCII; templates say so all the same.
    args.get::<Option<Value>>("ensure_ascii")?;
    if args.get::<Option<Value>>("separators")?.is_some() {
        // Without spaces is what the only separators that templates ask for say.
        return serde_json::to_string(&Serde(value).0)
            .map(Value::from_safe_string)
            .map_err(|e| Error::new(ErrorKind::InvalidOperation, e.to_string()));
    }
    let escaped = minijinja::filters::tojson(value, indent, args)?;
    let mut rest = escaped.as_str().unwrap_or_default();
    let mut text = String::with_capacity(rest.len());
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        // Escapes are taken whole, so that an escaped backslash never pairs with what follows it.
        let html = rest.get(at + 1..at + 6).and_then(|code| match code {
            "u003c" => Some('<'),
            "u003e" => Some('>'),
            "u0026" => Some('&'),
            "u0027" => Some('\''),
            _ => None,
        });
        let taken = if html.is_some() { 6 } else { 2 };
        match html {
            Some(c) => text.push(c),
            None => text.push_str(&rest[at..at + taken]),
        }
        rest = &rest[at + taken..];
    }
    text.push_str(rest);
    Ok(Value::from_safe_string(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(source: &str, chat: &Chat) -> Result<String, TemplateError> {
        let template = Template::new(source.into(), Some("<s>".into()), Some("</s>".into()))?;
        template.render(template.inputs(chat), chat.continues)
    }

    fn render(source: &str) -> Result<String, TemplateError> {
        let messages = vec![Message::new("system", "  Be \"brief\" & <kind>. "), Message::new("user", "Hi")];
        rendered(source, &messages.into())
    }

    #[test]
    fn tools_and_settings_reach_the_template() {
        let tool =
            json!({ "type": "function", "function": { "name": "now", "parameters": { "z": 1, "a": [] } } });
        let settings = json!({ "enable_thinking": false }).as_object().unwrap().clone();
        let mut call = Message::new("assistant", "");
        call.more
            .insert("tool_calls".into(), json!([{ "function": { "arguments": { "b": 1, "a": "<é>" } } }]));
        let chat = Chat { messages: vec![call], tools: vec![tool], settings, continues: false };
        for (source, expected) in [
            (
                "{{ tools[0] | tojson }}",
                r#"{"type": "function", "function": {"name": "now", "parameters": {"z": 1, "a": []}}}"#,
            ),
            (
                "{{ messages[0].tool_calls[0].function.arguments | tojson(ensure_ascii=False) }}",
                r#"{"b": 1, "a": "<é>"}"#,
            ),
            ("{{ tools[0].function.parameters | tojson(separators=(',', ':')) }}", r#"{"z":1,"a":[]}"#),
            (
                "{% for k, v in messages[0].tool_calls[0].function.arguments.items() %}{{ k }}{% endfor %}",
                "ba",
            ),
            ("{{ enable_thinking is false }}{{ add_generation_prompt }}{{ bos_token }}", "TrueTrue<s>"),
        ] {
            assert_eq!(rendered(source, &chat).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn a_developer_is_the_system_where_nobody_knows_developers() {
        let chat: Chat = vec![Message::new("developer", "x")].into();
        assert_eq!(rendered("{{ messages[0].role }}", &chat).unwrap(), "system");
        assert_eq!(rendered("{{ messages[0].role }}{# developer #}", &chat).unwrap(), "developer");
    }

    #[test]
    fn the_last_message_can_be_gone_on_with() {
        let source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
        let messages = vec![Message::new("user", "a"), Message::new("assistant", " Once ")];
        let chat = Chat { messages, continues: true, ..Chat::default() };
        assert_eq!(rendered(source, &chat).unwrap(), "<user>a</s><assistant> Once");
        assert!(rendered("x", &chat).unwrap_err().to_string().contains("leaves out"));
    }

    #[test]
    fn what_real_templates_use_works() {
        let cases = [
            ("{{ bos_token }}{{ messages[0]['content'].strip() }}", "<s>Be \"brief\" & <kind>."),
            (
                "{% for m in messages %}\n  {% if m.role == 'user' %}\n{{ m.content }}{% endif %}\n{% endfor %}",
                "Hi",
            ),
            (
                "{%- for m in messages -%}{%- if loop.first -%}{%- continue -%}{%- endif -%}{{ loop.index0 }}{%- endfor -%}",
                "1",
            ),
            ("{% if tools %}t{% elif tools is none %}n{% endif %}", "n"),
            (
                "{% if tools is iterable and tools | length > 0 %}t{% endif %}{{ messages is iterable }}",
                "True",
            ),
            ("b {%- generation %}a{% endgeneration %}{{ messages | length }}", "ba2"),
            ("{{ messages[0] | tojson }}", r#"{"role": "system", "content": "  Be \"brief\" & <kind>. "}"#),
            ("{{ 'a\\\\u003cb' | tojson }}", r#""a\\u003cb""#),
            (
                "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
                "2",
            ),
            ("{{ messages[1]['content'] + '!' + eos_token }}{{ missing }}", "Hi!</s>"),
            ("{{ messages[-1].content.startswith('H') and not messages[0].get('name') }}", "True"),
            (
                "{{ 'a,b'.split(',')[1] }}{{ messages | length }}{{ messages[1:] | map(attribute='role') | first }}",
                "b2user",
            ),
        ];
        for (source, expected) in cases {
            assert_eq!(render(source).unwrap(), expected, "{source}");
        }
        let date = render("{{ strftime_now('%Y-%m-%d') }}").unwrap();
        assert!(date.len() == 10 && date.starts_with("20"), "{date}");
    }

    #[test]
    fn templates_fail_in_words_and_in_bounded_time() {
        let raised = render("{{ raise_exception('Only user and assistant roles!') }}").unwrap_err();
        assert!(raised.to_string().contains("Only user and assistant roles!"), "{raised}");
        assert!(render("{% for m in messages %}").is_err());
        assert!(render("{{ strftime_now('%') }}").is_err());
        let nested = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
        assert!(render(nested).unwrap_err().to_string().contains("fuel"));
        let long = "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}";
        assert!(render(long).is_err());
    }
}
