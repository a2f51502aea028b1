//! Names of what blocks hold: the keys and values of a block follow from its tokens and from all before them. Pure.
//!
//! In: tokens and a salt. Out: names that are equal only where the contents are. SHA-256, since a block that a
//! stranger could make collide would spoil or give away what it holds.

use contract::memory::BLOCK_TOKENS;
use sha2::{Digest, Sha256};

/// Names a full block and everything before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix([u8; 32]);

impl Prefix {
    /// The empty beginning of all sequences with this salt. Those of different salts share nothing.
    #[must_use]
    pub fn empty(salt: &[u8]) -> Self {
        Self(Sha256::digest(salt).into())
    }

    /// This beginning and one more block of tokens.
    #[must_use]
    pub fn then(&self, block: &[u32]) -> Self {
        let mut hash = Sha256::new_with_prefix(self.0);
        for token in block {
            hash.update(token.to_le_bytes());
        }
        Self(hash.finalize().into())
    }
}

/// The names of a sequence's full blocks, as far as it has tokens.
#[derive(Clone, Debug)]
pub struct Prefixes {
    empty: Prefix,
    full: Vec<Prefix>,
}

impl Prefixes {
    /// Of a sequence of these tokens.
    #[must_use]
    pub fn new(salt: &[u8], tokens: &[u32]) -> Self {
        let mut prefixes = Self { empty: Prefix::empty(salt), full: Vec::new() };
        prefixes.extend(tokens);
        prefixes
    }

    /// Takes the blocks in that have become full since the last time; `tokens` are all of the sequence's.
    pub fn extend(&mut self, tokens: &[u32]) {
        for block in tokens.chunks_exact(BLOCK_TOKENS as usize).skip(self.full.len()) {
            let last = self.full.last().unwrap_or(&self.empty);
            self.full.push(last.then(block));
        }
    }

    /// All of them, in the order of the blocks.
    #[must_use]
    pub fn full(&self) -> &[Prefix] {
        &self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_all_that_comes_before() {
        let tokens: Vec<u32> = (0..100).collect();
        let names = Prefixes::new(b"a", &tokens);
        assert_eq!(names.full().len(), 3, "the last four tokens fill no block");
        let mut grown = Prefixes::new(b"a", &tokens[..40]);
        grown.extend(&tokens);
        assert_eq!(grown.full(), names.full());
        let mut other = tokens.clone();
        other[0] = 1;
        let differs =
            |names: &Prefixes, other: &Prefixes| names.full().iter().zip(other.full()).all(|(a, b)| a != b);
        assert!(differs(&names, &Prefixes::new(b"a", &other)), "an early token changes all later names");
        assert!(differs(&names, &Prefixes::new(b"b", &tokens)), "salts share nothing");
    }
}
