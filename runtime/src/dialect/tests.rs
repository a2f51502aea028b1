use proptest::prelude::*;
use serde_json::json;

use super::*;
use ToolFormat::*;

fn tools() -> Vec<Tool> {
    let weather = json!({ "type": "object", "required": ["city"], "properties": {
        "city": { "type": "string" }, "days": { "type": "integer" },
        "unit": { "type": "string", "enum": ["C", "F"] }, "near": { "type": "array", "items": { "type": "string" } } } });
    let tool = |name: &str, parameters| Tool { name: name.into(), parameters, strict: false };
    vec![tool("weather", weather), tool("now", json!({ "type": "object", "properties": {} }))]
}

fn dialect(tools: ToolFormat) -> Dialect {
    Dialect { tools: Some(tools), thinks: true }
}

/// What was read, with neighbours of a kind put together.
fn read<'a>(
    dialect: Dialect,
    inside: bool,
    pieces: impl IntoIterator<Item = &'a str>,
    whole: bool,
) -> Vec<Delta> {
    let mut reader = Reader::new(dialect, tools(), inside);
    let mut deltas: Vec<Delta> = pieces.into_iter().flat_map(|piece| reader.push(piece)).collect();
    deltas.extend(reader.finish(whole));
    deltas.into_iter().fold(Vec::new(), |mut all, delta| {
        match (all.last_mut(), delta) {
            (Some(Delta::Content(text)), Delta::Content(more)) => text.push_str(&more),
            (Some(Delta::Reasoning(text)), Delta::Reasoning(more)) => text.push_str(&more),
            (_, delta) => all.push(delta),
        }
        all
    })
}

fn content(text: &str) -> Delta {
    Delta::Content(text.into())
}

fn reasoning(text: &str) -> Delta {
    Delta::Reasoning(text.into())
}

fn call(name: &str, arguments: &str) -> Delta {
    Delta::Call(Call { name: name.into(), arguments: arguments.into() })
}

/// Two calls as each family writes them.
fn written() -> [(ToolFormat, &'static str); 10] {
    [
        (
            Hermes,
            "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\":\"Bern\",\"days\":2}}\n</tool_call>\n<tool_call>\n{\"name\": \"now\"}\n</tool_call>",
        ),
        (
            QwenXml,
            "<tool_call>\n<function=weather>\n<parameter=city>\nBern\n</parameter>\n<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
        ),
        (
            Llama,
            "{\"name\": \"weather\", \"parameters\": {\"city\":\"Bern\",\"days\":2}}; {\"name\": \"now\", \"parameters\": {}}",
        ),
        (
            DeepseekV3,
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\":\"Bern\",\"days\":2}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
        (
            DeepseekV31,
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\":\"Bern\",\"days\":2}<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
        (
            Glm,
            "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Bern</arg_value>\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>\n<tool_call>now\n</tool_call>",
        ),
        (
            Minimax,
            "<minimax:tool_call>\n<invoke name=\"weather\">\n<parameter name=\"city\">Bern</parameter>\n<parameter name=\"days\">2</parameter>\n</invoke>\n<invoke name=\"now\">\n</invoke>\n</minimax:tool_call>",
        ),
        (
            Mistral,
            "[TOOL_CALLS][{\"name\": \"weather\", \"arguments\": {\"city\":\"Bern\",\"days\":2}}, {\"name\": \"now\", \"arguments\": {}}]",
        ),
        (MistralArgs, "[TOOL_CALLS]weather[ARGS]{\"city\":\"Bern\",\"days\":2}[TOOL_CALLS]now[ARGS]{}"),
        (MistralArgs, "[TOOL_CALLS]weather{\"city\":\"Bern\",\"days\":2}[TOOL_CALLS]now[CALL_ID]x[ARGS]{}"),
    ]
}

#[test]
fn every_family_is_understood() {
    let both = [call("weather", r#"{"city":"Bern","days":2}"#), call("now", "{}")];
    for (format, text) in written() {
        assert_eq!(read(dialect(format), false, [text], true), both, "{format:?}");
        if format != Llama {
            let before = format!("<think>\nHm.\n</think>\n\nLet me see. \n{text}\n");
            let expected = [&[reasoning("Hm."), content("Let me see.")], &both[..]].concat();
            assert_eq!(read(dialect(format), false, [&*before], true), expected, "{format:?}");
        }
    }
}

#[test]
fn a_call_that_was_cut_off_is_no_call() {
    for (format, text) in written() {
        for end in text.char_indices().map(|(at, _)| at) {
            let deltas = read(dialect(format), false, [&text[..end]], false);
            let calls = deltas.iter().filter(|delta| matches!(delta, Delta::Call(_))).count();
            assert!(calls < 2, "{format:?}: {}", &text[..end]);
            // Nothing is lost either: what is no call is content.
            if calls == 0 {
                assert_eq!(deltas, if end == 0 { vec![] } else { vec![content(&text[..end])] });
            }
        }
    }
}

#[test]
fn what_is_no_call_is_content() {
    let hermes = |text: &str| read(dialect(Hermes), false, [text], true);
    for text in
        ["<tool_call>{\"name\": 7}</tool_call>", "<tool_call>", "a <tool_call> b", " a\n\n", "<tool_cal"]
    {
        assert_eq!(hermes(text), [content(text)]);
    }
    let many = format!("<tool_call>x{}", "</tool_call>".repeat(20));
    assert_eq!(hermes(&many), [content(&many)]);
    // A mark inside a string ends nothing, and a call that only lacks its end is one.
    let tricky = r#"<tool_call>{"name": "now", "arguments": {"a": "</tool_call>"}}"#;
    assert_eq!(hermes(tricky), [call("now", r#"{"a": "</tool_call>"}"#)]);
    assert_eq!(
        hermes(&format!("{tricky}</tool_call> ok")),
        [call("now", r#"{"a": "</tool_call>"}"#), content("ok")]
    );
    assert_eq!(
        hermes(r#"<tool_call>{"name": "now", "arguments": "{\"a\": 1}"}"#),
        [call("now", "{\"a\": 1}")]
    );
    let llama = |text: &str| read(dialect(Llama), false, [text], true);
    for text in [r#"{"name": "other", "parameters": {}}"#, r#"{"a": 1}"#, "{", "x {\"name\": \"now\"}"] {
        assert_eq!(llama(text), [content(text)]);
    }
    assert_eq!(llama(r#"<|python_tag|>{"name": "now", "parameters": {}}"#), [call("now", "{}")]);
    // Without tools nothing is a call.
    let mut reader = Reader::new(dialect(Hermes), vec![], false);
    assert_eq!(reader.push("x <tool_call>"), [content("x <tool_call>")]);
}

#[test]
fn reasoning_is_told_from_the_answer() {
    let read = |inside, text: &str| read(dialect(Hermes), inside, [text], true);
    assert_eq!(read(true, "\nwhy\n</think>\n\nso"), [reasoning("why"), content("so")]);
    assert_eq!(read(true, "why"), [reasoning("why")]);
    assert_eq!(read(false, "<think>\n\n</think>\n\nso"), [content("so")]);
    assert_eq!(read(false, " <think>a b\n c </think>"), [reasoning("a b\n c")]);
    assert_eq!(read(false, "so <think>x</think>"), [content("so <think>x</think>")]);
    assert_eq!(read(false, "<thin"), [content("<thin")]);
}

#[test]
fn values_have_the_types_of_the_schema() {
    let glm = |key: &str, value: &str| {
        let text = format!(
            "<tool_call>weather\n<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n</tool_call>"
        );
        let deltas = read(dialect(Glm), false, [&*text], true);
        let [Delta::Call(Call { arguments, .. })] = &deltas[..] else { panic!("{deltas:?}") };
        serde_json::from_str::<serde_json::Value>(arguments).unwrap()[key].clone()
    };
    assert_eq!((glm("city", "7"), glm("days", "7")), (json!("7"), json!(7)));
    assert_eq!((glm("near", "[\"a\"]"), glm("unit", "C")), (json!(["a"]), json!("C")));
    assert_eq!((glm("days", "many"), glm("unheard", "true")), (json!("many"), json!(true)));
}

#[test]
fn templates_show_their_dialect() {
    for (template, expected) in [
        ("<tool_call>\\n{\"name\": <function-name>, \"arguments\": …} '</think>'", dialect(Hermes)),
        ("<tool_call>\\n<function=example>", Dialect { tools: Some(QwenXml), thinks: false }),
        ("<tool_call>{tc.name}<arg_key></think>", dialect(Glm)),
        ("<minimax:tool_call> <invoke name=", Dialect { tools: Some(Minimax), thinks: false }),
        ("'<｜tool▁calls▁begin｜>' + '```json' </think>", dialect(DeepseekV3)),
        ("'<｜tool▁calls▁begin｜>' </think>", dialect(DeepseekV31)),
        ("[TOOL_CALLS] [ARGS]", Dialect { tools: Some(MistralArgs), thinks: false }),
        ("[TOOL_CALLS]", Dialect { tools: Some(Mistral), thinks: false }),
        ("<|start_header_id|> '\"parameters\": '", Dialect { tools: Some(Llama), thinks: false }),
        ("<|im_start|>{{ message.content }}", Dialect::default()),
    ] {
        assert_eq!(Dialect::detect(template), expected, "{template}");
    }
    assert_eq!("hermes".parse(), Ok(Hermes));
    assert!("herms".parse::<ToolFormat>().unwrap_err().contains("qwen3_coder"));
}

#[test]
fn flags_say_otherwise() {
    let said = |tools: &str, reasoning: &str| {
        let tools: ToolParser = tools.parse().unwrap();
        Said { tools: Some(tools), reasoning: Some(reasoning.parse().unwrap()) }
    };
    assert_eq!(said("none", "none").or(dialect(Glm)), Dialect::default());
    assert_eq!(said("hermes", "qwen3").or(Dialect::default()), dialect(Hermes));
    assert_eq!(Said::default().or(dialect(Glm)), dialect(Glm));
    assert!("thinking".parse::<ReasoningParser>().unwrap_err().contains("deepseek_r1"));
}

fn format() -> impl Strategy<Value = ToolFormat> {
    prop::sample::select(written().map(|(format, _)| format).to_vec())
}

/// Marks and other pieces in any order.
fn jumble() -> impl Strategy<Value = String> {
    let pieces =
        written().iter().flat_map(|(_, text)| text.split_inclusive(['>', '\n', ']'])).collect::<Vec<_>>();
    let others = ["<think>", "</think>", " ", "\n", "é", "{", "}", "<", "</", "x"];
    let pieces: Vec<&str> = pieces.into_iter().chain(others).collect();
    prop::collection::vec(prop::sample::select(pieces), 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn however_the_text_is_cut_it_says_the_same(
        format in format(), inside: bool, whole: bool, jumble in jumble(), written in 0..10usize, cuts in prop::collection::vec(0..400usize, 0..8)
    ) {
        for text in [&jumble, &format!("{jumble}{}", self::written()[written].1)] {
            let at_once = read(dialect(format), inside, [text.as_str()], whole);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| text.floor_char_boundary(*cut)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]);
            prop_assert_eq!(&read(dialect(format), inside, pieces, whole), &at_once);
            let characters = text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]);
            prop_assert_eq!(&read(dialect(format), inside, characters, whole), &at_once);
        }
    }
}
