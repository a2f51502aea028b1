//! The status of a model: a value made of what was observed, planned and applied.
//!
//! In: [`Observed`], [`Keep`], [`Applied`], the time. Out: the whole status. It must not know how it is written.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::claim::claim_name;
use super::observe::Observed;
use super::plan::Keep;
use super::reason::{Cause, Mood, Reason};
use crate::api::LlmModel;
use crate::api::condition::{ConditionStatus, Finding, conditions, find, overruled};
use crate::api::model::LlmModelStatus;
use crate::apply::{Applied, RefusalReason};

/// Condition: the weights can be served.
pub const READY: &str = "Ready";
/// Condition, for kstatus: it is being worked on.
pub const RECONCILING: &str = "Reconciling";
/// Condition, for kstatus: something outside must change.
pub const STALLED: &str = "Stalled";

/// Makes the status.
#[must_use]
pub fn status(observed: &Observed, keep: &Keep, applied: &Applied, now: Timestamp) -> LlmModelStatus {
    let model = observed.model.as_ref();
    let cause = refused(applied).unwrap_or_else(|| keep.cause.clone());
    let inspection = keep.inspection.clone();
    let old = model.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let generation = model.metadata.generation.unwrap_or_default();
    let path = model.spec.source.persistent_volume_claim.as_ref().map(|claim| claim.path.clone());
    LlmModelStatus {
        observed_generation: Some(generation),
        conditions: conditions(old, findings(&cause, inspection.is_some()), generation, now),
        claim_name: Some(claim_name(model)),
        path: Some(path.unwrap_or_default()),
        size: inspection.as_ref().map(|inspection| inspection.bytes.to_string()),
        inspection,
        progress: observed.progress.clone(),
    }
}

/// The status of a model that is going away.
#[must_use]
pub fn removing(observed: &Observed, now: Timestamp) -> LlmModelStatus {
    let mut status = observed.model.status.clone().unwrap_or_default();
    let generation = observed.model.metadata.generation.unwrap_or_default();
    let message = format!("waiting until what {} made is gone", observed.model.name_any());
    let findings = findings(&Cause::new(Reason::Deleting, message), false);
    status.conditions = conditions(&status.conditions, findings, generation, now);
    status.observed_generation = Some(generation);
    status.progress = None;
    status
}

/// The status as it was, but for one condition: the last pass failed for a passing reason, and is tried again.
#[must_use]
pub fn troubled(model: &LlmModel, words: String, now: Timestamp) -> LlmModelStatus {
    let mut status = model.status.clone().unwrap_or_default();
    let trouble = Finding {
        type_: RECONCILING,
        status: ConditionStatus::True,
        reason: Reason::ApiServerError.name().into(),
        message: words,
    };
    let old = status.conditions.clone();
    let generation = model.metadata.generation.unwrap_or_default();
    status.conditions = overruled(status.conditions, &old, trouble, (generation, now));
    status
}

/// This status, but for the trouble that the model's present one tells of.
#[must_use]
pub fn still_troubled(mut status: LlmModelStatus, model: &LlmModel) -> LlmModelStatus {
    let old = model.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let trouble = find(old, RECONCILING).filter(|told| told.reason == Reason::ApiServerError.name());
    if let Some(told) = trouble {
        status.conditions.retain(|condition| condition.type_ != RECONCILING);
        status.conditions.push(told.clone());
        status.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    }
    status
}

fn refused(applied: &Applied) -> Option<Cause> {
    let (kind, name, refusal) = applied.refusal()?;
    let message = match refusal.reason {
        RefusalReason::NameTaken => refusal.message.clone(),
        _ => format!("the API server refuses {kind} {name}: {}", refusal.message),
    };
    Some(Cause::new(Reason::Refused(refusal.reason), message))
}

/// All conditions, always, in a fixed order.
fn findings(cause: &Cause, known: bool) -> Vec<Finding> {
    let Cause { reason, message } = cause;
    let mood = reason.mood();
    // A model that cannot go because it is in use still serves.
    let ready = mood == Mood::Done || known && *reason == Reason::InUse;
    let finding = |type_, holds: bool| Finding {
        type_,
        status: ConditionStatus::from(holds),
        reason: reason.name().into(),
        message: message.clone(),
    };
    vec![
        finding(READY, ready),
        finding(RECONCILING, mood == Mood::Working),
        finding(STALLED, mood == Mood::Stuck && !ready),
    ]
}
