//! Events for people (`events.k8s.io`), made of what changed in an object's conditions.
//!
//! In: conditions before and after. Out: events. An event that cannot be written is logged and forgotten: it must
//! never fail a pass. Nothing is written for a condition that stays as it is.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use crate::api::condition::{ConditionStatus, find};
use crate::apply::refusal::{self, RefusalReason};
use crate::client::CALL;
use crate::telemetry::chain;

/// Most bytes of a note that the API server takes.
const NOTE_BYTES: usize = 1024;

/// What to tell people about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whether somebody may have to act.
    pub severity: Severity,
    /// The condition that changed.
    pub action: String,
    /// Its reason.
    pub reason: String,
    /// Its message.
    pub text: String,
}

/// Whether somebody may have to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// For information.
    Normal,
    /// Something needs to be looked at.
    Warning,
}

/// One note for everything that is said by conditions whose status or reason changed to something known.
#[must_use]
pub fn transitions(
    before: &[Condition],
    after: &[Condition],
    is_warning: impl Fn(&Condition) -> bool,
) -> Vec<Note> {
    let changed = |condition: &&Condition| {
        condition.status != ConditionStatus::Unknown.name()
            && !condition.message.is_empty()
            && find(before, &condition.type_)
                .is_none_or(|old| (&old.status, &old.reason) != (&condition.status, &condition.reason))
    };
    let mut notes: Vec<Note> = Vec::new();
    for condition in after.iter().filter(changed) {
        let severity = if is_warning(condition) { Severity::Warning } else { Severity::Normal };
        let (reason, text) = (condition.reason.clone(), condition.message.clone());
        // What keeps one thing from being so keeps others too, and is told once.
        match notes.iter_mut().find(|note| (&note.reason, &note.text) == (&reason, &text)) {
            Some(note) => note.severity = note.severity.max(severity),
            None => notes.push(Note { severity, action: condition.type_.clone(), reason, text }),
        }
    }
    notes
}

/// Writes events. Equal ones within minutes become one with a count.
#[derive(Clone)]
pub struct Events(Recorder);

impl Events {
    /// `controller` and `instance` name this program and process.
    #[must_use]
    pub fn new(client: Client, controller: &str, instance: &str) -> Self {
        let reporter = Reporter { controller: controller.to_owned(), instance: Some(instance.to_owned()) };
        Self(Recorder::new(client, reporter))
    }

    /// Writes the notes about this object.
    pub async fn publish(&self, about: &ObjectReference, notes: Vec<Note>) {
        for mut note in notes {
            note.text.truncate(note.text.floor_char_boundary(NOTE_BYTES));
            let event = Event {
                type_: match note.severity {
                    Severity::Normal => EventType::Normal,
                    Severity::Warning => EventType::Warning,
                },
                reason: note.reason,
                note: Some(note.text),
                action: note.action,
                secondary: None,
            };
            match tokio::time::timeout(CALL, self.0.publish(&event, about)).await {
                Ok(Ok(())) => {}
                // What goes with its namespace needs to be told nobody.
                Ok(Err(error)) if is_of_namespace(&error) => {}
                Ok(Err(error)) => tracing::warn!(reason = event.reason, error = chain(&error), "no event"),
                Err(_) => {
                    tracing::warn!(reason = event.reason, "no event: the API server did not answer in time");
                }
            }
        }
    }
}

fn is_of_namespace(error: &kube::Error) -> bool {
    refusal::of(error).is_some_and(|refusal| refusal.reason == RefusalReason::NamespaceTerminating)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn condition(type_: &str, status: ConditionStatus, reason: &str) -> Condition {
        Condition {
            type_: type_.into(),
            status: status.name().into(),
            observed_generation: Some(1),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            reason: reason.into(),
            message: format!("{reason} it is"),
        }
    }

    #[test]
    fn only_changes_are_told() {
        let before = [
            condition("Ready", ConditionStatus::False, "Fetching"),
            condition("Stalled", ConditionStatus::False, "Healthy"),
        ];
        let after = [
            condition("Ready", ConditionStatus::False, "VolumeFull"),
            condition("Stalled", ConditionStatus::True, "VolumeFull"),
            condition("Fetched", ConditionStatus::Unknown, "Waiting"),
        ];
        let notes = transitions(&before, &after, |condition| condition.type_ == "Stalled");
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert_eq!((notes[0].severity, notes[0].reason.as_str()), (Severity::Warning, "VolumeFull"));
        assert_eq!(transitions(&after, &after, |_| true), []);
    }
}
