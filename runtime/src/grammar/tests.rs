use std::time::Instant;

use super::*;
use proptest::prelude::*;

use crate::engine::constraint::{Constraint, allows};
use crate::fixture::toy;

/// Longest that a test waits for a hostile grammar; the fuel ends it long before.
const LONG: Duration = Duration::from_secs(20);

fn grammars() -> Grammars {
    let n = u32::try_from(toy::vocabulary().len()).unwrap();
    Grammars::new(Arc::new(Tokens::from_metadata(&toy::metadata(), n).unwrap())).unwrap()
}

fn compiled(grammar: Grammar) -> Result<Guided, GrammarError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(grammars().compile(grammar))
}

/// Bytes of text as the toy's tokens.
fn ids(text: &str) -> Vec<u32> {
    let n = u32::try_from(toy::vocabulary().len()).unwrap();
    Tokens::from_metadata(&toy::metadata(), n).unwrap().encode_plain(text)
}

fn end() -> u32 {
    toy::token("<end>")
}

/// How far a text may go: all of it and then end, all of it, or so many bytes.
#[derive(Debug, PartialEq)]
enum Fate {
    MayEnd,
    MustEnd,
    GoesOn,
    StopsAt(usize),
}

fn fate(mut guided: impl Constraint, text: &str) -> Fate {
    for (at, id) in ids(text).into_iter().enumerate() {
        if !guided.allowed().unwrap().is_none_or(|mask| allows(mask, id)) {
            return Fate::StopsAt(at);
        }
        if guided.chosen(id).unwrap() {
            return if at + 1 == text.len() { Fate::MustEnd } else { Fate::StopsAt(at + 1) };
        }
    }
    let mask = guided.allowed().unwrap();
    if mask.is_none_or(|mask| allows(mask, end())) { Fate::MayEnd } else { Fate::GoesOn }
}

fn schema(schema: Json) -> Guided {
    compiled(Grammar::JsonSchema { schema, strict: true }).unwrap()
}

#[test]
fn every_kind_of_grammar_holds_its_text() {
    let object = compiled(Grammar::JsonObject).unwrap();
    assert_eq!(fate(object.clone(), r#"{"a": [1, {"b": null}]}"#), Fate::MustEnd);
    assert_eq!(fate(object.fresh(), "[1]"), Fate::StopsAt(0));
    let point = json!({ "type": "object", "properties": { "x": { "type": "integer", "maximum": 9 } },
        "required": ["x"], "additionalProperties": false });
    assert_eq!(fate(schema(point.clone()), "{\"x\":\n  7}"), Fate::MustEnd);
    assert_eq!(fate(schema(point.clone()), r#"{"y": 7}"#), Fate::StopsAt(2));
    assert_eq!(fate(schema(point), r#"{"x": 77}"#), Fate::StopsAt(7));
    let regex = compiled(Grammar::Regex("a/?b+".into())).unwrap();
    assert_eq!(fate(regex.fresh(), "a/bb"), Fate::MayEnd);
    assert_eq!((fate(regex.fresh(), "a"), fate(regex, "b")), (Fate::GoesOn, Fate::StopsAt(0)));
    let choice = compiled(Grammar::Choice(vec!["yes".into(), "no \"x\"\n".into()])).unwrap();
    assert_eq!(fate(choice.fresh(), "yes"), Fate::MustEnd);
    assert_eq!((fate(choice.fresh(), "no \"x\"\n"), fate(choice, "ye")), (Fate::MustEnd, Fate::GoesOn));
    let lark = compiled(Grammar::Lark("start: \"a\" /[0-9]{2}/ | %json {\"type\":\"null\"}".into())).unwrap();
    assert_eq!((fate(lark.fresh(), "a42"), fate(lark, "null")), (Fate::MustEnd, Fate::MustEnd));
    assert_eq!(fate(schema(json!(true)), "[]"), Fate::MustEnd);
}

#[test]
fn white_space_does_not_go_on_for_ever() {
    let object = compiled(Grammar::JsonObject).unwrap();
    assert_eq!(fate(object.fresh(), &format!("{{{}", " ".repeat(32))), Fate::GoesOn);
    assert_eq!(fate(object, &format!("{{{}", " ".repeat(33))), Fate::StopsAt(33));
}

#[test]
fn schemas_may_be_recursive() {
    let tree = json!({ "$ref": "#/$defs/tree", "$defs": { "tree": { "type": "object", "properties": {
        "children": { "type": "array", "items": { "$ref": "#/$defs/tree" } } }, "additionalProperties": false } } });
    assert_eq!(fate(schema(tree.clone()), r#"{"children":[{},{"children":[]}]}"#), Fate::MustEnd);
    assert_eq!(fate(schema(tree), r#"{"children":[1"#), Fate::StopsAt(13));
}

#[test]
fn the_grammar_begins_after_the_reasoning() {
    let thinking = |inside| Thinking { open: ids("<t>"), close: ids("</t>"), inside };
    let guided = |inside| compiled(Grammar::Choice(vec!["yes".into()])).unwrap().after(thinking(inside));
    assert_eq!(fate(guided(true), "any</</t>yes"), Fate::MustEnd);
    assert_eq!(fate(guided(true), "any</t>no"), Fate::StopsAt(7));
    assert_eq!(fate(guided(false), "<t>any</t>yes"), Fate::MustEnd);
    assert_eq!((fate(guided(false), "yes"), fate(guided(false), "no")), (Fate::MustEnd, Fate::StopsAt(0)));
    assert_eq!(fate(guided(false), "<tt"), Fate::StopsAt(2));
    let fork = guided(false).fork();
    assert_eq!(format!("{fork:?}"), "Guided { phase: Before, .. }");
}

#[test]
fn what_is_complete_ends_and_what_is_used_twice_is_compiled_once() {
    let grammars = grammars();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let compile =
        |text: &str| runtime.block_on(grammars.compile(Grammar::Choice(vec![text.into()]))).unwrap();
    let mut first = compile("ab");
    assert!(!first.chosen(ids("a")[0]).unwrap());
    let again = compile("ab");
    assert_eq!(fate(again, "ab"), Fate::MustEnd);
    assert!(first.chosen(ids("b")[0]).unwrap());
    assert!(allows(first.allowed().unwrap().unwrap(), end()));
    for n in 0..2 * KEPT {
        compile(&n.to_string());
    }
    assert_eq!(grammars.kept.lock().unwrap().0.len(), KEPT);
}

fn refused(grammar: Grammar) -> String {
    let started = Instant::now();
    let error = compiled(grammar).map(|_| ()).expect_err("a refusal").to_string();
    assert!(started.elapsed() < LONG && error.len() < 600, "{error}");
    error
}

#[test]
fn refusals_name_the_place_or_the_limit() {
    let strict = |schema| Grammar::JsonSchema { schema, strict: true };
    let odd = json!({ "type": "object", "properties": { "a": { "type": "string", "contentEncoding": "x",
        "not": { "type": "null" } } } });
    let error = refused(strict(odd));
    assert!(error.contains("#/properties/a/not"), "{error}");
    let error = refused(strict(json!({ "items": { "type": "bogus" } })));
    assert!(error.contains("#/items/type"), "{error}");
    let error = refused(strict(json!({ "properties": { "a": { "maxLength": 1u64 << 40 } } })));
    assert_eq!(error, "maxLength is more than 10000 at #/properties/a/maxLength");
    assert!(refused(Grammar::Lark("root ::= \"x\"".into())).contains("EBNF"));
    assert!(refused(Grammar::Lark("start: nowhere".into())).contains("nowhere"));
    assert!(refused(Grammar::Regex("(".into())).contains("regex"));
    assert!(refused(Grammar::Choice(vec![])).contains("nothing to choose from"));
    let never = refused(strict(json!({ "allOf": [{ "type": "string" }, { "type": "null" }] })));
    assert!(never.contains("nsatisfiable"), "{never}");
}

/// Compiles it and goes on with it, or is refused in words; nothing panics.
fn tried(grammar: Grammar) {
    let mut guided = match compiled(grammar) {
        Ok(guided) => guided,
        Err(error) => {
            assert!(!error.to_string().contains("failed over it"), "{error}");
            return;
        }
    };
    for _ in 0..64 {
        let Ok(mask) = guided.allowed() else { break };
        let mask = mask.map(<[u32]>::to_vec);
        let next = (0..257).find(|id| mask.as_ref().is_none_or(|mask| allows(mask, *id))).unwrap();
        if next == end() || guided.chosen(next) != Ok(false) {
            break;
        }
    }
}

/// Keywords and values of schemas in any order, right or wrong.
fn schemas() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "string",
            "object",
            "array",
            "integer",
            "null",
            "#",
            "#/$defs/a",
            "^a|b$",
            "date",
            "(?=x)"
        ])
        .prop_map(Json::from),
        any::<bool>().prop_map(Json::from),
        (-9i64..99).prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        Just(Json::Null),
    ];
    let keywords = prop::sample::select(vec![
        "type",
        "properties",
        "items",
        "enum",
        "const",
        "anyOf",
        "oneOf",
        "allOf",
        "$ref",
        "$defs",
        "a",
        "required",
        "pattern",
        "format",
        "minLength",
        "maxLength",
        "minimum",
        "exclusiveMaximum",
        "multipleOf",
        "minItems",
        "maxItems",
        "prefixItems",
        "additionalProperties",
        "patternProperties",
        "minProperties",
        "not",
        "x-guidance",
    ]);
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            3 => prop::collection::vec((keywords.clone(), inner.clone()), 0..5)
                .prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<serde_json::Map<_, _>>().into()),
            1 => prop::collection::vec(inner, 0..4).prop_map(Json::from),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_schema_is_compiled_or_refused(schema in schemas(), strict: bool) {
        tried(Grammar::JsonSchema { schema, strict });
    }

    #[test]
    fn any_expression_is_compiled_or_refused(text in "[a-c(|)*+?\\[\\]{}0-9,^$.\\\\pd/\"é-]{0,24}") {
        tried(Grammar::Regex(text));
    }

    #[test]
    fn any_grammar_is_compiled_or_refused(rest in "[a-c_:|\"/()\\[\\]*+?~%<>{} \n.0-9-]{0,40}") {
        tried(Grammar::Lark(format!("start: a b\na: \"x\"\nb: {rest}\n")));
    }
}

/// Each either compiles within its limits or is refused; the process goes on, and soon.
#[test]
fn hostile_grammars_are_bounded() {
    let strict = |schema| Grammar::JsonSchema { schema, strict: true };
    let deep = (0..100).fold(json!({}), |inner, _| json!({ "items": inner }));
    assert!(refused(strict(deep)).contains("levels"));
    let large = json!({ "enum": vec!["x".repeat(1 << 10); 1 << 10] });
    assert!(refused(strict(large)).contains("262144"));
    assert!(refused(strict(json!({ "enum": vec![0; 20_001] }))).contains("parts"));
    assert!(refused(Grammar::Choice(vec![String::new(); 4097])).contains("choices"));
    assert!(refused(Grammar::Regex(format!("{}a{}", "(".repeat(99), ")".repeat(99)))).contains("brackets"));
    let chain = (0..60).map(|n| {
        (
            format!("d{n}"),
            json!({ "allOf": [{ "$ref": format!("#/$defs/d{}", n + 1) },
        { "$ref": format!("#/$defs/d{}", n + 1) }] }),
        )
    });
    let defs: serde_json::Map<_, _> = chain.chain([("d60".to_owned(), json!({ "type": "null" }))]).collect();
    for grammar in [
        strict(json!({ "$ref": "#/$defs/d0", "$defs": defs })),
        strict(json!({ "$ref": "#" })),
        strict(json!({ "allOf": [{ "$ref": "#" }, { "$ref": "#" }] })),
        strict(json!({ "enum": (0..9000).collect::<Vec<_>>() })),
        strict(json!({ "type": "string", "pattern": "(a|aa)+$|(.*.*.*.*x){50}" })),
        strict(json!({ "type": "string", "pattern": "^(.{0,9000}){9}$" })),
        strict(
            json!({ "anyOf": (0..200).map(|n| json!({ "maxLength": n, "type": "string" })).collect::<Vec<_>>() }),
        ),
        strict(
            json!({ "properties": (0..3000).map(|n| (n.to_string(), json!({}))).collect::<serde_json::Map<_, _>>() }),
        ),
        Grammar::Regex("(x+x+)+y".into()),
        Grammar::Regex("((((a{1,99}){1,99}){1,99}){1,99}){1,99}".into()),
        Grammar::Regex("(?:a|b|ab){0,2000}(?:c|d){0,2000}".into()),
        Grammar::Regex("a".repeat(200_000)),
        Grammar::Lark(format!("start: {}", "\"a\" | ".repeat(20_000) + "\"b\"")),
        Grammar::Lark("start: start start | \"a\" |".into()),
        Grammar::Lark(
            (0..500).map(|n| format!("r{n}: r{} r{}\n", n + 1, n + 1)).collect::<String>()
                + "r500: \"a\"\nstart: r0\n",
        ),
        Grammar::Lark(String::new()),
    ] {
        let shown: String = format!("{grammar:?}").chars().take(80).collect();
        let started = Instant::now();
        tried(grammar);
        assert!(started.elapsed() < LONG, "{shown}: {:?}", started.elapsed());
    }
}
