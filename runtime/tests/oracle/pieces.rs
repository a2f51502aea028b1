//! The bytes that tokens stand for, read from the vocabulary without our tokenizer's help.

use std::collections::BTreeMap;

use contract::header::gguf::{Metadata, Value};

/// `token_type` of tokens that are no text.
const CONTROL: i64 = 3;

/// Bytes of each token.
pub(crate) struct Pieces(Vec<Vec<u8>>);

impl Pieces {
    /// Those of a byte-level vocabulary.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let byte: BTreeMap<char, u8> = (0..=u8::MAX).map(|byte| (spelling(byte), byte)).collect();
        let vocabulary = metadata.get("tokenizer.ggml.tokens").and_then(Value::as_strings).unwrap();
        let types = metadata.get("tokenizer.ggml.token_type").and_then(Value::as_ints).unwrap();
        let piece = |(token, kind): (&String, &i64)| match *kind {
            CONTROL => Vec::new(),
            _ => token.chars().map(|c| byte[&c]).collect(),
        };
        Self(vocabulary.iter().zip(types).map(piece).collect())
    }

    /// The bytes of some tokens.
    pub(crate) fn bytes(&self, tokens: &[u32]) -> Vec<u8> {
        tokens.iter().flat_map(|token| &self.0[*token as usize]).copied().collect()
    }

    /// All tokens.
    pub(crate) fn all(&self) -> Vec<u32> {
        (0..).take(self.0.len()).collect()
    }

    /// Tokens that are not whole characters.
    pub(crate) fn fragments(&self) -> Vec<u32> {
        (0..).zip(&self.0).filter(|(_, piece)| str::from_utf8(piece).is_err()).map(|(id, _)| id).collect()
    }
}

/// How GPT-2's vocabulary spells a byte: printable ones as themselves, the others counted from U+0100.
fn spelling(byte: u8) -> char {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..);
    if printable(&byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|byte| !printable(byte)).count();
    char::from_u32(0x100 + u32::try_from(before).unwrap()).unwrap()
}
