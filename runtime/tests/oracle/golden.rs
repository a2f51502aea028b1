//! What the oracle said, as `oracle.py` describes its files.

use std::fs;
use std::path::Path;

use serde::Deserialize;

/// All of it.
pub(crate) struct Golden {
    /// Prompts with their answers.
    pub(crate) prompts: Vec<Prompt>,
    /// Strings with their tokens.
    pub(crate) strings: Vec<Text>,
    /// Hexadecimal digest of the model's file.
    pub(crate) sha256: String,
    /// Logits of the model as it is, prompt after prompt.
    pub(crate) logits: Logits,
    /// Logits of the model with wide weights, for the prompts that are wide.
    pub(crate) wide: Logits,
}

/// Logits at many positions, as they stand in a file.
pub(crate) struct Logits {
    layout: Layout,
    bytes: Vec<u8>,
}

/// A prompt and what follows it.
pub(crate) struct Prompt {
    /// What it is called.
    pub(crate) name: String,
    /// What is asked: a conversation or plain text.
    pub(crate) question: Question,
    /// Its tokens.
    pub(crate) tokens: Vec<u32>,
    /// The tokens that greedily follow.
    pub(crate) follows: Vec<u32>,
    /// How far each of them is ahead of the second most likely.
    pub(crate) gaps: Vec<f32>,
    /// How far it is ahead of all others when the oracle does not round activations; negative where it is behind.
    pub(crate) unrounded: Vec<f32>,
    /// Whether it is one of those that the wide model was asked.
    pub(crate) wide: bool,
}

/// What is asked.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Question {
    /// Plain text.
    Text {
        /// The text.
        text: String,
    },
    /// A conversation.
    Chat {
        /// Its messages.
        messages: Vec<Turn>,
    },
}

/// One message.
#[derive(Deserialize)]
pub(crate) struct Turn {
    /// Who speaks.
    pub(crate) role: String,
    /// What is said.
    pub(crate) content: String,
}

/// A string and its tokens.
pub(crate) struct Text {
    /// The string.
    pub(crate) text: String,
    /// Its tokens.
    pub(crate) tokens: Vec<u32>,
    /// The bytes that they stand for.
    pub(crate) bytes: Vec<u8>,
}

/// The logits at one position.
pub(crate) struct Position {
    /// The logarithm of the sum of all exponentials.
    pub(crate) log_sum: f64,
    /// The most likely tokens and their logits, most likely first.
    pub(crate) top: Vec<(usize, f64)>,
    /// Some tokens of the whole vocabulary and their logits.
    pub(crate) sample: Vec<(usize, f64)>,
}

#[derive(Deserialize)]
struct Greedy {
    sha256: String,
    positions: usize,
    #[serde(flatten)]
    layout: Layout,
    prompts: Vec<Answered>,
}

#[derive(Clone, Copy, Deserialize)]
struct Layout {
    vocabulary: usize,
    top: usize,
    sample: usize,
    stride: usize,
    scale: f64,
}

#[derive(Deserialize)]
struct Answered {
    name: String,
    wide: bool,
    prompt: Vec<u32>,
    follows: Vec<u32>,
    gaps: Vec<f32>,
    unrounded: Vec<f32>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(flatten)]
    question: Question,
}

impl Prompt {
    /// Every token that the oracle gave logits for.
    pub(crate) fn forced(&self) -> Vec<u32> {
        let (_, follows) = self.follows.split_last().unwrap();
        [&self.tokens, follows].concat()
    }
}

impl Golden {
    /// Reads the committed files.
    pub(crate) fn read() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle");
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        let named: Vec<Named> = serde_json::from_str(&read("prompts.json")).unwrap();
        let greedy: Greedy = serde_json::from_str(&read("golden/greedy.json")).unwrap();
        assert_eq!(named.len(), greedy.prompts.len(), "the golden files are of these prompts");
        let prompt = |(named, answered): (Named, Answered)| {
            assert_eq!(named.name, answered.name);
            Prompt {
                name: named.name,
                question: named.question,
                tokens: answered.prompt,
                follows: answered.follows,
                gaps: answered.gaps,
                unrounded: answered.unrounded,
                wide: answered.wide,
            }
        };
        let prompts: Vec<Prompt> = named.into_iter().zip(greedy.prompts).map(prompt).collect();
        let logits = |name: &str, positions: usize| {
            let logits = Logits { layout: greedy.layout, bytes: fs::read(folder.join(name)).unwrap() };
            assert_eq!(logits.bytes.len(), positions * logits.record(), "{name}");
            logits
        };
        let wide = prompts.iter().filter(|prompt| prompt.wide).map(|prompt| prompt.forced().len()).sum();
        Self {
            strings: read("golden/tokens.jsonl").lines().map(text).collect(),
            sha256: greedy.sha256,
            logits: logits("golden/logits.bin", greedy.positions),
            wide: logits("golden/wide.bin", wide),
            prompts,
        }
    }
}

impl Logits {
    /// Bytes of one position.
    fn record(&self) -> usize {
        8 + self.layout.top * (2 + 4) + self.layout.sample * 2
    }

    /// The logits at a position.
    pub(crate) fn at(&self, at: usize) -> Position {
        let Layout { vocabulary, top, sample, stride, scale } = self.layout;
        let record = &self.bytes[at * self.record()..][..self.record()];
        let (log_sum, rest) = record.split_at(8);
        let (ids, rest) = rest.split_at(2 * top);
        let (logits, units) = rest.split_at(4 * top);
        let float = |bytes: &[u8]| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()));
        let short = |bytes: &[u8]| u16::from_le_bytes(bytes.try_into().unwrap());
        let sampled = |(j, unit): (usize, &[u8])| {
            ((at * sample + j) * stride % vocabulary, f64::from(short(unit).cast_signed()) / scale)
        };
        Position {
            log_sum: f64::from_le_bytes(log_sum.try_into().unwrap()),
            top: ids.chunks(2).map(|id| usize::from(short(id))).zip(logits.chunks(4).map(float)).collect(),
            sample: units.chunks(2).enumerate().map(sampled).collect(),
        }
    }
}

/// `[string, tokens]`, or `[string, tokens, bytes]` where the tokens stand for other bytes.
fn text(line: &str) -> Text {
    let entry: Vec<serde_json::Value> = serde_json::from_str(line).unwrap();
    let text = entry[0].as_str().unwrap().to_owned();
    let tokens = serde_json::from_value(entry[1].clone()).unwrap();
    let bytes = match entry.get(2) {
        Some(digits) => hex::decode(digits.as_str().unwrap()).unwrap(),
        None => text.clone().into_bytes(),
    };
    Text { text, tokens, bytes }
}
