//! Text of an answer while its tokens come: whole characters only, and never past a stop string.
//!
//! In: one token at a time. Out: text that will not change any more.
//! It must not know where tokens come from.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Tokens;

/// Replacement characters at the end of a text that may yet become something else: a character has at most four
/// bytes, so an incomplete one has at most three, and some decoders show each of them.
const MOST_HELD: usize = 3;
/// Tokens that are decoded together at most, however they cut characters.
const LONGEST_WINDOW: usize = 64;
const REPLACEMENT: char = '\u{FFFD}';

/// One answer on its way.
#[derive(Debug)]
pub struct TextStream {
    characters: Characters,
    /// Special tokens that are text all the same.
    kept: Arc<BTreeMap<u32, String>>,
    stops: Stops,
}

/// What a token added.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Text that is certain now.
    pub text: String,
    /// The stop string that was completed; nothing may follow.
    pub stopped: Option<String>,
}

impl TextStream {
    /// An empty answer that ends at any of these strings.
    #[must_use]
    pub fn new(stops: Vec<String>) -> Self {
        let stops = Stops { strings: stops, held: String::new() };
        Self { characters: Characters::default(), kept: Arc::default(), stops }
    }

    /// The same, in which these special tokens are text.
    #[must_use]
    pub fn keeping(self, kept: Arc<BTreeMap<u32, String>>) -> Self {
        Self { kept, ..self }
    }

    /// Adds a token.
    pub fn push(&mut self, tokens: &Tokens, token: u32) -> Piece {
        let text = match self.kept.get(&token) {
            Some(name) => self.characters.finish(tokens) + name,
            None => self.characters.push(tokens, token),
        };
        self.stops.push(&text)
    }

    /// Ends the answer: everything that was held back, unless it completes a stop string.
    pub fn finish(&mut self, tokens: &Tokens) -> Piece {
        let text = self.characters.finish(tokens);
        let mut piece = self.stops.push(&text);
        if piece.stopped.is_none() {
            piece.text.push_str(&std::mem::take(&mut self.stops.held));
        }
        piece
    }
}

/// Decodes a window of tokens: what a token adds may depend on the ones before it.
#[derive(Debug, Default)]
struct Characters {
    window: Vec<u32>,
    /// Tokens of the window whose text is complete and has been given out.
    context: usize,
    /// Bytes of the window's text that have been given out.
    given: usize,
}

impl Characters {
    fn push(&mut self, tokens: &Tokens, token: u32) -> String {
        // Special tokens have no text, and so do not end a character that others go on with.
        if tokens.is_special(token) {
            return String::new();
        }
        self.window.push(token);
        let all = tokens.decode(&self.window);
        let certain = certain(&all);
        let text = all.get(self.given..certain).unwrap_or_default().to_owned();
        self.given = self.given.max(certain);
        if certain == all.len() {
            self.window.drain(..self.context);
            self.context = self.window.len();
            self.given = tokens.decode(&self.window).len();
        } else if self.window.len() >= LONGEST_WINDOW {
            // The bytes of an incomplete character are in the last tokens. A character that is cut at the beginning
            // is no character from now on, but it has been given out.
            self.window.drain(..LONGEST_WINDOW / 2);
            self.context = 0;
            self.given = self::certain(&tokens.decode(&self.window));
        }
        text
    }

    fn finish(&mut self, tokens: &Tokens) -> String {
        let Self { window, given, .. } = std::mem::take(self);
        tokens.decode(&window).get(given..).unwrap_or_default().to_owned()
    }
}

/// Bytes of a text that no further token can change.
fn certain(text: &str) -> usize {
    let held = text.chars().rev().take(MOST_HELD).take_while(|c| *c == REPLACEMENT).count();
    text.len() - held * REPLACEMENT.len_utf8()
}

/// Holds back text that may be the beginning of a stop string.
#[derive(Debug)]
struct Stops {
    strings: Vec<String>,
    held: String,
}

impl Stops {
    fn push(&mut self, text: &str) -> Piece {
        self.held.push_str(text);
        // The one that is complete first counts, as if characters came one by one.
        let found =
            self.strings.iter().filter_map(|s| self.held.find(s.as_str()).map(|at| (at + s.len(), at, s)));
        if let Some((_, at, stop)) = found.min() {
            let text = self.held[..at].to_owned();
            self.held.clear();
            return Piece { text, stopped: Some(stop.clone()) };
        }
        let keep = self.strings.iter().map(|s| overlap(&self.held, s)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Piece { text: std::mem::replace(&mut self.held, rest), stopped: None }
    }
}

/// Bytes of the longest end of `text` that a stop string begins with.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest).rev().find(|n| text.as_bytes().ends_with(&stop.as_bytes()[..*n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], texts: &[&str]) -> (Vec<String>, String) {
        let mut state =
            Stops { strings: stops.iter().map(|s| (*s).to_owned()).collect(), held: String::new() };
        let mut given = Vec::new();
        for text in texts {
            let piece = state.push(text);
            given.push(piece.text);
            if piece.stopped.is_some() {
                break;
            }
        }
        (given, state.held)
    }

    #[test]
    fn stop_strings_are_found_across_pieces() {
        assert_eq!(run(&["END"], &["aE", "N", "Db"]).0, ["a", "", ""]);
        assert_eq!(run(&["END"], &["aE", "Nx", "y"]).0, ["a", "ENx", "y"]);
        assert_eq!(run(&["\n\n"], &["a\n", "b\n", "\nc"]).0, ["a", "\nb", ""]);
        assert_eq!(run(&["bc", "abcd"], &["xab", "cd"]).0, ["x", "a"], "the first that is complete counts");
        assert_eq!(run(&["é!"], &["aé", "?"]), (vec!["a".into(), "é?".into()], String::new()));
        assert_eq!(run(&["END"], &["E"]), (vec![String::new()], "E".into()));
        assert_eq!(run(&[], &["a", "b"]).0, ["a", "b"]);
    }
}
