//! Special tokens that a text spells out, and how the text keeps from becoming them.
//!
//! In: texts of clients. Out: the same texts, with a mark inside every such spelling, or cut there. A tokenizer finds
//! special tokens only in one piece of text, so a spelling that is cut is plain characters to it.

use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::Value as Json;
use tokenizers::Tokenizer;

/// Characters that Unicode has set aside for use within a program: no text has a right to them.
const MARKS: std::ops::RangeInclusive<char> = '\u{FDD0}'..='\u{FDEF}';

/// Finds spellings of special tokens.
#[derive(Debug, Default)]
pub(super) struct Special(Option<(AhoCorasick, Vec<u32>)>);

impl Special {
    pub(super) fn of(tokenizer: &Tokenizer) -> Self {
        let added = tokenizer.get_added_vocabulary().get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special && !token.content.is_empty());
        let mut named: Vec<_> = special.map(|(id, token)| (*id, token.content.clone())).collect();
        named.sort_unstable();
        Self::named(named)
    }

    fn named(named: Vec<(u32, String)>) -> Self {
        let (ids, names): (Vec<u32>, Vec<String>) = named.into_iter().unzip();
        let found = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&names).ok();
        Self(found.filter(|_| !names.is_empty()).map(|found| (found, ids)))
    }

    /// What of a text is a special token, and what is between.
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<(Option<u32>, &'a str)> {
        let Some((names, ids)) = &self.0 else { return vec![(None, text)] };
        let (mut pieces, mut at) = (Vec::new(), 0);
        for found in names.find_iter(text) {
            pieces.push((None, &text[at..found.start()]));
            pieces.push((Some(ids[found.pattern().as_usize()]), &text[found.range()]));
            at = found.end();
        }
        pieces.push((None, &text[at..]));
        pieces.retain(|(id, text)| id.is_some() || !text.is_empty());
        pieces
    }

    /// Where a text has to be cut: inside every spelling, after its first character. Spellings that begin inside of
    /// others are cut as well.
    fn cuts(&self, text: &str) -> Vec<usize> {
        let (Some((names, _)), mut at, mut cuts) = (&self.0, 0, Vec::new()) else { return Vec::new() };
        while let Some(found) = names.find(&text[at..]) {
            let start = at + found.start();
            at = start + text[start..].chars().next().map_or(1, char::len_utf8);
            cuts.push(at);
        }
        cuts
    }

    /// The pieces between the cuts.
    pub(super) fn cut<'a>(&self, text: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut cuts = self.cuts(text);
        cuts.push(text.len());
        let mut from = 0;
        cuts.into_iter().map(move |to| &text[std::mem::replace(&mut from, to)..to])
    }

    /// Puts a mark at every place where a text of the value, or a name in it, has to be cut.
    pub(super) fn mark(&self, value: &mut Json, mark: char) {
        match value {
            Json::String(text) => self.mark_text(text, mark),
            Json::Array(list) => list.iter_mut().for_each(|value| self.mark(value, mark)),
            Json::Object(map) => {
                for (mut name, mut value) in std::mem::take(map) {
                    self.mark_text(&mut name, mark);
                    self.mark(&mut value, mark);
                    map.insert(name, value);
                }
            }
            _ => {}
        }
    }

    fn mark_text(&self, text: &mut String, mark: char) {
        let cuts = self.cuts(text);
        if !cuts.is_empty() {
            *text = self.cut(text).collect::<Vec<_>>().join(mark.encode_utf8(&mut [0; 4]));
        }
    }
}

/// A mark that does not occur in a text.
pub(super) fn unused_mark(text: &str) -> Option<char> {
    MARKS.into_iter().find(|mark| !text.contains(*mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_cut_and_nothing_else_is() {
        let names = ["<|end|>", "<|", "｜x｜"].map(str::to_owned);
        let special = Special::named((7..).zip(names).collect());
        assert_eq!(special.split("a<|end|><|"), [(None, "a"), (Some(7), "<|end|>"), (Some(8), "<|")]);
        let cut = |text: &'static str| special.cut(text).collect::<Vec<_>>();
        assert_eq!(cut("a<|end|>b"), ["a<", "|end|>b"]);
        assert_eq!(cut("<<|<|end|>"), ["<<", "|<", "|end|>"]);
        assert_eq!(cut("｜x｜x｜"), ["｜", "x｜", "x｜"]);
        assert_eq!((cut("a < b | c"), cut("")), (vec!["a < b | c"], vec![""]));
        let mut value = serde_json::json!({ "<|": ["a<|end|>", 1, null] });
        special.mark(&mut value, '#');
        assert_eq!(value, serde_json::json!({ "<#|": ["a<#|end|>", 1, null] }));
        assert_eq!(Special::default().cut("<|end|>").count(), 1);
        assert_eq!((unused_mark("x"), unused_mark("\u{FDD0}")), (Some('\u{FDD0}'), Some('\u{FDD1}')));
    }
}
