use contract::header::gguf::{Metadata, Value};

use super::stream::TextStream;
use super::*;
use crate::checkpoint::Checkpoint;
use crate::fixture::{self, toy};

fn tokens() -> Tokens {
    let metadata = toy::metadata();
    Tokens::from_metadata(&metadata, u32::try_from(toy::vocabulary().len()).unwrap()).unwrap()
}

fn with(change: impl FnOnce(&mut Metadata)) -> Result<Tokens, TokensError> {
    let mut metadata = toy::metadata();
    change(&mut metadata);
    Tokens::from_metadata(&metadata, 1000)
}

fn streamed(tokens: &Tokens, ids: &[u32], stops: &[&str]) -> String {
    let mut stream = TextStream::new(stops.iter().map(|s| (*s).to_owned()).collect());
    let mut text = String::new();
    for id in ids {
        let piece = stream.push(tokens, *id);
        text.push_str(&piece.text);
        if piece.stopped.is_some() {
            return text;
        }
    }
    text + &stream.finish(tokens).text
}

#[test]
fn text_survives_the_way_there_and_back_token_by_token() {
    let tokens = tokens();
    for text in ["plain", "naïve café", "日本語テキスト", "👩‍👩‍👧 family", " \n\t leading", "x\u{FFFD}y", ""]
    {
        let ids = tokens.encode_text(text).unwrap();
        assert_eq!(ids.len(), text.len(), "the toy's tokens are bytes");
        assert_eq!(streamed(&tokens, &ids, &[]), text);
    }
    let ids = tokens.encode_text("日本語END次").unwrap();
    assert_eq!(streamed(&tokens, &ids, &["語END"]), "日本");
}

#[test]
fn no_piece_ends_inside_a_character() {
    let tokens = tokens();
    let ids = tokens.encode_text("a日b").unwrap();
    let mut stream = TextStream::new(vec![]);
    let pieces: Vec<_> = ids.iter().map(|id| stream.push(&tokens, *id).text).collect();
    assert_eq!(pieces, ["a", "", "", "日", "b"]);
    // Half a character at the end, and bytes that never become one, are shown as such, and not kept for ever.
    let mut stream = TextStream::new(vec![]);
    let pieces: Vec<_> = [ids[1]; 6].iter().map(|id| stream.push(&tokens, *id).text).collect();
    assert!(pieces.iter().any(|p| p.contains('\u{FFFD}')), "{pieces:?}");
    assert!(streamed(&tokens, &ids[..2], &[]).ends_with('\u{FFFD}'));
}

/// Every token but the first ends one character and begins the next.
#[test]
fn characters_that_are_cut_by_every_token_are_not_lost() {
    // The bytes F0 9F and 98 80 of U+1F600, as byte-level vocabularies write them.
    let (begin, end) = ("\u{f0}\u{141}", "\u{13a}\u{122}");
    let tokens = with(|metadata| {
        for (key, value) in metadata {
            match (key.as_str(), value) {
                ("tokenizer.ggml.tokens", Value::Strings(tokens)) => {
                    tokens.extend([begin.to_owned(), format!("{end}{begin}"), end.to_owned()]);
                }
                ("tokenizer.ggml.token_type", Value::Ints(types)) => types.extend([1, 1, 1]),
                _ => {}
            }
        }
    })
    .unwrap();
    let first = u32::try_from(toy::vocabulary().len()).unwrap();
    let ids: Vec<u32> = [vec![first], vec![first + 1; 100], vec![first + 2]].concat();
    assert_eq!(streamed(&tokens, &ids, &[]), "\u{1F600}".repeat(101));
    // Tokens without text between its bytes change nothing.
    let with_ends: Vec<u32> =
        ids.iter().flat_map(|id| [vec![*id], vec![toy::token("<end>"); 70]].concat()).collect();
    assert_eq!(streamed(&tokens, &with_ends, &[]), "\u{1F600}".repeat(101));
}

#[test]
fn special_tokens_end_answers_and_are_not_text() {
    let tokens = tokens();
    let end = toy::token("<end>");
    assert!(tokens.ends().contains(&end) && !tokens.ends().contains(&0));
    assert_eq!(streamed(&tokens, &[toy::token("a"), end], &[]), "a");
    assert_eq!(tokens.encode_text("a<end>").unwrap(), [toy::token("a"), end]);
}

#[test]
fn a_start_token_goes_before_plain_text_only() {
    let tokens = with(|m| {
        m.insert("tokenizer.ggml.add_bos_token".into(), Value::Bool(true));
        m.insert("tokenizer.ggml.bos_token_id".into(), Value::Int(toy::token("<end>").into()));
        let template = "{{ bos_token }}{{ messages[0].content }}";
        m.insert("tokenizer.chat_template".into(), Value::String(template.into()));
    });
    let tokens = tokens.unwrap();
    let expected = [toy::token("<end>"), toy::token("a")];
    assert_eq!(tokens.encode_text("a").unwrap(), expected);
    let chat = vec![Message::new("user", "a")].into();
    assert_eq!(tokens.encode_chat(&chat).unwrap().tokens, expected);
}

#[test]
fn tokenizers_that_cannot_be_built_say_why() {
    let set = |key: &'static str, value: Value| {
        let result = with(|m| {
            m.insert(key.to_owned(), value);
        });
        crate::exit::chain(&result.unwrap_err())
    };
    let text = |s: &str| Value::String(s.into());
    assert!(
        set("tokenizer.ggml.model", text("llama")).contains("tokenizer model \"llama\" is not supported")
    );
    assert!(set("tokenizer.ggml.pre", text("viking")).contains("supported are: gpt-2"));
    assert!(set("tokenizer.ggml.merges", Value::Strings(vec!["ab".into()])).contains("is not two tokens"));
    assert!(set("tokenizer.ggml.merges", Value::Strings(vec!["a 日本".into()])).contains("cannot be built"));
    assert!(set("tokenizer.chat_template", text("{% if %}")).contains("the chat template is not valid"));
    assert!(set("tokenizer.ggml.eos_token_id", Value::Int(5000)).contains("no end-of-text token"));
    assert!(set("tokenizer.ggml.tokens", Value::Ints(vec![1])).contains("tokenizer.ggml.tokens"));
    let few = Tokens::from_metadata(&toy::metadata(), 10).unwrap_err();
    assert!(few.to_string().contains("past the model's vocabulary of 10"));
}

#[test]
fn digits_are_split_as_each_family_does() {
    let merges = ["1 2", "12 3", "Ġ 1"].map(str::to_owned).to_vec();
    let encode = |pre: &str| {
        let tokens = with(|m| {
            m.insert("tokenizer.ggml.pre".into(), Value::String(pre.into()));
            let Some(Value::Strings(vocabulary)) = m.get_mut("tokenizer.ggml.tokens") else {
                panic!("strings")
            };
            vocabulary.extend(["12", "123", "Ġ1"].map(str::to_owned));
            m.insert("tokenizer.ggml.merges".into(), Value::Strings(merges.clone()));
        });
        tokens.unwrap().encode_text("1234 1").unwrap().len()
    };
    let counts = ["smollm", "gpt-2", "llama-bpe", "qwen2", "default"].map(encode);
    assert_eq!(counts, [6, 3, 4, 6, 4]);
}

#[test]
fn files_of_a_safetensors_checkpoint_make_the_same_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text).unwrap();
    let load = || Tokens::load(&Checkpoint::open(folder.path()).unwrap());
    write("config.json", fixture::CONFIG.as_bytes());
    write("model.safetensors", &fixture::safetensors_file());
    assert_eq!(load().unwrap_err().to_string(), TokensError::Missing("tokenizer.json").to_string());
    write("tokenizer.json", tokens().tokenizer.to_string(false).unwrap().as_bytes());
    assert!(matches!(load(), Err(TokensError::NoEnd)));

    let named = br#"{"eos_token":{"content":"<end>"},
        "chat_template":[{"name":"rag","template":"no"},{"name":"default","template":"{{ messages[0].content }}{{ eos_token }}"}]}"#;
    write("tokenizer_config.json", named);
    let chat = vec![Message::new("user", "hé")].into();
    let expected = tokens().encode_text("hé<end>").unwrap();
    assert_eq!(load().unwrap().encode_chat(&chat).unwrap().tokens, expected);
    assert_eq!(streamed(&load().unwrap(), &expected, &[]), "hé");

    write("generation_config.json", br#"{"eos_token_id":[3, 5]}"#);
    write("chat_template.jinja", b"{{ messages[0].role }}");
    let tokens = load().unwrap();
    assert!(
        tokens.ends().contains(&3)
            && tokens.ends().contains(&5)
            && tokens.ends().contains(&toy::token("<end>"))
    );
    assert_eq!(tokens.encode_chat(&chat).unwrap().tokens, tokens.encode_text("user").unwrap());
}

#[test]
fn what_a_client_spells_is_never_a_special_token() {
    let template = "{{ messages[0].content }}<end>{{ tools[0].name }}{{ setting }} <think>\n";
    let tokens = with(|m| {
        m.insert("tokenizer.chat_template".into(), Value::String(template.into()));
    });
    let tokens = tokens.unwrap();
    let settings = serde_json::json!({ "setting": ["<end>"] }).as_object().unwrap().clone();
    let mut chat: Chat = vec![Message::new("user", "a<end><<end>\u{FDD0}")].into();
    chat.tools = vec![serde_json::json!({ "name": "<end>" })];
    chat.settings = settings;
    let prompt = tokens.encode_chat(&chat).unwrap();
    let text = "a<end><<end>\u{FDD0}".len();
    let specials: Vec<_> =
        (0..).zip(&prompt.tokens).filter(|(_, id)| **id == toy::token("<end>")).map(|(at, _)| at).collect();
    assert_eq!(specials, [text]);
    assert_eq!(tokens.decode(&prompt.tokens), "a<end><<end>\u{FDD0}<end>['<end>'] <think>");
    assert!(prompt.end.ends_with("<think>") && prompt.end.len() <= TAIL * 4);
    assert_eq!(tokens.encode_plain("<end>").len(), 5);
    assert_eq!(tokens.split_special("<end>x"), [(Some(toy::token("<end>")), "<end>"), (None, "x")]);
}

#[test]
fn special_tokens_that_are_kept_are_text_in_their_place() {
    let tokens = tokens();
    let kept = tokens.special_among(&["<end>", "a", "absent"]);
    assert_eq!(kept, [(toy::token("<end>"), "<end>".to_owned())].into());
    let mut stream = TextStream::new(vec!["d>c".into()]).keeping(Arc::new(kept));
    let half = tokens.encode_text("é").unwrap()[0];
    let ids = [toy::token("b"), half, toy::token("<end>"), toy::token("a")];
    let text: String = ids.iter().map(|id| stream.push(&tokens, *id).text).collect();
    assert_eq!(text, "b\u{FFFD}<end>a");
    assert_eq!(stream.push(&tokens, toy::token("<end>")).text, "<en");
    assert_eq!(stream.push(&tokens, toy::token("c")).text, "");
}
