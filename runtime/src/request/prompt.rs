//! `prompt` of plain completions and `input` of embeddings: a text, token ids, or a list of either. Pure.

use serde_json::Value as Json;

use super::fields::Fields;
use super::{Invalid, InvalidKind, Prompt};

/// Most prompts of one request.
pub(super) const MAX_PROMPTS: usize = 32;

/// Takes it.
pub(super) fn prompts(fields: &mut Fields, name: &str, most: usize) -> Result<Vec<Prompt>, Invalid> {
    let wrong = |message: String| Err(Invalid::new(InvalidKind::Value, name, message));
    let list = match fields.take(name) {
        None => return wrong(format!("{name} is missing")),
        Some(Json::String(text)) => return Ok(vec![Prompt::Text(text)]),
        Some(Json::Array(list)) if !list.is_empty() => list,
        Some(_) => return wrong(format!("{name} must be a text, a list of token ids, or a list of either")),
    };
    if let Some(ids) = ids(&list) {
        return Ok(vec![Prompt::Tokens(ids)]);
    }
    if list.len() > most {
        return wrong(format!("{name} has {} entries; there may be at most {most}", list.len()));
    }
    let one = |value: Json| match value {
        Json::String(text) => Some(Prompt::Text(text)),
        Json::Array(list) if !list.is_empty() => ids(&list).map(Prompt::Tokens),
        _ => None,
    };
    match list.into_iter().map(one).collect() {
        Some(prompts) => Ok(prompts),
        None => wrong(format!("every entry of {name} must be a text or a list of at least one token id")),
    }
}

/// Token ids, if all of them are.
pub(super) fn ids(list: &[Json]) -> Option<Vec<u32>> {
    list.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
}
