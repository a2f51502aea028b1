//! Reads an answer as it comes. Pure.
//!
//! What it has said is a function of all text so far, however the text was cut: it only gives out what no further text
//! can change. A call is given out when it is complete. What looks like the beginning of a call and never becomes one
//! was content after all.

use super::format::Marks;
use super::{Call, Dialect, END_THINK, THINK, Tool, ToolFormat, markup};

/// How often the end of a call is looked for further on where what came so far is none: a mark may stand in a string.
const TRIES: usize = 16;

/// What an answer has more of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// Reasoning.
    Reasoning(String),
    /// Text for the user.
    Content(String),
    /// A whole call, the next of the answer.
    Call(Call),
}

/// Reads one answer.
#[derive(Clone, Debug)]
pub struct Reader {
    dialect: Dialect,
    tools: Vec<Tool>,
    state: State,
    /// Text that has not been given out.
    held: String,
    /// The mark that opened calls, and the white space before it, in case that they are none.
    opening: String,
    deltas: Vec<Delta>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Reasoning may begin.
    Start,
    /// In it; whether any of it was given out.
    Reasoning { begun: bool },
    /// White space here belongs to nothing.
    Gap,
    /// Content; whether a call may be without a mark, since nothing came before it.
    Content { bare: bool },
    /// Text that may be calls; where its end is looked for, and how often that has failed.
    Calls { from: usize, tries: usize },
    /// Content in which nothing means anything.
    Plain,
}

impl Reader {
    /// For an answer with these tools, none where none may be called. `inside`: the prompt has opened reasoning.
    #[must_use]
    pub fn new(dialect: Dialect, tools: Vec<Tool>, inside: bool) -> Self {
        let dialect = Dialect { tools: dialect.tools.filter(|_| !tools.is_empty()), ..dialect };
        let state = match dialect {
            Dialect { thinks: true, .. } if inside => State::Reasoning { begun: false },
            Dialect { thinks: true, .. } => State::Start,
            Dialect { tools: None, .. } => State::Plain,
            Dialect { tools: Some(_), .. } => State::Content { bare: true },
        };
        Self { dialect, tools, state, held: String::new(), opening: String::new(), deltas: Vec::new() }
    }

    /// More text.
    pub fn push(&mut self, text: &str) -> Vec<Delta> {
        self.held.push_str(text);
        while self.step() {}
        std::mem::take(&mut self.deltas)
    }

    /// The end. `whole`: the model has ended the answer; else it was cut off, and an open call is none.
    pub fn finish(&mut self, whole: bool) -> Vec<Delta> {
        let held = std::mem::take(&mut self.held);
        match (self.state, self.dialect.tools) {
            (State::Calls { .. }, Some(format)) => {
                match markup::parse(format, &held, &self.tools).filter(|_| whole) {
                    Some(calls) => self.deltas.extend(calls.into_iter().map(Delta::Call)),
                    None => self.content(&[&self.opening, &*held].concat()),
                }
            }
            (State::Reasoning { .. }, _) => self.reasoning(&held),
            (State::Gap, _) => {}
            _ => self.content(&held),
        }
        self.state = State::Plain;
        std::mem::take(&mut self.deltas)
    }

    /// Goes on by one state, or says that more text is needed.
    fn step(&mut self) -> bool {
        match (self.state, self.dialect.tools) {
            (State::Start, _) => self.start(),
            (State::Reasoning { begun }, _) => self.in_reasoning(begun),
            (State::Gap, tools) => {
                self.held.drain(..self.held.len() - self.held.trim_start().len());
                let next = if tools.is_some() { State::Content { bare: true } } else { State::Plain };
                !self.held.is_empty() && self.enter(next)
            }
            (State::Content { bare: true }, Some(ToolFormat::Llama)) => self.bare(),
            (State::Content { .. }, Some(format)) => self.in_content(format.marks()),
            (State::Calls { from, tries }, Some(format)) => self.in_calls(format, from, tries),
            (State::Plain | State::Content { .. } | State::Calls { .. }, _) => {
                let held = std::mem::take(&mut self.held);
                self.content(&held);
                false
            }
        }
    }

    fn enter(&mut self, state: State) -> bool {
        self.state = state;
        true
    }

    fn start(&mut self) -> bool {
        let text = self.held.trim_start();
        if let Some(rest) = text.strip_prefix(THINK) {
            self.held = rest.to_owned();
            return self.enter(State::Reasoning { begun: false });
        }
        let next = if self.dialect.tools.is_some() { State::Content { bare: true } } else { State::Plain };
        !THINK.starts_with(text) && self.enter(next)
    }

    fn in_reasoning(&mut self, begun: bool) -> bool {
        if !begun {
            self.held.drain(..self.held.len() - self.held.trim_start().len());
        }
        if let Some(at) = self.held.find(END_THINK) {
            let rest = self.held.split_off(at + END_THINK.len());
            let reasoning = std::mem::replace(&mut self.held, rest);
            self.reasoning(reasoning[..at].trim_end());
            return self.enter(State::Gap);
        }
        let certain = certain(&self.held, END_THINK);
        let rest = self.held.split_off(certain);
        let reasoning = std::mem::replace(&mut self.held, rest);
        self.state = State::Reasoning { begun: begun || !reasoning.is_empty() };
        self.reasoning(&reasoning);
        false
    }

    /// Llama's calls have no mark: an answer that begins as JSON may be one.
    fn bare(&mut self) -> bool {
        let text = self.held.trim_start();
        if text.starts_with('{') {
            self.opening.clear();
            return self.enter(State::Calls { from: 0, tries: 0 });
        }
        !text.is_empty() && self.enter(State::Content { bare: false })
    }

    fn in_content(&mut self, marks: Marks) -> bool {
        if let Some(at) = self.held.find(marks.open) {
            let rest = self.held.split_off(at + marks.open.len());
            let content = std::mem::replace(&mut self.held, rest);
            let before = content[..at].trim_end();
            self.opening = content[before.len()..].to_owned();
            self.content(before);
            return self.enter(State::Calls { from: 0, tries: 0 });
        }
        let certain = certain(&self.held, marks.open);
        let rest = self.held.split_off(certain);
        let content = std::mem::replace(&mut self.held, rest);
        self.content(&content);
        false
    }

    fn in_calls(&mut self, format: ToolFormat, from: usize, tries: usize) -> bool {
        let Marks { close: Some(close), .. } = format.marks() else { return false };
        let Some(at) = self.held[from..].find(close).map(|at| from + at) else {
            // Only the beginning of a mark can be in what has been looked at.
            let from = self.held.floor_char_boundary(self.held.len().saturating_sub(close.len())).max(from);
            self.state = State::Calls { from, tries };
            return false;
        };
        let end = at + close.len();
        if let Some(calls) = markup::parse(format, &self.held[..at], &self.tools) {
            self.deltas.extend(calls.into_iter().map(Delta::Call));
            self.held.drain(..end);
            return self.enter(State::Gap);
        }
        if tries + 1 == TRIES {
            self.held.insert_str(0, &self.opening);
            return self.enter(State::Plain);
        }
        self.enter(State::Calls { from: end, tries: tries + 1 })
    }

    fn reasoning(&mut self, text: &str) {
        if !text.is_empty() {
            self.deltas.push(Delta::Reasoning(text.to_owned()));
        }
    }

    fn content(&mut self, text: &str) {
        if !text.is_empty() {
            self.deltas.push(Delta::Content(text.to_owned()));
        }
    }
}

/// Bytes of a text that neither belong to a mark that may be coming, nor are white space before it.
fn certain(text: &str, mark: &str) -> usize {
    let longest = text.len().min(mark.len() - 1);
    let ends = |n: &usize| text.as_bytes().ends_with(&mark.as_bytes()[..*n]);
    let overlap = (1..=longest).rev().find(ends).unwrap_or(0);
    text[..text.len() - overlap].trim_end().len()
}
