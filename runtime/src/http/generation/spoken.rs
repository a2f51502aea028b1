//! What an answer's text says: reasoning, content, calls.
//!
//! In: what a client wishes, and text. Out: [`Part`]s.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::error::ApiError;
use super::Part;
use crate::dialect::{Delta, Reader};
use crate::engine::constraint::Constraint;
use crate::grammar::{Grammar, GrammarError};
use crate::guide::{Guide, Guides};
use crate::request::{Invalid, InvalidKind, Wishes};

/// An answer's text on its way to the client.
#[derive(Clone, Debug)]
pub(super) struct Spoken {
    /// Absent where text is text.
    reader: Option<Reader>,
    reasoning: bool,
    /// Most calls.
    most: usize,
    /// Calls so far.
    pub(super) calls: usize,
    /// Special tokens that are part of the text.
    pub(super) kept: Arc<BTreeMap<u32, String>>,
}

impl Spoken {
    /// What more text says.
    pub(super) fn push(&mut self, text: String) -> Vec<Part> {
        let deltas = match &mut self.reader {
            None if text.is_empty() => Vec::new(),
            None => vec![Delta::Content(text)],
            Some(reader) => reader.push(&text),
        };
        self.parts(deltas)
    }

    /// What the end of the text says. `whole`: the model has ended the answer, and was not cut off.
    pub(super) fn finish(&mut self, whole: bool) -> Vec<Part> {
        let deltas = self.reader.as_mut().map(|reader| reader.finish(whole)).unwrap_or_default();
        self.parts(deltas)
    }

    fn parts(&mut self, deltas: Vec<Delta>) -> Vec<Part> {
        let part = |delta| match delta {
            Delta::Reasoning(text) => self.reasoning.then_some(Part::Reasoning(text)),
            Delta::Content(text) => Some(Part::Text(text, Vec::new())),
            Delta::Call(call) => {
                let index = self.calls;
                self.calls += usize::from(index < self.most);
                (index < self.most).then_some(Part::Call(index, call))
            }
        };
        deltas.into_iter().filter_map(part).collect()
    }
}

/// What guides an answer to a conversation whose prompt ends like this, or else to a text.
pub(super) async fn guided(
    guides: &Guides,
    end: Option<&str>,
    wishes: &Wishes,
) -> Result<(Option<Box<dyn Constraint>>, Spoken), ApiError> {
    let Wishes { format, tools, include_reasoning } = wishes;
    let refused = |error: GrammarError| {
        let param = param(format.as_ref());
        ApiError::from(Invalid::new(InvalidKind::Value, param, format!("{param} is not accepted: {error}")))
    };
    let spoken =
        Spoken { reader: None, reasoning: *include_reasoning, most: 0, calls: 0, kept: Arc::default() };
    match (end, format.clone()) {
        (None, None) => Ok((None, spoken)),
        (None, Some(format)) => Ok((Some(guides.text(format).await.map_err(refused)?), spoken)),
        (Some(end), format) => {
            let Guide { constraint, reader, kept } =
                guides.chat(tools, format, end).await.map_err(refused)?;
            let most = if tools.several { usize::MAX } else { 1 };
            Ok((constraint, Spoken { reader: Some(reader), most, kept, ..spoken }))
        }
    }
}

/// The field that a grammar came in.
const fn param(format: Option<&Grammar>) -> &'static str {
    match format {
        Some(Grammar::JsonObject | Grammar::JsonSchema { .. }) => "response_format",
        Some(Grammar::Regex(_) | Grammar::Choice(_) | Grammar::Lark(_)) => "structured_outputs",
        None => "tools",
    }
}
