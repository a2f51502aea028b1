//! SmolLM2 against llama.cpp: answers, logits and tokens are those that `oracle/oracle.py` wrote down.
//!
//! `make oracle-smollm2` runs this file alone; `make test` runs it with all others. `docs/exactness.md` says what is
//! compared, and where the bounds come from.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod oracle {
    pub(crate) mod answers;
    pub(crate) mod golden;
    pub(crate) mod logits;
    pub(crate) mod machine;
    pub(crate) mod pieces;
    pub(crate) mod vectors;
}
#[path = "shared/model_file.rs"]
mod model_file;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use contract::KvDType;
use kernels::Isa;
use proptest::collection::vec;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use proptest::{prop_assert_eq, prop_oneof};
use runtime::embeds::unit;
use runtime::tokens::stream::TextStream;
use runtime::tokens::{Message, Tokens};
use serde::Serialize;

use oracle::answers::{Verdict, judge};
use oracle::golden::{Golden, Logits, Prompt, Question, Turn};
use oracle::logits::{Distance, Distances};
use oracle::machine::{Batch, Checkpoint, Machine};
use oracle::pieces::Pieces;
use oracle::vectors::{Vectors, distance};

/// Prompts whose answers are the oracle's token for token, at least, and how many there are to be, at least.
const LEAST_EXACT: usize = 15;
const LEAST_PROMPTS: usize = 20;

/// How far logits may be from the oracle's at any position, and in the mean of all.
const ROUNDED_AT_MOST: Distance = Distance { rms: 4.0, kl: 0.17 };
const ROUNDED_MEAN: Distance = Distance { rms: 0.26, kl: 0.004 };
/// The same where neither side rounds activations. The unit of the committed logits makes 0.0006 of it.
const WIDE: Distance = Distance { rms: 0.0007, kl: 1e-8 };

/// How far vectors of length one may be from the oracle's, whose own are up to 0.031 from what they are with wide weights;
/// and how far where neither side rounds activations.
const VECTORS: f64 = 0.035;
const WIDE_VECTORS: f64 = 1e-5;

/// Eight sequences at once, in steps of which the largest prompt takes two.
const TOGETHER: Batch = Batch { sequences: 8, step_tokens: 256 };
/// The answers of all prompts in that company.
static ANSWERS: LazyLock<Vec<Vec<u32>>> = LazyLock::new(|| answers(TOGETHER));

/// How many random answers are streamed, and the most tokens of one.
const RANDOM_ANSWERS: u32 = 300;
const LONGEST_RANDOM: usize = 150;

/// What `target/reports/oracle-smollm2.json` says.
#[derive(Debug, Serialize)]
struct Report {
    prompts: usize,
    exact: usize,
    near_tie: usize,
    wrong: usize,
    strings_tokenized: usize,
    token_mismatches: usize,
}

impl Report {
    fn write(&self) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/reports/oracle-smollm2.json");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, serde_json::to_string_pretty(self).unwrap() + "\n").unwrap();
    }
}

fn tokens(golden: &Golden) -> (Tokens, Pieces) {
    let checkpoint = Checkpoint::read(&golden.sha256);
    let metadata = &checkpoint.header.metadata;
    (Tokens::from_metadata(metadata, checkpoint.geometry.vocab).unwrap(), Pieces::of(metadata))
}

fn answers(batch: Batch) -> Vec<Vec<u32>> {
    let golden = Golden::read();
    Checkpoint::read(&golden.sha256).answers(&golden.prompts, batch)
}

/// The tokens that the runtime makes of a prompt.
fn encoded(tokens: &Tokens, prompt: &Prompt) -> Vec<u32> {
    match &prompt.question {
        Question::Text { text } => tokens.encode_text(text).unwrap(),
        Question::Chat { messages } => {
            let message = |turn: &Turn| Message::new(&turn.role, &turn.content);
            tokens.encode_chat(&messages.iter().map(message).collect::<Vec<_>>().into()).unwrap().tokens
        }
    }
}

/// Strings and prompts of which our tokens are others than the oracle's.
fn mismatches(golden: &Golden) -> Vec<String> {
    let (tokens, _) = tokens(golden);
    let strings = golden.strings.iter().map(|string| {
        (format!("{:?}", string.text), tokens.encode_text(&string.text).unwrap(), &string.tokens)
    });
    let prompts =
        golden.prompts.iter().map(|prompt| (prompt.name.clone(), encoded(&tokens, prompt), &prompt.tokens));
    let differs = strings.chain(prompts).filter(|(_, ours, theirs)| ours != *theirs);
    differs.map(|(name, ours, theirs)| format!("{name}: {ours:?}, to the oracle {theirs:?}")).collect()
}

#[test]
fn answers_and_tokens_are_the_oracles() {
    let golden = Golden::read();
    let mismatches = mismatches(&golden);
    let verdicts: Vec<Verdict> =
        golden.prompts.iter().zip(&*ANSWERS).map(|(prompt, answer)| judge(prompt, answer)).collect();
    let count = |wanted: fn(&Verdict) -> bool| verdicts.iter().filter(|verdict| wanted(verdict)).count();
    let report = Report {
        prompts: verdicts.len(),
        exact: count(|verdict| matches!(verdict, Verdict::Exact)),
        near_tie: count(|verdict| matches!(verdict, Verdict::NearTie(_))),
        wrong: count(|verdict| matches!(verdict, Verdict::Wrong(_))),
        strings_tokenized: golden.strings.len() + golden.prompts.len(),
        token_mismatches: mismatches.len(),
    };
    report.write();
    for (prompt, verdict) in golden.prompts.iter().zip(&verdicts) {
        println!("{:28} {:4} tokens  {verdict}", prompt.name, prompt.tokens.len());
    }
    println!("{report:?}");
    assert!(mismatches.is_empty(), "{}", mismatches.join("\n"));
    assert_eq!(report.wrong, 0);
    assert!(report.exact >= LEAST_EXACT && report.prompts >= LEAST_PROMPTS, "{report:?}");
}

#[test]
fn answers_do_not_depend_on_the_company() {
    let alone = answers(Batch { sequences: 1, ..TOGETHER });
    let in_small_steps = answers(Batch { sequences: 5, step_tokens: 37 });
    for (index, prompt) in Golden::read().prompts.iter().enumerate() {
        assert_eq!(alone[index], ANSWERS[index], "{} alone", prompt.name);
        assert_eq!(in_small_steps[index], ANSWERS[index], "{} in small steps", prompt.name);
    }
}

/// The distances at all positions of some prompts, which come one after the other in `theirs`.
fn distances<'a>(
    mut machine: Machine,
    prompts: impl Iterator<Item = &'a Prompt>,
    theirs: &Logits,
) -> Distances {
    let mut distances = Distances::default();
    let mut first_position = 0;
    for prompt in prompts {
        let forced = prompt.forced();
        machine.each_position(&forced, |at, logits| {
            distances.add(Distance::between(&theirs.at(first_position + at), logits));
        });
        first_position += forced.len();
    }
    distances
}

#[test]
fn logits_are_near_the_oracles_at_every_position() {
    let golden = Golden::read();
    for kv_dtype in [KvDType::F32, KvDType::F16] {
        let machine = Checkpoint::read(&golden.sha256).machine(Isa::detect(), kv_dtype);
        let found = distances(machine, golden.prompts.iter(), &golden.logits);
        found.check(&format!("{kv_dtype:?} cache"), ROUNDED_AT_MOST, ROUNDED_MEAN);
    }
}

#[test]
fn without_rounded_activations_logits_are_the_oracles() {
    let golden = Golden::read();
    let machine = Checkpoint::read(&golden.sha256).widened().machine(Isa::detect(), KvDType::F32);
    let found = distances(machine, golden.prompts.iter().filter(|prompt| prompt.wide), &golden.wide);
    found.check("wide weights", WIDE, WIDE);
}

#[test]
fn vectors_are_near_the_oracles_and_do_not_depend_on_the_company() {
    let vectors = Vectors::read();
    let states = |wide: bool, batch| {
        let checkpoint = Checkpoint::read(&vectors.sha256);
        if wide { checkpoint.widened() } else { checkpoint }.states(&vectors.texts, batch)
    };
    for (wide, most) in [(false, VECTORS), (true, WIDE_VECTORS)] {
        let together = states(wide, TOGETHER);
        for (index, (state, text)) in together.iter().zip(&vectors.texts).enumerate() {
            let found = distance(&unit(state, state.len()).unwrap(), vectors.of(index, wide));
            println!("{:4} tokens, wide: {wide:5}, {found:.7} apart", text.tokens.len());
            assert!(found <= most, "{:?}: {found} apart", text.text);
        }
        if !wide {
            assert_eq!(states(wide, Batch { sequences: 1, step_tokens: 37 }), together);
        }
    }
    let (tokens, _) = tokens(&Golden::read());
    for text in &vectors.texts {
        assert_eq!(tokens.encode_text(&text.text).unwrap(), text.tokens, "{:?}", text.text);
    }
}

#[test]
fn an_answer_comes_in_whole_characters() {
    let golden = Golden::read();
    let (tokens, pieces) = tokens(&golden);
    let streams = |ids: &[u32]| -> Result<String, TestCaseError> {
        let bytes = pieces.bytes(ids);
        let whole = String::from_utf8_lossy(&bytes);
        prop_assert_eq!(&tokens.decode(ids), &whole);
        let mut stream = TextStream::new(Vec::new());
        let mut text: String = ids.iter().map(|id| stream.push(&tokens, *id).text).collect();
        text += &stream.finish(&tokens).text;
        prop_assert_eq!(&text, &whole);
        Ok(text)
    };
    for string in &golden.strings {
        assert_eq!(pieces.bytes(&string.tokens), string.bytes, "{:?}", string.text);
        let text = streams(&string.tokens).unwrap();
        assert_eq!(text, String::from_utf8_lossy(&string.bytes));
    }
    // A replacement character appears only where the bytes are none; that it is not there too soon follows from the
    // text being right in the end, for nothing is ever taken back.
    let token = prop_oneof![3 => select(pieces.fragments()), 1 => select(pieces.all())];
    let config = Config { cases: RANDOM_ANSWERS, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner.run(&vec(token, 0..LONGEST_RANDOM), |ids| streams(&ids).map(drop)).unwrap();
}
