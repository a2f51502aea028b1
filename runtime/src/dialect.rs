//! How families of models write reasoning and calls of tools into their text.
//!
//! In: the text of an answer as it comes. Out: what of it is reasoning, content, and calls.
//! One definition per family gives both the parser ([`Reader`]) and the grammar ([`calls()`]) of its calls. It must not
//! know tokens, requests or HTTP.
//!
//! # Which dialect
//! A chat template shows its model how to write, so the dialect is read from it: see [`ToolFormat::detect`] and
//! [`thinks`]. The flags `--tool-parser` and `--reasoning-parser` say otherwise where a template is not enough.

mod calls;
mod format;
mod markup;
mod reader;
pub mod teach;

use std::str::FromStr;

use serde_json::Value as Json;

pub use calls::{Spelling, calls, calls_after_mark};
pub use format::ToolFormat;
pub use reader::{Delta, Reader};

/// What opens reasoning, in all families that we serve.
pub const THINK: &str = "<think>";
/// What closes it.
pub const END_THINK: &str = "</think>";

/// How one model writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    /// How it calls tools; absent: it does not.
    pub tools: Option<ToolFormat>,
    /// Whether it may reason before it answers, between [`THINK`] and [`END_THINK`].
    pub thinks: bool,
}

impl Dialect {
    /// The dialect that a chat template teaches.
    #[must_use]
    pub fn detect(template: &str) -> Self {
        Self { tools: ToolFormat::detect(template), thinks: thinks(template) }
    }
}

/// Whether a template knows reasoning: it strips it from earlier turns, or opens it.
#[must_use]
pub fn thinks(template: &str) -> bool {
    template.contains(END_THINK)
}

/// What a flag says about calls of tools: the name of a format, or that there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolParser(pub Option<ToolFormat>);

/// What a flag says about reasoning: that there is some, by any name that vLLM has for it, or that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasoningParser(pub bool);

/// Names of vLLM's reasoning parsers that read what is between [`THINK`] and [`END_THINK`].
const REASONING_NAMES: [&str; 5] = ["think", "qwen3", "deepseek_r1", "glm45", "minimax_m2"];
/// The name of no parser.
const NONE: &str = "none";

impl FromStr for ToolParser {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == NONE { Ok(Self(None)) } else { text.parse().map(|format| Self(Some(format))) }
    }
}

impl FromStr for ReasoningParser {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = REASONING_NAMES.contains(&text);
        let names = || format!("expected one of: {NONE}, {}", REASONING_NAMES.join(", "));
        if known || text == NONE { Ok(Self(known)) } else { Err(names()) }
    }
}

/// What was said about a dialect, whatever the template shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// About calls of tools.
    pub tools: Option<ToolParser>,
    /// About reasoning.
    pub reasoning: Option<ReasoningParser>,
}

impl Said {
    /// What was said, and else what was found.
    #[must_use]
    pub fn or(self, found: Dialect) -> Dialect {
        Dialect {
            tools: self.tools.map_or(found.tools, |ToolParser(tools)| tools),
            thinks: self.reasoning.map_or(found.thinks, |ReasoningParser(thinks)| thinks),
        }
    }
}

/// A function that a model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// The schema of its arguments.
    pub parameters: Json,
    /// Whether its arguments have to be as the schema says.
    pub strict: bool,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The tool.
    pub name: String,
    /// JSON of an object.
    pub arguments: String,
}

#[cfg(test)]
mod tests;
