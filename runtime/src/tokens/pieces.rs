//! The bytes that each token stands for.
//!
//! In: a tokenizer. Out: for every id its bytes, and whether it is a special token.
//! Source of the spelling: OpenAI's GPT-2 `encoder.py` (bytes as characters), and SentencePiece (`▁`, `<0xNN>`).

use std::collections::HashMap;

use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_level::ByteLevel;

use super::Tokens;

/// What one id stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of text.
    Text(Vec<u8>),
    /// A token that controls the model, by its name.
    Special(String),
    /// No token.
    Nothing,
}

impl Tokens {
    /// What every id up to the largest stands for.
    #[must_use]
    pub fn pieces(&self) -> Vec<Piece> {
        let known = self.tokenizer.get_vocab(true);
        let n = known.values().max().map_or(0, |largest| *largest as usize + 1);
        let mut pieces = vec![Piece::Nothing; n];
        let alphabet = self.spells_bytes_as_characters().then(byte_characters);
        for (spelling, id) in known {
            let piece = match &alphabet {
                Some(alphabet) => spelling.chars().flat_map(|c| bytes_of(alphabet, c)).collect(),
                None => sentence_piece(&spelling),
            };
            pieces[id as usize] = Piece::Text(piece);
        }
        for (id, added) in self.tokenizer.get_added_vocabulary().get_added_tokens_decoder() {
            if let Some(piece) = pieces.get_mut(*id as usize) {
                let content = added.content.clone();
                *piece =
                    if added.special { Piece::Special(content) } else { Piece::Text(content.into_bytes()) };
            }
        }
        pieces
    }

    /// Whether text is cut into tokens the same way wherever it stands, which is so for bytes as characters.
    #[must_use]
    pub fn spells_bytes_as_characters(&self) -> bool {
        fn byte_level(decoder: &DecoderWrapper) -> bool {
            match decoder {
                DecoderWrapper::ByteLevel(_) => true,
                DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().any(byte_level),
                _ => false,
            }
        }
        self.tokenizer.get_decoder().is_some_and(byte_level)
    }
}

/// A character that stands for no byte stands for itself.
fn bytes_of(alphabet: &HashMap<char, u8>, c: char) -> Vec<u8> {
    alphabet.get(&c).map_or_else(|| c.to_string().into_bytes(), |byte| vec![*byte])
}

/// Bytes that are visible characters of Latin-1 are written as these; all others, in their order, as the characters
/// from U+0100.
fn byte_characters() -> HashMap<char, u8> {
    let alphabet = ByteLevel::alphabet();
    let visible = |byte: &u8| alphabet.contains(&char::from(*byte));
    let others = (0..=u8::MAX).filter(|byte| !visible(byte)).zip('\u{100}'..);
    let themselves = (0..=u8::MAX).filter(visible).map(|byte| (char::from(byte), byte));
    themselves.chain(others.map(|(byte, c)| (c, byte))).collect()
}

fn sentence_piece(spelling: &str) -> Vec<u8> {
    let byte = spelling.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    match byte.filter(|digits| digits.len() == 2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
        Some(byte) => vec![byte],
        None => spelling.replace('▁', " ").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::toy;

    #[test]
    fn every_byte_has_a_character_and_the_toys_tokens_are_bytes() {
        let alphabet = byte_characters();
        assert_eq!(alphabet.len(), 256);
        assert_eq!((alphabet[&'a'], alphabet[&'Ġ'], alphabet[&'Ċ']), (b'a', b' ', b'\n'));
        let n = u32::try_from(toy::vocabulary().len()).unwrap();
        let tokens = Tokens::from_metadata(&toy::metadata(), n).unwrap();
        let pieces = tokens.pieces();
        assert!(tokens.spells_bytes_as_characters());
        assert_eq!(pieces[toy::token("<end>") as usize], Piece::Special("<end>".into()));
        assert_eq!(pieces[toy::token("a") as usize], Piece::Text(b"a".to_vec()));
        let mut bytes: Vec<_> =
            pieces.iter().filter_map(|p| if let Piece::Text(b) = p { Some(b[0]) } else { None }).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn spaces_and_bytes_of_sentence_pieces_are_undone() {
        assert_eq!(sentence_piece("▁the▁"), b" the ");
        assert_eq!((sentence_piece("<0xE2>"), sentence_piece("<0xZZ>")), (vec![0xe2], b"<0xZZ>".to_vec()));
    }
}
