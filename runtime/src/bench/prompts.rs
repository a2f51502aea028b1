//! Prompts of a wanted length from a seed. Pure.
//!
//! They consist of common English words, each of which, with the space before it, is one token of any vocabulary that
//! was made from English text.

use super::random::Random;

const WORDS: [&str; 64] = [
    "the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not",
    "he", "his", "but", "at", "are", "this", "have", "from", "or", "had", "an", "they", "which", "one",
    "you", "were", "all", "her", "she", "there", "would", "their", "we", "him", "been", "has", "when", "who",
    "will", "no", "more", "if", "out", "so", "up", "said", "what", "its", "about", "than", "into", "them",
    "can", "only", "other", "time", "new", "some",
];

/// A family of prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prompts {
    /// Which family.
    pub seed: u64,
    /// Words of each.
    pub words: u32,
    /// Words at the beginning that all of them share.
    pub prefix_words: u32,
}

impl Prompts {
    /// The same lengths with other words.
    #[must_use]
    pub const fn reseeded(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The prompt with this number; different ones differ from the first word after the prefix on.
    #[must_use]
    pub fn text(self, index: u64) -> String {
        let mut shared = Random(self.seed);
        let own = shared.next() ^ Random(index).next();
        let mut own = Random(own);
        let prefix = self.prefix_words.min(self.words);
        let mut text = String::new();
        for at in 0..self.words {
            let random = if at < prefix { &mut shared } else { &mut own };
            let word = (random.next() % WORDS.len() as u64) as usize;
            text.push(' ');
            text.push_str(WORDS[word]);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_have_the_wanted_words_and_share_their_prefix_only() {
        let prompts = Prompts { seed: 3, words: 40, prefix_words: 10 };
        let words = |index| prompts.text(index).split(' ').skip(1).map(str::to_owned).collect::<Vec<_>>();
        let (one, two) = (words(0), words(1));
        assert_eq!((one.len(), &one), (40, &words(0)));
        assert_eq!(one[..10], two[..10]);
        let same = one[10..].iter().zip(&two[10..]).filter(|(a, b)| a == b).count();
        assert!(same < 8, "{same} words are the same by chance");
        assert_ne!(prompts.reseeded(4).text(0), prompts.text(0));
    }
}
