//! The tools that a model may call: `tools`, `tool_choice`, `parallel_tool_calls`. Pure.

use serde_json::{Value as Json, json};

use super::fields::{Fields, short};
use super::{Invalid, InvalidKind, wrong};
use crate::dialect::Tool;

/// Most tools of a request, as OpenAI's.
const MAX_TOOLS: usize = 128;
/// Longest name of one.
const MAX_NAME: usize = 64;

/// Tools, and whether they have to be called.
#[derive(Clone, Debug, PartialEq)]
pub struct Tools {
    /// Those that may be called.
    pub callable: Vec<Tool>,
    /// As the client describes them, for the prompt.
    pub described: Vec<Json>,
    /// Whether one has to be.
    pub required: bool,
    /// Whether several may be.
    pub several: bool,
}

impl Default for Tools {
    /// None.
    fn default() -> Self {
        Self { callable: Vec::new(), described: Vec::new(), required: false, several: true }
    }
}

/// Takes all of them.
pub(super) fn tools(fields: &mut Fields) -> Result<Tools, Invalid> {
    let described = match fields.take("tools") {
        None => Vec::new(),
        Some(Json::Array(list)) if list.len() <= MAX_TOOLS => list,
        Some(_) => return Err(wrong("tools", format!("tools must be a list of at most {MAX_TOOLS} tools"))),
    };
    let all =
        described.iter().enumerate().map(|(at, tool)| self::tool(at, tool)).collect::<Result<Vec<_>, _>>()?;
    let several = fields.flag("parallel_tool_calls")?.unwrap_or(true);
    let choice = fields.take("tool_choice").unwrap_or_else(|| json!("auto"));
    let tools = Tools { callable: all, described, required: false, several };
    let chosen = match (choice.as_str(), &choice["type"]) {
        (Some("auto"), _) => Ok(tools),
        (Some("none"), _) => Ok(Tools::default()),
        (Some("required"), _) => Ok(Tools { required: true, ..tools }),
        (None, kind) if kind == "function" => named(tools, &choice),
        _ => {
            let message =
                "tool_choice must be \"none\", \"auto\", \"required\", or an object that names a function";
            Err(wrong("tool_choice", format!("{message}, not {}", short(&choice))))
        }
    }?;
    if chosen.required && chosen.callable.is_empty() {
        return Err(wrong("tool_choice", "tool_choice asks for a call, but there are no tools"));
    }
    Ok(chosen)
}

/// The prompt describes all tools, of which one has to be called.
fn named(tools: Tools, choice: &Json) -> Result<Tools, Invalid> {
    // Chat and responses write it differently.
    let name = choice["function"]["name"].as_str().or_else(|| choice["name"].as_str()).unwrap_or_default();
    let Some(tool) = tools.callable.iter().find(|tool| tool.name == name).cloned() else {
        let shown = short(&Json::from(name));
        return Err(wrong("tool_choice", format!("tool_choice names {shown}, which is not among the tools")));
    };
    Ok(Tools { callable: vec![tool], required: true, several: false, ..tools })
}

fn tool(at: usize, tool: &Json) -> Result<Tool, Invalid> {
    let param = |name: &str| format!("tools[{at}]{name}");
    if tool["type"] != "function" {
        let message = format!("{}: only tools of the type \"function\" are supported", param(".type"));
        return Err(Invalid::new(InvalidKind::Unsupported, &param(".type"), message));
    }
    let function = &tool["function"];
    let letter = |c: char| c.is_ascii_alphanumeric() || "_-.:/".contains(c);
    let good = |name: &&str| (1..=MAX_NAME).contains(&name.len()) && name.chars().all(letter);
    let Some(name) = function["name"].as_str().filter(good) else {
        let param = param(".function.name");
        return Err(wrong(&param, format!("{param} must have 1 to {MAX_NAME} letters, digits, or _-.:/")));
    };
    let parameters = match &function["parameters"] {
        Json::Null => json!({ "type": "object", "properties": {} }),
        Json::Object(schema) => Json::Object(schema.clone()),
        _ => {
            let param = param(".function.parameters");
            return Err(wrong(&param, format!("{param} must be a JSON schema")));
        }
    };
    let strict = match &function["strict"] {
        Json::Null => false,
        Json::Bool(strict) => *strict,
        _ => {
            let param = param(".function.strict");
            return Err(wrong(&param, format!("{param} must be true or false")));
        }
    };
    Ok(Tool { name: name.to_owned(), parameters, strict })
}
