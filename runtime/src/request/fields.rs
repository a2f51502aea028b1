//! Typed access to the fields of a JSON object, with sentences for what is wrong. Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use super::bounds::{self, Beyond, MAX_DEPTH, MAX_VALUES};
use super::{Invalid, InvalidKind};

/// Fields that change nothing of the answer.
const HARMLESS: [&str; 8] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "include_obfuscation",
];
/// Bytes of a client's value that a message repeats.
const SHOWN: usize = 64;

/// What of the body has not been read yet.
pub(super) struct Fields {
    /// What goes before the names of fields: the path of the object that they are in.
    prefix: &'static str,
    map: Map<String, Json>,
    ignored: BTreeSet<String>,
}

impl Fields {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Invalid> {
        let wrong = |message: String| Invalid { kind: InvalidKind::Value, message, param: None };
        bounds::check(body).map_err(|beyond| match beyond {
            Beyond::Depth => wrong(format!("the body is nested deeper than {MAX_DEPTH} lists and objects")),
            Beyond::Values => wrong(format!("the body has more than {MAX_VALUES} values")),
        })?;
        match serde_json::from_slice(body) {
            Ok(Json::Object(map)) => Ok(Self::of("", map)),
            Ok(_) => Err(wrong("the body must be a JSON object".into())),
            Err(error) => Err(wrong(format!("the body is not valid JSON: {error}"))),
        }
    }

    /// The fields of an object within the body; `prefix` is its path, with a dot at the end.
    pub(super) fn of(prefix: &'static str, map: Map<String, Json>) -> Self {
        Self { prefix, map, ignored: BTreeSet::new() }
    }

    /// Removes a field; `null` means the same as leaving it out.
    pub(super) fn take(&mut self, name: &str) -> Option<Json> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// Says a field in another's place; `null` takes it away.
    pub(super) fn put(&mut self, name: &str, value: Json) {
        self.map.insert(name.to_owned(), value);
    }

    /// Whether a field says something.
    pub(super) fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    pub(super) fn list(&mut self, name: &str) -> Result<Option<Vec<Json>>, Invalid> {
        match self.take(name) {
            None => Ok(None),
            Some(Json::Array(list)) => Ok(Some(list)),
            Some(_) => Err(Invalid::new(InvalidKind::Value, name, format!("{name} must be a list"))),
        }
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Invalid> {
        match self.take(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, &other, "a text")),
        }
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Invalid> {
        match self.take(name) {
            None => Ok(None),
            Some(Json::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(self.wrong(name, &other, "true or false")),
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "sampling works in single precision")]
    pub(super) fn number(&mut self, name: &str, least: f64, most: f64) -> Result<Option<f32>, Invalid> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64().filter(|n| (least..=most).contains(n)) {
            Some(n) => Ok(Some(n as f32)),
            None => Err(self.wrong(name, &value, &format!("a number from {least} to {most}"))),
        }
    }

    /// A number of tokens.
    pub(super) fn amount(&mut self, name: &str) -> Result<Option<u32>, Invalid> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_u64().and_then(|n| u32::try_from(n).ok()) {
            Some(n) => Ok(Some(n)),
            None => Err(self.wrong(name, &value, &format!("a whole number from 0 to {}", u32::MAX))),
        }
    }

    /// A number of tokens, at least one.
    pub(super) fn count(&mut self, name: &str) -> Result<Option<u32>, Invalid> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n >= 1) {
            Some(n) => Ok(Some(n)),
            None => Err(self.wrong(name, &value, &format!("a whole number from 1 to {}", u32::MAX))),
        }
    }

    /// Any whole number of 64 bits; negative ones are as good as others.
    pub(super) fn integer(&mut self, name: &str) -> Result<Option<u64>, Invalid> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned)) {
            Some(n) => Ok(Some(n)),
            None => Err(self.wrong(name, &value, "a whole number of 64 bits")),
        }
    }

    /// A whole number of either sign.
    pub(super) fn rank(&mut self, name: &str) -> Result<Option<i32>, Invalid> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_i64().and_then(|n| i32::try_from(n).ok()) {
            Some(n) => Ok(Some(n)),
            None => {
                Err(self.wrong(name, &value, &format!("a whole number from {} to {}", i32::MIN, i32::MAX)))
            }
        }
    }

    /// A flag that may be said, but not otherwise.
    pub(super) fn only(&mut self, name: &str, value: bool) -> Result<(), Invalid> {
        match self.flag(name)? {
            Some(found) if found != value => {
                let message = format!("{name} is not supported, other than {value}");
                Err(Invalid::new(InvalidKind::Unsupported, name, message))
            }
            _ => Ok(()),
        }
    }

    /// Remembers that something was ignored.
    pub(super) fn ignore(&mut self, name: &str) {
        self.ignored.insert(name.to_owned());
    }

    /// Names what was ignored; anything else that is left is refused.
    pub(super) fn finish(mut self) -> Result<Vec<String>, Invalid> {
        for (name, value) in self.map {
            if HARMLESS.contains(&name.as_str()) {
                self.ignored.insert(format!("{}{name}", self.prefix));
            } else if !value.is_null() {
                let name = short(&Json::String(name));
                let name = format!("{}{}", self.prefix, name.trim_matches('"'));
                let message = format!("the field {name:?} is not supported");
                return Err(Invalid::new(InvalidKind::Unsupported, &name, message));
            }
        }
        Ok(self.ignored.into_iter().collect())
    }

    pub(super) fn wrong(&self, name: &str, value: &Json, expected: &str) -> Invalid {
        let name = format!("{}{name}", self.prefix);
        let message = format!("{name} must be {expected}, not {}", short(value));
        Invalid::new(InvalidKind::Value, &name, message)
    }
}

/// A client's value as a message may repeat it.
pub(super) fn short(value: &Json) -> String {
    let mut text = value.to_string();
    if text.len() > SHOWN {
        text.truncate(text.floor_char_boundary(SHOWN));
        text.push('…');
    }
    text
}
