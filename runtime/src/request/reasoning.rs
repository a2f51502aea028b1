//! How much a model reasons, and what else its template is told: `reasoning_effort`, `include_reasoning`,
//! `chat_template_kwargs`, and which turn comes next. Pure.

use serde_json::{Map, Value as Json};

use super::fields::{Fields, short};
use super::{Invalid, InvalidKind};
use crate::tokens::template::RESERVED;

const KWARGS: &str = "chat_template_kwargs";
/// Most settings of a template.
const MAX_SETTINGS: usize = 32;
/// Efforts that somebody's API knows, the first of which is none.
const EFFORTS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];
/// What templates of different families call the switch.
const SWITCHES: [&str; 2] = ["enable_thinking", "thinking"];

/// What a template is told beside the messages.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    pub(super) settings: Map<String, Json>,
    pub(super) include_reasoning: bool,
    /// Whether the answer goes on with the last message.
    pub(super) continues: bool,
}

/// Takes all of them. What the client tells the template itself counts more than what follows from the effort.
pub(super) fn told(fields: &mut Fields) -> Result<Told, Invalid> {
    let mut settings = match fields.take(KWARGS) {
        None => Map::new(),
        Some(Json::Object(map)) if map.len() <= MAX_SETTINGS => map,
        Some(_) => {
            let message = format!("{KWARGS} must be an object of at most {MAX_SETTINGS} settings");
            return Err(Invalid::new(InvalidKind::Value, KWARGS, message));
        }
    };
    if let Some(name) = settings.keys().find(|name| RESERVED.contains(&name.as_str())) {
        let param = format!("{KWARGS}.{name}");
        let message = format!("{param} is what the request itself says, and cannot be set");
        return Err(Invalid::new(InvalidKind::Value, &param, message));
    }
    if let Some(effort) = fields.text("reasoning_effort")? {
        if !EFFORTS.contains(&effort.as_str()) {
            let shown = short(&Json::String(effort));
            let message = format!("reasoning_effort must be one of {}, not {shown}", EFFORTS.join(", "));
            return Err(Invalid::new(InvalidKind::Value, "reasoning_effort", message));
        }
        for switch in SWITCHES {
            settings.entry(switch).or_insert_with(|| (effort != EFFORTS[0]).into());
        }
        settings.entry("reasoning_effort").or_insert_with(|| effort.into());
    }
    let include_reasoning = fields.flag("include_reasoning")?.unwrap_or(true);
    let continues = fields.flag("continue_final_message")?.unwrap_or(false);
    let next_turn = fields.flag("add_generation_prompt")?.unwrap_or(!continues);
    if next_turn == continues {
        let message =
            "add_generation_prompt and continue_final_message say which turn comes: exactly one must be true";
        return Err(Invalid::new(InvalidKind::Value, "add_generation_prompt", message));
    }
    Ok(Told { settings, include_reasoning, continues })
}
