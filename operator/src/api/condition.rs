//! Conditions: what is true of an object, since when, and why.
//!
//! In: findings with a reason each. Out: a list ordered by type whose transition times move only when a status
//! does. It must not know which conditions there are.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// Longest message, in bytes: what fits on a screen, and keeps a status small.
pub const MAX_MESSAGE: usize = 4096;

/// Whether something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Not known yet.
    Unknown,
}

impl ConditionStatus {
    /// As the API spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// What was found, before it is known since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub type_: &'static str,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// One word of a closed set.
    pub reason: Cow<'static, str>,
    /// For a person.
    pub message: String,
}

/// Joins findings with what stood in the status before: a transition time is kept while the status is the same.
#[must_use]
pub fn conditions(
    old: &[Condition],
    findings: Vec<Finding>,
    observed_generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let join = |finding: Finding| {
        let Finding { type_, status, reason, mut message } = finding;
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        if message.is_empty() {
            message.push_str(&reason);
        }
        let same = old.iter().find(|c| c.type_ == type_ && c.status == status.name());
        Condition {
            type_: type_.to_owned(),
            status: status.name().to_owned(),
            observed_generation: Some(observed_generation),
            last_transition_time: same.map_or(Time(whole_seconds(now)), |c| c.last_transition_time.clone()),
            reason: reason.into_owned(),
            message,
        }
    };
    findings.into_iter().map(join).collect()
}

/// `all` with this finding in the place of the one of its type. While `old` has it for the same reason its words stay
/// too, so that trouble which changes its words at each try does not change the status at each.
#[must_use]
pub fn overruled(
    mut all: Vec<Condition>,
    old: &[Condition],
    mut by: Finding,
    (observed_generation, now): (i64, Timestamp),
) -> Vec<Condition> {
    if let Some(before) = find(old, by.type_).filter(|before| before.reason == by.reason) {
        by.message.clone_from(&before.message);
    }
    all.retain(|condition| condition.type_ != by.type_);
    all.extend(conditions(old, vec![by], observed_generation, now));
    all.sort_by(|a, b| a.type_.cmp(&b.type_));
    all
}

/// The API keeps whole seconds; a fraction would make what is read back differ from what was written.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The condition of a type, if it is there.
#[must_use]
pub fn find<'a>(all: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    all.iter().find(|c| c.type_ == type_)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(status: ConditionStatus, message: &str) -> Vec<Finding> {
        vec![Finding { type_: "Ready", status, reason: "Because".into(), message: message.into() }]
    }

    #[test]
    fn the_time_moves_with_the_status_only() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = conditions(&[], finding(ConditionStatus::False, "a"), 1, at(10));
        let second = conditions(&first, finding(ConditionStatus::False, "b"), 2, at(20));
        assert_eq!(second[0].last_transition_time, first[0].last_transition_time);
        assert_eq!((second[0].message.as_str(), second[0].observed_generation), ("b", Some(2)));
        let third = conditions(&second, finding(ConditionStatus::True, "b"), 2, at(30));
        assert_eq!(third[0].last_transition_time, Time(at(30)));
    }

    #[test]
    fn trouble_overrules_one_condition_and_keeps_its_first_words() {
        let at = |second| (1, Timestamp::from_second(second).unwrap());
        let trouble = |words: &str| Finding {
            type_: "Reconciling",
            status: ConditionStatus::True,
            reason: "Trouble".into(),
            message: words.into(),
        };
        let well = conditions(&[], finding(ConditionStatus::True, "a"), 1, at(1).1);
        let first = overruled(well.clone(), &well, trouble("one"), at(10));
        assert_eq!((first.len(), find(&first, "Ready")), (2, well.first()));
        assert_eq!(find(&first, "Reconciling").unwrap().message, "one");
        let second = overruled(first.clone(), &first, trouble("two"), at(20));
        assert_eq!(second, first);
    }

    #[test]
    fn a_condition_always_has_words() {
        let one = conditions(&[], finding(ConditionStatus::True, ""), 1, Timestamp::UNIX_EPOCH);
        assert_eq!(one[0].message, "Because");
    }

    #[test]
    fn messages_are_cut_at_a_character() {
        let long = "é".repeat(MAX_MESSAGE);
        let cut = conditions(&[], finding(ConditionStatus::True, &long), 1, Timestamp::UNIX_EPOCH);
        assert!(cut[0].message.len() <= MAX_MESSAGE && long.starts_with(&cut[0].message));
    }
}
