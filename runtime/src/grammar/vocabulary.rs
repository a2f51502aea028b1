//! Our tokens as llguidance sees them: a trie of bytes, and a way to cut text into tokens.

use std::sync::Arc;

use llguidance::toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use super::GrammarError;
use crate::tokens::Tokens;
use crate::tokens::pieces::Piece;

struct Environment {
    tokens: Arc<Tokens>,
    trie: TokTrie,
    canonical: bool,
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        // Special tokens that text spells out are text here: what has to be one is named by its id.
        self.trie.tokenize_with_greedy_fallback(bytes, |text| self.tokens.encode_plain(text))
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.canonical
    }
}

/// The trie of a vocabulary.
pub(super) fn environment(tokens: Arc<Tokens>) -> Result<TokEnv, GrammarError> {
    let words: Vec<Vec<u8>> = tokens
        .pieces()
        .into_iter()
        .map(|piece| match piece {
            Piece::Text(bytes) => bytes,
            Piece::Special(name) => [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat(),
            Piece::Nothing => Vec::new(),
        })
        .collect();
    let size = u32::try_from(words.len()).unwrap_or(u32::MAX);
    let ends: Vec<u32> = tokens.ends().iter().copied().filter(|end| *end < size).collect();
    let first = *ends.first().ok_or_else(|| GrammarError::Malformed("no token ends a text".into()))?;
    let trie = TokTrie::from(&TokRxInfo::new(size, first), &words).with_eos_tokens(&ends);
    let canonical = tokens.spells_bytes_as_characters();
    Ok(Arc::new(Environment { tokens, trie, canonical }))
}
