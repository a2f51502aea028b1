//! Text in and out of tokens, as the checkpoint says.
//!
//! In: a [`Checkpoint`]; later messages, text and tokens. Out: [`Tokens`], which encodes and decodes.
//! It must not know requests, engines or HTTP.

mod gguf;
pub mod pieces;
mod special;
pub mod stream;
pub mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contract::exit::ExitReason;
use contract::header::gguf::Metadata;
use contract::inspect::Format;
use serde_json::Value as Json;
use tokenizers::Tokenizer;

use crate::checkpoint::{Checkpoint, CheckpointError};
use special::Special;
pub use template::{Chat, Message, Template, TemplateError};

/// Characters of a prompt's end that are told.
const TAIL: usize = 32;

/// A prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompted {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// The end of its text, without white space: it may have opened the answer's reasoning.
    pub end: String,
}

/// Tokenizer, template and end-of-text tokens of one checkpoint.
#[derive(Debug)]
pub struct Tokens {
    tokenizer: Tokenizer,
    /// Goes before plain text; templates write their own.
    prefix: Vec<u32>,
    template: Option<Template>,
    ends: Arc<BTreeSet<u32>>,
    special: Special,
    /// Bytes of the longest token's text, as the vocabulary spells it.
    longest: usize,
    /// Tokens that the model knows.
    vocab: u32,
}

/// A checkpoint without a usable tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// A file that cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Something that the tokenizer needs is not there.
    #[error("the checkpoint has no {0}, which its tokenizer needs")]
    Missing(&'static str),
    /// A kind of tokenizer that we do not know.
    #[error("{what} {found:?} is not supported; supported are: {known}")]
    Unsupported {
        /// What kind of thing.
        what: &'static str,
        /// What the checkpoint says.
        found: String,
        /// What would be accepted.
        known: String,
    },
    /// Parts that contradict each other.
    #[error("the tokenizer cannot be built")]
    Malformed(#[source] tokenizers::Error),
    /// A chat template that is none.
    #[error("the chat template is not valid")]
    Template(#[from] TemplateError),
    /// Nothing would ever end an answer.
    #[error("no end-of-text token inside the vocabulary is stated")]
    NoEnd,
    /// The vocabulary and the model disagree.
    #[error("the tokenizer knows token {token}, past the model's vocabulary of {vocab}")]
    Vocabulary {
        /// The largest token.
        token: u32,
        /// Tokens of the model.
        vocab: u32,
    },
}

impl TokensError {
    /// The reason that this stands for.
    #[must_use]
    pub fn reason(&self) -> ExitReason {
        match self {
            Self::Checkpoint(error) => error.reason(),
            Self::Unsupported { .. } | Self::Template(_) => ExitReason::ModelUnsupported,
            _ => ExitReason::WeightsCorrupt,
        }
    }
}

/// Text that cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The checkpoint has no chat template.
    #[error("this model has no chat template; use the completions endpoint")]
    NoTemplate,
    /// The template refused the messages.
    #[error("the chat template refused the messages")]
    Template(#[from] TemplateError),
    /// The tokenizer refused the text.
    #[error("the text cannot be encoded")]
    Tokenizer(#[source] tokenizers::Error),
}

impl Tokens {
    /// Builds the tokenizer of a checkpoint.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self, TokensError> {
        let vocab = checkpoint.geometry.vocab;
        match checkpoint.format {
            Format::Gguf => Self::from_metadata(&checkpoint.header.metadata, vocab),
            Format::Safetensors => Self::from_files(checkpoint)?.checked(vocab),
        }
    }

    /// Builds the tokenizer of a GGUF file whose model knows `vocab` tokens.
    pub fn from_metadata(metadata: &Metadata, vocab: u32) -> Result<Self, TokensError> {
        gguf::tokens(metadata)?.checked(vocab)
    }

    fn from_files(checkpoint: &Checkpoint) -> Result<Self, TokensError> {
        let json =
            checkpoint.companion_text("tokenizer.json")?.ok_or(TokensError::Missing("tokenizer.json"))?;
        let tokenizer = Tokenizer::from_bytes(json).map_err(TokensError::Malformed)?;
        let config = checkpoint.companion_json("tokenizer_config.json")?.unwrap_or_default();
        let generation = checkpoint.companion_json("generation_config.json")?.unwrap_or_default();
        let special = |name: &str| {
            // Either the token itself or an object that describes it.
            let value = &config[name];
            value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
        };
        let source = match checkpoint.companion_text("chat_template.jinja")? {
            Some(text) => Some(text),
            None => chat_template(&config["chat_template"]),
        };
        let template =
            source.map(|s| Template::new(s, special("bos_token"), special("eos_token"))).transpose()?;
        let mut ends: BTreeSet<u32> = ids(&generation["eos_token_id"]).collect();
        ends.extend(checkpoint.config.iter().flat_map(|c| ids(&c["eos_token_id"])));
        ends.extend(special("eos_token").and_then(|t| tokenizer.token_to_id(&t)));
        // The tokenizer's own post-processor writes what goes before plain text.
        Ok(Self {
            tokenizer,
            prefix: Vec::new(),
            template,
            ends: Arc::new(ends),
            special: Special::default(),
            longest: 0,
            vocab: 0,
        })
    }

    fn checked(self, vocab: u32) -> Result<Self, TokensError> {
        // Only what encoding can yield matters; a model may well have more rows than its tokenizer has tokens.
        let known = self.tokenizer.get_vocab(true);
        let longest = known.keys().map(String::len).max().unwrap_or(0);
        match known.into_values().max() {
            Some(token) if token >= vocab => Err(TokensError::Vocabulary { token, vocab }),
            None => Err(TokensError::Missing("vocabulary")),
            Some(_) if !self.ends.iter().any(|end| *end < vocab) => Err(TokensError::NoEnd),
            Some(_) => Ok(Self { longest, vocab, special: Special::of(&self.tokenizer), ..self }),
        }
    }

    /// Tokens that end an answer.
    #[must_use]
    pub fn ends(&self) -> Arc<BTreeSet<u32>> {
        self.ends.clone()
    }

    /// Most bytes of a text that may have no more than so many tokens.
    #[must_use]
    pub const fn most_bytes(&self, tokens: u32) -> usize {
        self.longest.saturating_mul(tokens as usize)
    }

    /// The prompt of a conversation. Special tokens are those of the template: what a client's texts spell is text.
    pub fn encode_chat(&self, chat: &Chat) -> Result<Prompted, EncodeError> {
        let template = self.template.as_ref().ok_or(EncodeError::NoTemplate)?;
        let mut inputs = template.inputs(chat);
        let mark = special::unused_mark(&inputs.to_string());
        let mark =
            mark.ok_or_else(|| TemplateError("the texts use all characters that none should".into()))?;
        self.special.mark(&mut inputs, mark);
        let text = template.render(inputs, chat.continues)?;
        let mut tokens = Vec::new();
        for piece in text.split(mark) {
            let encoding = self.tokenizer.encode_fast(piece, false).map_err(EncodeError::Tokenizer)?;
            tokens.extend_from_slice(encoding.get_ids());
        }
        let end = text.trim_end();
        let end = end.char_indices().rev().nth(TAIL - 1).map_or(end, |(at, _)| &end[at..]);
        Ok(Prompted { tokens, end: end.to_owned() })
    }

    /// The tokens of a mark that the model writes or reads.
    #[must_use]
    pub fn encode_mark(&self, mark: &str) -> Vec<u32> {
        self.tokenizer
            .encode_fast(mark, false)
            .map(|encoding| encoding.get_ids().to_vec())
            .unwrap_or_default()
    }

    /// The text of the chat template.
    #[must_use]
    pub fn template_source(&self) -> Option<&str> {
        self.template.as_ref().map(Template::source)
    }

    /// A text cut into special tokens that it spells, and what is between them.
    #[must_use]
    pub fn split_special<'a>(&self, text: &'a str) -> Vec<(Option<u32>, &'a str)> {
        self.special.split(text)
    }

    /// Such of the names as are special tokens.
    #[must_use]
    pub fn special_among(&self, names: &[&str]) -> BTreeMap<u32, String> {
        let ids =
            names.iter().filter_map(|name| Some((self.tokenizer.token_to_id(name)?, (*name).to_owned())));
        ids.filter(|(id, _)| self.is_special(*id)).collect()
    }

    /// Tokens of text in which nothing is a special token, whatever it spells.
    #[must_use]
    pub fn encode_plain(&self, text: &str) -> Vec<u32> {
        let pieces = self.special.cut(text);
        let encoded = pieces.filter_map(|piece| self.tokenizer.encode_fast(piece, false).ok());
        encoded.flat_map(|encoding| encoding.get_ids().to_vec()).collect()
    }

    /// The prompt of plain text.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        let encoding = self.tokenizer.encode_fast(text, true).map_err(EncodeError::Tokenizer)?;
        Ok(self.prefix.iter().chain(encoding.get_ids()).copied().collect())
    }

    /// The tokens of a text alone, without what goes before plain text.
    pub fn encode_bare(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(EncodeError::Tokenizer)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Tokens that the model knows: its ids are below that.
    #[must_use]
    pub const fn vocab(&self) -> u32 {
        self.vocab
    }

    /// A token as the vocabulary spells it; empty for those that only the model has.
    #[must_use]
    pub fn spelling(&self, token: u32) -> String {
        self.tokenizer.id_to_token(token).unwrap_or_default()
    }

    /// Text of tokens, special ones included.
    #[must_use]
    pub fn decode_all(&self, tokens: &[u32]) -> String {
        self.tokenizer.decode(tokens, false).unwrap_or_default()
    }

    /// Whether this token controls the model and is no text.
    fn is_special(&self, token: u32) -> bool {
        let added = self.tokenizer.get_added_vocabulary().get_added_tokens_decoder();
        added.get(&token).is_some_and(|token| token.special)
    }

    /// Text of tokens, without special ones. Bytes that are no characters become U+FFFD.
    #[must_use]
    pub fn decode(&self, tokens: &[u32]) -> String {
        // Unknown ids decode to nothing; the decoders that we build or load do not fail on known ones.
        self.tokenizer.decode(tokens, true).unwrap_or_default()
    }
}

/// A template is a text, or a list of named ones of which `default` counts.
fn chat_template(value: &Json) -> Option<String> {
    let named = |list: &Vec<Json>| {
        list.iter().find(|t| t["name"] == "default").and_then(|t| t["template"].as_str()).map(str::to_owned)
    };
    value.as_str().map(str::to_owned).or_else(|| value.as_array().and_then(named))
}

/// One token or a list of them.
fn ids(value: &Json) -> impl Iterator<Item = u32> + '_ {
    let one = std::slice::from_ref(value);
    let all = value.as_array().map_or(one, Vec::as_slice);
    all.iter().filter_map(|v| v.as_u64().and_then(|id| u32::try_from(id).ok()))
}

#[cfg(test)]
mod tests;
