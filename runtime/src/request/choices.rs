//! How many answers there are, and whether it is told how probable their tokens were. Pure.

use serde_json::Value as Json;

use super::fields::Fields;
use super::{Invalid, InvalidKind};

/// Most answers to one prompt, and to all prompts of a request.
const MAX_N: u16 = 16;
pub(super) const MAX_CHOICES: usize = 64;
/// Most tokens that are told of in place of one.
const MAX_TOP: u64 = 20;

/// Takes the number of answers.
pub(super) fn n(fields: &mut Fields) -> Result<u16, Invalid> {
    let Some(value) = fields.take("n") else { return Ok(1) };
    // Some clients write whole numbers with a point.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is checked to be whole and small"
    )]
    let n =
        value.as_f64().filter(|n| n.fract() == 0.0 && (1.0..=f64::from(MAX_N)).contains(n)).map(|n| n as u16);
    n.ok_or_else(|| fields.wrong("n", &value, &format!("a whole number from 1 to {MAX_N}")))
}

/// Whether it is told of the tokens of a chat, and of how many others: `logprobs` and `top_logprobs`.
pub(super) fn of_chat(fields: &mut Fields) -> Result<Option<u32>, Invalid> {
    let told = fields.flag("logprobs")?.unwrap_or(false);
    let top = top(fields, "top_logprobs")?;
    match (told, top) {
        (false, Some(1..)) => {
            let message = "top_logprobs only goes with \"logprobs\": true";
            Err(Invalid::new(InvalidKind::Value, "top_logprobs", message))
        }
        (false, _) => Ok(None),
        (true, top) => Ok(Some(top.unwrap_or(0))),
    }
}

/// The same of a plain completion: `logprobs` is the number.
pub(super) fn of_completion(fields: &mut Fields) -> Result<Option<u32>, Invalid> {
    match fields.take("logprobs") {
        None | Some(Json::Bool(false)) => Ok(None),
        Some(value) => {
            fields.put("logprobs", value);
            top(fields, "logprobs")
        }
    }
}

fn top(fields: &mut Fields, name: &str) -> Result<Option<u32>, Invalid> {
    let Some(value) = fields.take(name) else { return Ok(None) };
    match value.as_u64().filter(|n| *n <= MAX_TOP).and_then(|n| u32::try_from(n).ok()) {
        Some(n) => Ok(Some(n)),
        None => Err(fields.wrong(name, &value, &format!("a whole number from 0 to {MAX_TOP}"))),
    }
}
