use contract::header::gguf::Value;
use serde_json::json;

use super::*;
use crate::dialect::{Call, Delta, Tool};
use crate::engine::constraint::allows;
use crate::fixture::toy;

const FORMATS: [ToolFormat; 9] = [
    ToolFormat::Hermes,
    ToolFormat::QwenXml,
    ToolFormat::Llama,
    ToolFormat::DeepseekV3,
    ToolFormat::DeepseekV31,
    ToolFormat::Glm,
    ToolFormat::Minimax,
    ToolFormat::Mistral,
    ToolFormat::MistralArgs,
];

fn guides(template: &str) -> Guides {
    let mut metadata = toy::metadata();
    metadata.insert("tokenizer.chat_template".into(), Value::String(template.into()));
    let n = u32::try_from(toy::vocabulary().len()).unwrap();
    Guides::new(Arc::new(Tokens::from_metadata(&metadata, n).unwrap()), Said::default()).unwrap()
}

fn tools(required: bool, several: bool, strict: bool) -> Tools {
    let weather = json!({ "type": "object", "required": ["city"], "additionalProperties": false, "properties": {
        "city": { "type": "string" }, "days": { "$ref": "#/$defs/n" }, "unit": { "enum": ["C", "F"] } },
        "$defs": { "n": { "type": "integer" } } });
    let none = json!({ "type": "object", "properties": {}, "additionalProperties": false });
    let tool = |name: &str, parameters| Tool { name: name.into(), parameters, strict };
    let callable = vec![tool("weather", weather), tool("now", none)];
    Tools { callable, described: vec![json!({ "name": "weather" })], required, several }
}

fn guide(guides: &Guides, tools: &Tools, format: Option<Grammar>, end: &str) -> Guide {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(guides.chat(tools, format, end)).unwrap()
}

/// Walks a text as far as it is allowed to go, and whether it may end there.
fn walk(guides: &Guides, guide: &mut Guide, text: &str) -> (usize, bool) {
    let end = *guides.tokens.ends().first().unwrap();
    let Some(constraint) = &mut guide.constraint else { return (text.len(), true) };
    for (at, id) in guides.tokens.encode_mark(text).into_iter().enumerate() {
        if constraint.allowed().unwrap().is_some_and(|mask| !allows(mask, id)) {
            return (at, false);
        }
        if constraint.chosen(id).unwrap() {
            return (at + 1, true);
        }
    }
    let may_end = constraint.allowed().unwrap().is_none_or(|mask| allows(mask, end));
    (text.len(), may_end)
}

/// The longest of the texts that are allowed from here, byte by byte, with the given wish where there is a choice.
fn spoken(guides: &Guides, guide: &mut Guide, wishes: &str) -> String {
    let end = *guides.tokens.ends().first().unwrap();
    let constraint = guide.constraint.as_mut().unwrap();
    let (mut spoken, mut wishes) = (Vec::new(), guides.tokens.encode_mark(wishes).into_iter().peekable());
    for _ in 0..600 {
        let mask = constraint.allowed().unwrap().unwrap().to_vec();
        let ids: Vec<u32> = (0..257).filter(|id| allows(&mask, *id)).collect();
        let id = match ids[..] {
            [only] => only,
            // White space that may come need not.
            _ => wishes
                .next_if(|id| allows(&mask, *id))
                .unwrap_or_else(|| panic!("{}", guides.tokens.decode(&spoken))),
        };
        if id == end {
            break;
        }
        spoken.push(id);
        if constraint.chosen(id).unwrap() {
            break;
        }
    }
    guides.tokens.decode(&spoken)
}

fn read(guide: &mut Guide, text: &str) -> Vec<Delta> {
    let mut deltas = guide.reader.push(text);
    deltas.extend(guide.reader.finish(true));
    deltas
}

fn call(name: &str, arguments: &str) -> Delta {
    Delta::Call(Call { name: name.into(), arguments: arguments.into() })
}

/// Two calls as the families write them.
fn written(format: ToolFormat) -> &'static str {
    match format {
        ToolFormat::Hermes => {
            "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\":\"Bern\",\"days\":2}}\n</tool_call>\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>"
        }
        ToolFormat::QwenXml => {
            "<tool_call>\n<function=weather>\n<parameter=city>\nBern\n</parameter>\n<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>"
        }
        ToolFormat::Llama => {
            "{\"name\": \"weather\", \"parameters\": {\"city\":\"Bern\",\"days\":2}}; {\"name\": \"now\", \"parameters\": {}}"
        }
        ToolFormat::DeepseekV3 => {
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\":\"Bern\",\"days\":2}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        }
        ToolFormat::DeepseekV31 => {
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\":\"Bern\",\"days\":2}<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        }
        ToolFormat::Glm => {
            "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Bern</arg_value>\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>\n<tool_call>now\n</tool_call>"
        }
        ToolFormat::Minimax => {
            "<minimax:tool_call>\n<invoke name=\"weather\">\n<parameter name=\"city\">Bern</parameter>\n<parameter name=\"days\">2</parameter>\n</invoke>\n<invoke name=\"now\">\n</invoke>\n</minimax:tool_call>"
        }
        ToolFormat::Mistral => {
            "[TOOL_CALLS][{\"name\": \"weather\", \"arguments\": {\"city\":\"Bern\",\"days\":2}}, {\"name\": \"now\", \"arguments\": {}}]"
        }
        ToolFormat::MistralArgs => {
            "[TOOL_CALLS]weather[ARGS]{\"city\":\"Bern\",\"days\":2}[TOOL_CALLS]now[ARGS]{}"
        }
    }
}

#[test]
fn what_the_grammar_asks_for_is_what_the_parser_reads() {
    let mut guides = guides("{{ tools }}");
    for format in FORMATS {
        guides.dialect = Dialect { tools: Some(format), thinks: false };
        let text = written(format);
        let mut several = guide(&guides, &tools(true, true, false), None, "");
        assert_eq!(walk(&guides, &mut several, text), (text.len(), true), "{format:?}");
        let expected = [call("weather", r#"{"city":"Bern","days":2}"#), call("now", "{}")];
        assert_eq!(read(&mut several, text), expected, "{format:?}");
        // One is enough, and without the required argument there is none.
        let mut one = guide(&guides, &tools(true, false, false), None, "");
        assert!(walk(&guides, &mut one, text).0 < text.len(), "{format:?}");
        let mut wrong = guide(&guides, &tools(true, true, false), None, "");
        let cut = text.replacen("Bern", "\u{1}", 1).replacen("city", "town", 1);
        assert!(walk(&guides, &mut wrong, &cut).0 < text.len() / 2, "{format:?}");
    }
}

#[test]
fn a_named_tool_is_spelled_by_the_grammar_alone() {
    let mut guides = guides("{{ tools }}");
    for format in FORMATS {
        guides.dialect = Dialect { tools: Some(format), thinks: true };
        let mut now = tools(true, false, false);
        now.callable.remove(0);
        let mut guide = guide(&guides, &now, None, "<think>");
        let constraint = guide.constraint.as_mut().unwrap();
        for id in guides.tokens.encode_mark("Hm.</think>") {
            assert!(constraint.allowed().unwrap().is_none());
            assert!(!constraint.chosen(id).unwrap());
        }
        let text = spoken(&guides, &mut guide, "}");
        let expected = [Delta::Reasoning("Hm.".into()), call("now", "{}")];
        assert_eq!(read(&mut guide, &format!("Hm.</think>{text}")), expected, "{format:?}: {text}");
    }
}

#[test]
fn strict_tools_are_held_to_their_schema_once_they_are_called() {
    let guides = guides("{{ tools }}<tool_call> arguments");
    let strict = tools(false, true, true);
    let free = guide(&guides, &tools(false, true, false), None, "");
    assert!(free.constraint.is_none());
    let good =
        "It is. <tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\":\"Bern\"}}\n</tool_call>";
    let mut guided = guide(&guides, &strict, None, "");
    assert_eq!(walk(&guides, &mut guided, good), (good.len(), true));
    let bad = "It is. <tool_call>\n{\"name\": \"weather\", \"arguments\": {\"town\":\"Bern\"}}\n</tool_call>";
    let mut guided = guide(&guides, &strict, None, "");
    assert_eq!(walk(&guides, &mut guided, bad), (bad.find("town").unwrap(), false));
    let mut guided = guide(&guides, &strict, None, "");
    assert_eq!(walk(&guides, &mut guided, "No call at all."), (15, true));
}

#[test]
fn an_answer_in_json_may_be_a_call_instead() {
    let guides = guides("{{ tools }}<tool_call> arguments");
    let schema = json!({ "type": "object", "required": ["x"], "properties": { "x": { "type": "integer" } }, "additionalProperties": false });
    let format = || Some(Grammar::JsonSchema { schema: schema.clone(), strict: false });
    for (text, ends) in [("{\"x\":1}", true), (written(ToolFormat::Hermes), true)] {
        let mut guided = guide(&guides, &tools(false, true, false), format(), "");
        assert_eq!(walk(&guides, &mut guided, text), (text.len(), ends));
    }
    let mut guided = guide(&guides, &tools(false, true, false), format(), "");
    assert_eq!(walk(&guides, &mut guided, "{\"y\":1}"), (2, false));
    let mut guided = guide(&guides, &Tools::default(), Some(Grammar::Regex("a+".into())), "");
    assert_eq!(walk(&guides, &mut guided, "aa"), (2, true));
}

#[test]
fn reasoning_that_the_prompt_closed_does_not_come_again() {
    let guides = guides("{{ messages }}</think>");
    let choice = || Some(Grammar::Choice(vec!["yes".into()]));
    let mut open = guide(&guides, &Tools::default(), choice(), "assistant\n<think>");
    assert_eq!(walk(&guides, &mut open, "Hm.</think>yes"), (14, true));
    assert_eq!(
        read(&mut open, "Hm.</think>\nyes"),
        [Delta::Reasoning("Hm.".into()), Delta::Content("yes".into())]
    );
    let mut closed = guide(&guides, &Tools::default(), choice(), "<think>\n\n</think>");
    assert_eq!(walk(&guides, &mut closed, "<think>"), (0, false));
    assert_eq!(read(&mut closed, "<think>yes"), [Delta::Content("<think>yes".into())]);
}

#[test]
fn models_that_know_no_tools_are_told_in_words() {
    let plain = guides("{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}");
    let mut called = Message::new("assistant", "");
    called.more.insert("tool_calls".into(), json!([{ "function": { "name": "now", "arguments": {} } }]));
    let messages = vec![Message::new("user", "Hi"), called, Message::new("tool", "12")];
    let chat = Chat { messages, tools: vec![json!({ "name": "now" })], ..Chat::default() };
    let taught = plain.taught(chat.clone());
    let roles: Vec<_> = taught.messages.iter().map(|message| message.role.as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user"]);
    assert!(taught.messages[0].content.contains("{\"name\":\"now\"}") && taught.tools.is_empty());
    assert!(taught.messages[2].content.starts_with("<tool_call>"));
    assert_eq!(guides("{{ tools }}").taught(chat.clone()), chat);
}
