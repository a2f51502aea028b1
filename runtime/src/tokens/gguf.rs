//! A byte-pair tokenizer from GGUF metadata. Source of the names: ggml's `docs/gguf.md`, section on the tokenizer;
//! of the splits: llama.cpp's `src/llama-vocab.cpp` and the published `tokenizer.json` of each family.
//!
//! In: metadata whose types are known and whose content is not trusted. Out: [`Tokens`].

use std::collections::BTreeSet;
use std::sync::Arc;

use contract::header::gguf::{Metadata, Value};
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use super::special::Special;
use super::{Template, Tokens, TokensError};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
const TYPES: &str = "tokenizer.ggml.token_type";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
/// End of a turn, and of a message, where they are not the end of the text.
const OTHER_ENDS: [&str; 2] = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
const TEMPLATE: &str = "tokenizer.chat_template";

/// `token_type`: control tokens never occur in text, user-defined ones do but are never split.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What happens to text before pairs are merged.
struct Pre {
    names: &'static [&'static str],
    /// Applied one after the other; every match and everything between becomes a piece.
    splits: &'static [&'static str],
    nfc: bool,
    /// A piece that is a token as a whole is taken as it is.
    whole_pieces: bool,
}

const PRES: [Pre; 5] = [
    Pre { names: &["gpt-2", "gpt2"], splits: &[GPT2], nfc: false, whole_pieces: false },
    Pre {
        names: &["smollm", "starcoder", "codeshell", "refact"],
        splits: &[r"\p{N}", GPT2],
        nfc: false,
        whole_pieces: false,
    },
    Pre {
        names: &["default"],
        splits: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        nfc: false,
        whole_pieces: false,
    },
    Pre { names: &["llama-bpe", "llama3", "llama-v3"], splits: &[LLAMA3], nfc: false, whole_pieces: true },
    Pre { names: &["qwen2"], splits: &[QWEN2], nfc: true, whole_pieces: false },
];

/// Builds the tokenizer.
pub(super) fn tokens(metadata: &Metadata) -> Result<Tokens, TokensError> {
    let text = |key: &str| metadata.get(key).and_then(Value::as_str);
    let model = text(MODEL).ok_or(TokensError::Missing(MODEL))?;
    if model != "gpt2" {
        let (what, found) = ("tokenizer model", model.to_owned());
        return Err(TokensError::Unsupported { what, found, known: "gpt2".into() });
    }
    let pre = pre(text(PRE).unwrap_or("default"))?;
    let vocabulary = metadata.get(TOKENS).and_then(Value::as_strings).ok_or(TokensError::Missing(TOKENS))?;
    let merges = metadata.get(MERGES).and_then(Value::as_strings).ok_or(TokensError::Missing(MERGES))?;
    let mut tokenizer = tokenizer(vocabulary, merges, pre)?;
    let types = metadata.get(TYPES).and_then(Value::as_ints).unwrap_or(&[]);
    add_tokens(&mut tokenizer, vocabulary, types)?;

    let id = |key: &str| metadata.get(key).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    let spelled = |key: &str| id(key).and_then(|id| vocabulary.get(id as usize)).cloned();
    let add_bos = metadata.get(ADD_BOS).and_then(Value::as_bool).unwrap_or(false);
    let mut ends: BTreeSet<u32> = id(EOS).into_iter().collect();
    ends.extend(OTHER_ENDS.iter().filter_map(|key| id(key)));
    let prefix = id(BOS).filter(|id| add_bos && (*id as usize) < vocabulary.len()).into_iter().collect();
    let template = text(TEMPLATE).map(|t| Template::new(t.to_owned(), spelled(BOS), spelled(EOS)));
    let (template, ends, special) = (template.transpose()?, Arc::new(ends), Special::default());
    Ok(Tokens { tokenizer, prefix, template, ends, special, longest: 0, vocab: 0 })
}

fn pre(name: &str) -> Result<&'static Pre, TokensError> {
    PRES.iter().find(|p| p.names.contains(&name)).ok_or_else(|| {
        let known: Vec<_> = PRES.iter().flat_map(|p| p.names).copied().collect();
        let (what, found) = ("pre-tokenizer", name.to_owned());
        TokensError::Unsupported { what, found, known: known.join(", ") }
    })
}

fn tokenizer(vocabulary: &[String], merges: &[String], pre: &Pre) -> Result<Tokenizer, TokensError> {
    let malformed = |text: String| TokensError::Malformed(text.into());
    let ids = vocabulary.iter().zip(0u32..).map(|(token, id)| (token.clone(), id)).collect();
    let pair = |merge: &String| {
        let pair = merge.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
        pair.ok_or_else(|| malformed(format!("the merge {merge:?} is not two tokens")))
    };
    let merges: Vec<_> = merges.iter().map(pair).collect::<Result<_, _>>()?;
    let model = BPE::builder().vocab_and_merges::<tokenizers::models::bpe::Vocab>(ids, merges);
    let model = model.ignore_merges(pre.whole_pieces).build().map_err(TokensError::Malformed)?;
    let mut tokenizer = Tokenizer::new(model);
    if pre.nfc {
        tokenizer.with_normalizer(Some(NFC)).map_err(TokensError::Malformed)?;
    }
    tokenizer.with_pre_tokenizer(Some(splits(pre, vocabulary)?));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, false)));
    Ok(tokenizer)
}

fn splits(pre: &Pre, vocabulary: &[String]) -> Result<PreTokenizerWrapper, TokensError> {
    let split = |pattern: String, behavior| {
        let split = Split::new(SplitPattern::Regex(pattern), behavior, false);
        split.map(PreTokenizerWrapper::from).map_err(TokensError::Malformed)
    };
    let isolated = |pattern: &&str| split((*pattern).to_owned(), SplitDelimiterBehavior::Isolated);
    let mut steps: Vec<_> = pre.splits.iter().map(isolated).collect::<Result<_, _>>()?;
    // Pieces are made by the splits above, so this only spells bytes as characters.
    steps.push(ByteLevel::new(false, true, false).into());
    let missing = missing_bytes(vocabulary);
    if !missing.is_empty() {
        // They have no token, and what stands on either side of one is never merged.
        steps.push(split(format!("[{missing}]"), SplitDelimiterBehavior::Removed)?);
    }
    Ok(Sequence::new(steps).into())
}

/// The characters for bytes that the vocabulary does not have, as a regular expression writes them.
fn missing_bytes(vocabulary: &[String]) -> String {
    let mut missing: BTreeSet<char> = ByteLevel::alphabet().into_iter().collect();
    for token in vocabulary {
        let mut characters = token.chars();
        if let (Some(character), None) = (characters.next(), characters.next()) {
            missing.remove(&character);
        }
    }
    missing.into_iter().map(|character| format!("\\x{{{:x}}}", u32::from(character))).collect()
}

fn add_tokens(tokenizer: &mut Tokenizer, vocabulary: &[String], types: &[i64]) -> Result<(), TokensError> {
    // An empty token would match everywhere.
    let typed = |kind: i64| {
        vocabulary
            .iter()
            .zip(types)
            .filter(move |(token, t)| **t == kind && !token.is_empty())
            .map(|(t, _)| t)
    };
    let added = |token: &String, special| AddedToken::from(token.clone(), special).normalized(false);
    let control: Vec<_> = typed(CONTROL).map(|t| added(t, true)).collect();
    let user: Vec<_> = typed(USER_DEFINED).map(|t| added(t, false)).collect();
    tokenizer.add_special_tokens(control).map_err(TokensError::Malformed)?;
    tokenizer.add_tokens(user).map_err(TokensError::Malformed)?;
    Ok(())
}
