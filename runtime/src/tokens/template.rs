//! The checkpoint's chat template: Jinja as Hugging Face's `apply_chat_template` runs it.
//! Source: `transformers`, `utils/chat_template_utils.py`.
//!
//! In: messages. Out: the text of the prompt.
//! A template comes with the weights, so it is bounded: it has fuel, and reaches nothing but its arguments.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::Serialize;

/// Steps that a template may take; real ones take a few hundred a message.
const FUEL: u64 = 20_000_000;
const NAME: &str = "chat";

/// One turn of a conversation, as templates see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Whose turn.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// A compiled template.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

/// What a template said when it failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(String);

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
        environment.add_template_owned(NAME, source)?;
        Ok(Self { environment, bos: bos.unwrap_or_default(), eos: eos.unwrap_or_default() })
    }

    /// The prompt for the assistant's next turn.
    pub fn render(&self, messages: &[Message]) -> Result<String, TemplateError> {
        let template = self.environment.get_template(NAME)?;
        Ok(template.render(context! {
            messages => Serde(messages),
            add_generation_prompt => true,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            tools => Value::from(()),
            documents => Value::from(()),
        })?)
    }
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

    fn render(source: &str) -> Result<String, TemplateError> {
        let message = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
        let messages = [message("system", "  Be \"brief\" & <kind>. "), message("user", "Hi")];
        Template::new(source.into(), Some("<s>".into()), Some("</s>".into()))?.render(&messages)
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
    }
}
