//! What one answer may look like and how it is read: a request's wishes and a model's dialect become a constraint for
//! the engine, and a reader for the text.
//!
//! In: tools, a format, and the end of the prompt. Out: a [`Guide`]. It must not know sequences or HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::dialect::teach::{Turn, instructions, told};
use crate::dialect::{
    Dialect, END_THINK, Reader, Said, Spelling, THINK, ToolFormat, calls, calls_after_mark,
};
use crate::engine::constraint::Constraint;
use crate::grammar::{Grammar, GrammarError, Grammars, Thinking, json_in_lark};
use crate::request::Tools;
use crate::tokens::{Chat, Message, Tokens};

/// How a model writes calls if its template does not show any.
const TAUGHT: ToolFormat = ToolFormat::Hermes;

/// What guides all answers of one model.
#[derive(Debug)]
pub struct Guides {
    /// Its tokens.
    pub tokens: Arc<Tokens>,
    /// Compiles grammars for them.
    pub grammars: Grammars,
    /// How it writes.
    pub dialect: Dialect,
}

/// What guides one answer.
#[derive(Debug)]
pub struct Guide {
    /// What tokens may come; absent: all.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Reads its text.
    pub reader: Reader,
    /// Special tokens that are part of its text.
    pub kept: Arc<BTreeMap<u32, String>>,
}

impl Guides {
    /// For a model whose dialect is that of its template, where nothing else was said.
    ///
    /// # Errors
    /// Where no grammar can be made for its tokens.
    pub fn new(tokens: Arc<Tokens>, said: Said) -> Result<Self, GrammarError> {
        let dialect = said.or(tokens.template_source().map(Dialect::detect).unwrap_or_default());
        Ok(Self { grammars: Grammars::new(tokens.clone())?, tokens, dialect })
    }

    /// What the template is given of a conversation: where it knows no tools, they are said in words.
    #[must_use]
    pub fn taught(&self, mut chat: Chat) -> Chat {
        if self.tokens.template_source().is_none_or(|source| source.contains("tools")) {
            return chat;
        }
        for message in &mut chat.messages {
            let calls = message.more.remove("tool_calls").unwrap_or_default();
            let calls = calls.as_array().map_or(&[][..], Vec::as_slice);
            let turn = Turn { role: &message.role, content: &message.content, calls };
            (message.role, message.content) = told(&turn);
        }
        if !chat.tools.is_empty() {
            let text = instructions(&std::mem::take(&mut chat.tools));
            match chat.messages.first_mut().filter(|first| ["system", "developer"].contains(&&*first.role)) {
                Some(first) => first.content = format!("{}\n\n{text}", first.content),
                None => chat.messages.insert(0, Message::new("system", &text)),
            }
        }
        chat
    }

    /// The guide of an answer to a conversation whose prompt ends like this.
    ///
    /// # Errors
    /// Where the grammar is not accepted.
    pub async fn chat(
        &self,
        tools: &Tools,
        format: Option<Grammar>,
        end: &str,
    ) -> Result<Guide, GrammarError> {
        // Reasoning that the prompt has closed already does not come again.
        let thinks = self.dialect.thinks && !end.ends_with(END_THINK);
        let inside = thinks && end.ends_with(THINK);
        let written = self.dialect.tools.unwrap_or(TAUGHT);
        let dialect = Dialect { tools: Some(written), thinks };
        let marks = if tools.callable.is_empty() { &[] } else { written.spelled() };
        let kept =
            self.tokens.special_among(&[marks, &[THINK, END_THINK][..if thinks { 2 } else { 0 }]].concat());
        let constraint = match self.grammar(written, tools, format) {
            None => None,
            Some((grammar, from)) => {
                let guided = self.grammars.compile(grammar).await?;
                let ids = |text: &str| self.tokens.encode_mark(text);
                let thinking = match from {
                    From::Mark(mark) => Some(Thinking { open: Vec::new(), close: ids(mark), inside: true }),
                    From::Answer if thinks => {
                        Some(Thinking { open: ids(THINK), close: ids(END_THINK), inside })
                    }
                    From::Answer => None,
                };
                let guided = match thinking {
                    Some(thinking) => guided.after(thinking),
                    None => guided,
                };
                Some(Box::new(guided) as Box<dyn Constraint>)
            }
        };
        Ok(Guide {
            constraint,
            reader: Reader::new(dialect, tools.callable.clone(), inside),
            kept: Arc::new(kept),
        })
    }

    /// The constraint of an answer that goes on with a text.
    ///
    /// # Errors
    /// Where the grammar is not accepted.
    pub async fn text(&self, format: Grammar) -> Result<Box<dyn Constraint>, GrammarError> {
        Ok(Box::new(self.grammars.compile(format).await?))
    }

    fn grammar(
        &self,
        written: ToolFormat,
        tools: &Tools,
        format: Option<Grammar>,
    ) -> Option<(Grammar, From)> {
        let text = |text: &str| self.spelled(text);
        let spelling = Spelling { text: &text, json: &json_in_lark };
        let calls = || calls(written, &tools.callable, tools.several, &spelling);
        if tools.required {
            return Some((Grammar::Lark(calls()), From::Answer));
        }
        if tools.callable.is_empty() {
            return format.map(|format| (format, From::Answer));
        }
        let answer = match format {
            Some(Grammar::JsonObject) => json_in_lark(&serde_json::json!({ "type": "object" })),
            Some(Grammar::JsonSchema { schema, .. }) => json_in_lark(&schema),
            Some(other) => return Some((other, From::Answer)),
            None => {
                let strict = tools.callable.iter().any(|tool| tool.strict);
                let mark = written.mark().filter(|_| strict)?;
                // Only those that ask for it have to be kept to.
                let loose = |tool: &crate::dialect::Tool| {
                    let parameters = if tool.strict { tool.parameters.clone() } else { any_object() };
                    crate::dialect::Tool { parameters, ..tool.clone() }
                };
                let callable: Vec<_> = tools.callable.iter().map(loose).collect();
                let after = calls_after_mark(written, &callable, tools.several, &spelling);
                return Some((Grammar::Lark(after), From::Mark(mark)));
            }
        };
        // Either calls, or the answer.
        let either = format!("start: calls | answer\nanswer: {answer}\n");
        Some((Grammar::Lark(either + &calls().replacen("start:", "calls:", 1)), From::Answer))
    }

    /// Literal text in Lark's syntax: special tokens by their numbers.
    fn spelled(&self, text: &str) -> String {
        let pieces = self.tokens.split_special(text);
        let spelled = pieces.into_iter().map(|(id, text)| match id {
            Some(id) => format!("<[{id}]>"),
            None => Json::from(text).to_string(),
        });
        spelled.collect::<Vec<_>>().join(" ")
    }
}

fn any_object() -> Json {
    serde_json::json!({ "type": "object" })
}

/// Where the grammar begins.
enum From {
    /// After any reasoning.
    Answer,
    /// After this mark, if it comes.
    Mark(&'static str),
}

#[cfg(test)]
mod tests;
