//! What an answer has to look like: JSON, a schema, a regular expression, a choice, a grammar.
//!
//! In: a [`Grammar`] from a client. Out: a [`Guided`], which says token by token what may come next.
//! Grammars are compiled by llguidance, off the threads that serve, one at a time, within limits of size, work and
//! time, and kept by their digest. It must not know requests, sequences or HTTP.

mod check;
mod guided;
mod vocabulary;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::InferenceCapabilities;
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, oneshot};

use crate::tokens::Tokens;
pub use guided::{Guided, Thinking};

/// Most bytes of a grammar, in whatever language.
pub const MAX_BYTES: usize = 256 << 10;
/// Most texts of a choice.
pub const MAX_CHOICES: usize = 4096;
/// Compiled grammars that are kept.
const KEPT: usize = 32;
/// Longest time that a client waits for its grammar, with those of others before it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Stack of the thread that compiles: what recursion the limits of depth allow.
const STACK: usize = 32 << 20;
/// White space between two parts of JSON: enough for any usual indentation, and no place to be lost in for ever.
const JSON_SPACE: &str = r"[\x20\x0A\x0D\x09]{1,32}";

/// What an answer has to look like.
#[derive(Clone, Debug, PartialEq)]
pub enum Grammar {
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema accepts.
    JsonSchema {
        /// The schema.
        schema: Json,
        /// Whether a keyword that cannot be kept to is an error; else it is passed over.
        strict: bool,
    },
    /// Text that a regular expression matches as a whole.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A grammar in llguidance's kind of Lark.
    Lark(String),
}

/// A grammar that is refused, in words for its author.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// Larger than may be.
    #[error("it has {found} {what}, and at most {limit} are allowed")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: usize,
        /// How much there may be.
        limit: usize,
    },
    /// Not a grammar.
    #[error("{0}")]
    Malformed(String),
    /// Its work is more than is done for one request.
    #[error("it takes more work to compile than is allowed")]
    TooSlow,
}

/// Compiles grammars for one tokenizer.
pub struct Grammars {
    factory: Arc<ParserFactory>,
    kept: Mutex<Kept>,
    turn: Semaphore,
}

impl std::fmt::Debug for Grammars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}

impl Grammars {
    /// For the tokens of a checkpoint.
    ///
    /// # Errors
    /// Where the tokenizer's vocabulary cannot be made into a trie.
    pub fn new(tokens: Arc<Tokens>) -> Result<Self, GrammarError> {
        let environment = vocabulary::environment(tokens)?;
        // Without slices masks take longer, but the vocabulary is held once and not five times.
        let factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &[]);
        let mut factory = factory.map_err(|error| GrammarError::Malformed(error.to_string()))?;
        *factory.limits_mut() = limits();
        factory.quiet();
        let (kept, turn) = (Mutex::new(Kept::default()), Semaphore::new(1));
        Ok(Self { factory: Arc::new(factory), kept, turn })
    }

    /// Compiles a grammar, or finds it.
    pub async fn compile(&self, grammar: Grammar) -> Result<Guided, GrammarError> {
        let source = source(&grammar)?;
        let digest: [u8; 32] = Sha256::digest(&source).into();
        if let Some(found) = self.found(&digest) {
            return Ok(found);
        }
        let compiled = async {
            let _turn = self.turn.acquire().await.map_err(|_| GrammarError::TooSlow)?;
            match self.found(&digest) {
                // Somebody else has asked for the same meanwhile.
                Some(found) => Ok(found),
                None => compiled_elsewhere(self.factory.clone(), grammar).await,
            }
        };
        let guided = tokio::time::timeout(PATIENCE, compiled).await.map_err(|_| GrammarError::TooSlow)??;
        self.keep(digest, guided.fresh());
        Ok(guided)
    }

    fn found(&self, digest: &[u8; 32]) -> Option<Guided> {
        self.kept.lock().ok()?.find(digest)
    }

    fn keep(&self, digest: [u8; 32], guided: Guided) {
        if let Ok(mut kept) = self.kept.lock() {
            kept.keep(digest, guided);
        }
    }
}

/// The last used comes last.
#[derive(Debug, Default)]
struct Kept(VecDeque<([u8; 32], Guided)>);

impl Kept {
    fn find(&mut self, digest: &[u8; 32]) -> Option<Guided> {
        let at = self.0.iter().position(|(known, _)| known == digest)?;
        let found = self.0.remove(at)?;
        let guided = found.1.fresh();
        self.0.push_back(found);
        Some(guided)
    }

    fn keep(&mut self, digest: [u8; 32], guided: Guided) {
        if self.0.iter().any(|(known, _)| *known == digest) {
            return;
        }
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((digest, guided));
    }
}

/// How much work and memory one grammar may take, when it is compiled and for each token.
fn limits() -> ParserLimits {
    ParserLimits {
        max_lexer_states: 10_000,
        max_grammar_size: 200_000,
        // Errors would repeat the answer, and nobody's text belongs into a log.
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// What a grammar is known by.
fn source(grammar: &Grammar) -> Result<Vec<u8>, GrammarError> {
    let (kind, text) = match grammar {
        Grammar::JsonObject => ("object", String::new()),
        Grammar::JsonSchema { schema, strict: true } => ("strict", schema.to_string()),
        Grammar::JsonSchema { schema, strict: false } => ("schema", schema.to_string()),
        Grammar::Regex(text) => ("regex", text.clone()),
        Grammar::Choice(texts) => ("choice", json!(texts).to_string()),
        Grammar::Lark(text) => ("lark", text.clone()),
    };
    if text.len() > MAX_BYTES {
        return Err(GrammarError::TooLarge { what: "bytes", found: text.len(), limit: MAX_BYTES });
    }
    Ok([kind.as_bytes(), b"\0", text.as_bytes()].concat())
}

/// Compiles on a thread of its own, for it may take long, and recurses.
async fn compiled_elsewhere(factory: Arc<ParserFactory>, grammar: Grammar) -> Result<Guided, GrammarError> {
    let (tell, told) = oneshot::channel();
    let work = move || {
        // Whoever asked may have gone.
        let _ = tell.send(compile(&factory, grammar));
    };
    let thread = std::thread::Builder::new().name("grammar".into()).stack_size(STACK).spawn(work);
    thread.map_err(|error| GrammarError::Malformed(format!("there is no thread for it: {error}")))?;
    told.await.unwrap_or_else(|_| Err(GrammarError::Malformed("it cannot be compiled".into())))
}

fn compile(factory: &ParserFactory, grammar: Grammar) -> Result<Guided, GrammarError> {
    let schema = match &grammar {
        Grammar::JsonSchema { schema, .. } => Some(schema.clone()),
        _ => None,
    };
    let grammar = translated(grammar)?;
    let parser =
        factory.create_parser(grammar).map_err(|error| refusal(&error.to_string(), schema.as_ref()))?;
    let matcher = Matcher::new(Ok(parser));
    match matcher.get_error() {
        Some(error) => Err(refusal(&error, schema.as_ref())),
        None => Ok(Guided::new(matcher)),
    }
}

fn translated(grammar: Grammar) -> Result<TopLevelGrammar, GrammarError> {
    Ok(match grammar {
        Grammar::JsonObject => {
            TopLevelGrammar::from_json_schema(with_options(json!({ "type": "object" }), true))
        }
        Grammar::JsonSchema { schema, strict } => {
            check::schema(&schema)?;
            TopLevelGrammar::from_json_schema(with_options(schema, !strict))
        }
        Grammar::Regex(text) => {
            check::depth(&text)?;
            TopLevelGrammar::from_regex(&text)
        }
        Grammar::Choice(texts) => {
            check::choices(&texts)?;
            let texts: Vec<_> = texts.iter().map(|text| json!(text).to_string()).collect();
            TopLevelGrammar::from_lark(format!("start: {}", texts.join(" | ")))
        }
        Grammar::Lark(text) => {
            check::lark(&text)?;
            TopLevelGrammar::from_lark(text)
        }
    })
}

/// A schema with the options that its compiler reads from it; those of a client are not taken.
fn with_options(schema: Json, lenient: bool) -> Json {
    let mut map = match schema {
        Json::Object(map) => map,
        // `true` and `false` are schemas too.
        other => [("allOf".to_owned(), json!([other]))].into_iter().collect(),
    };
    map.insert("x-guidance".into(), options(lenient));
    Json::Object(map)
}

/// How JSON is spelled.
fn options(lenient: bool) -> Json {
    json!({ "whitespace_flexible": true, "whitespace_pattern": JSON_SPACE, "lenient": lenient })
}

/// Schema in Lark's syntax, for grammars that have JSON in them.
#[must_use]
pub fn json_in_lark(schema: &Json) -> String {
    format!("%json {}", with_options(schema.clone(), true))
}

/// What the compiler's words begin with where it did not refuse, but failed; a backtrace follows.
const PANIC: &str = "panic:";

/// The compiler's words, in one line and not too many, with the place in the schema where one can be named.
fn refusal(said: &str, schema: Option<&Json>) -> GrammarError {
    const LONGEST: usize = 400;
    if said.starts_with(PANIC) {
        return GrammarError::Malformed("the compiler of grammars failed over it".into());
    }
    let too_much = ["fuel", "too complex", "too large", "limit", "stack level"];
    if too_much.iter().any(|words| said.contains(words)) && said.len() < LONGEST && said.contains("fuel") {
        return GrammarError::TooSlow;
    }
    let mut text: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push('…');
    }
    if let Some(place) = schema.and_then(|schema| check::place(schema, said)) {
        text.push_str(&format!(" at {place}"));
    }
    GrammarError::Malformed(text)
}

#[cfg(test)]
mod tests;
