//! What is true of a deployment, computed anew from one pass.
//!
//! In: what the pass observed, decided and wrote. Out: the whole status. It must not know how anything is done.

use std::borrow::Cow;

use contract::http::Phase;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use super::demand::Chosen;
use super::observe::Observed;
use super::plan::Plan;
use super::reason::Reason;
use super::revision::served_name;
use super::validate::Validated;
use super::{health, names};
use crate::api::LlmDeployment;
use crate::api::condition::{ConditionStatus, Finding, conditions, find, overruled};
use crate::api::deployment::{CapacityStatus, LlmDeploymentStatus, MemoryStatus, RevisionStatus, Timings};
use crate::api::shared::Progress;
use crate::apply::Refusal;
use crate::events::{Note, transitions};

mod findings;

/// The condition that sums up all others.
pub const READY: &str = "Ready";
/// kstatus: it is being worked on.
pub const RECONCILING: &str = "Reconciling";
/// kstatus: nothing gets better by itself.
pub const STALLED: &str = "Stalled";
/// The spec can be served.
pub const ACCEPTED: &str = "Accepted";
/// Somebody answers.
pub const AVAILABLE: &str = "Available";
/// The weights can be served; if not, the reason is the model's own.
pub const MODEL_READY: &str = "ModelReady";
/// Every replica has its place.
pub const PLACED: &str = "Placed";
/// Change of a measured component, in hundredths, below which the status stays as it is.
const MEASURED_MOVES: u64 = 100;

/// What a pass came to.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// The object.
    pub llm: &'a LlmDeployment,
    /// What was observed.
    pub observed: &'a Observed,
    /// What is asked for, or what is wrong with it.
    pub validated: Result<&'a Validated, &'a str>,
    /// Name of the model that is to be served.
    pub model: Option<&'a str>,
    /// What a replica takes, or why that cannot be said although the model is ready.
    pub chosen: Option<Result<&'a Chosen, &'a health::Problem>>,
    /// Revision that the spec asks for, once the model is known.
    pub target: Option<&'a str>,
    /// What was to be written.
    pub plan: &'a Plan,
    /// What the API server refused.
    pub refusal: Option<&'a Refusal>,
    /// What was said of the refused places.
    pub refused: Option<&'a str>,
    /// What has to be known before replicas can be placed.
    pub unknown: Option<&'a str>,
    /// Whether cards are simulated.
    pub simulated: bool,
    /// Now.
    pub now: Timestamp,
}

/// How many replicas are how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Pods that are not going away.
    pods: u32,
    /// Of those, ready ones.
    ready: u32,
    /// Of those, of the target.
    updated: u32,
}

/// Computes the status. `placement` is left out: it is written before the pods, by a writer of its own.
#[must_use]
pub fn status(pass: &Pass<'_>) -> LlmDeploymentStatus {
    let old = pass.llm.status.clone().unwrap_or_default();
    let counts = counts(pass);
    let generation = pass.llm.metadata.generation.unwrap_or_default();
    let conditions = conditions(&old.conditions, findings::findings(pass, counts), generation, pass.now);
    let chosen = pass.chosen.and_then(Result::ok);
    let (namespace, name) = (&pass.llm.metadata.namespace, &pass.llm.metadata.name);
    let (namespace, name) = (namespace.clone().unwrap_or_default(), name.clone().unwrap_or_default());
    let weights = pass
        .observed
        .model
        .as_ref()
        .and_then(|m| Some(m.status.as_ref()?.inspection.as_ref()?.digest.clone()));
    LlmDeploymentStatus {
        observed_generation: Some(generation),
        timings: Some(timings(pass, &old, counts)),
        conditions,
        placement: Vec::new(),
        memory: chosen.map(|chosen| memory(pass, &old, chosen)),
        capacity: chosen.map(|chosen| CapacityStatus {
            context_length: chosen.capacity.context_length,
            concurrency: chosen.capacity.concurrency,
            kv_cache_type: chosen.capacity.kv_dtype,
        }),
        revision: Some(RevisionStatus {
            current: current(pass).or_else(|| old.revision.as_ref().and_then(|r| r.current.clone())),
            target: pass.target.map(str::to_owned),
            weights,
        }),
        model: pass.model.map(str::to_owned),
        served_name: Some(served_name(&name, &pass.llm.spec)),
        endpoint: Some(names::endpoint(&name, &namespace)),
        progress: progress(pass),
        replicas: i32::try_from(counts.pods).unwrap_or(i32::MAX),
        ready_replicas: i32::try_from(counts.ready).unwrap_or(i32::MAX),
        selector: Some(names::pod_selector(&name)),
        simulated: pass.simulated,
    }
}

/// The status, but for one condition: the pass failed for a passing reason, and is tried again.
#[must_use]
pub fn troubled(
    mut status: LlmDeploymentStatus,
    llm: &LlmDeployment,
    words: String,
    now: Timestamp,
) -> LlmDeploymentStatus {
    let trouble = finding(RECONCILING, ConditionStatus::True, Reason::ApiServerError, words);
    let old = llm.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let generation = llm.metadata.generation.unwrap_or_default();
    status.conditions = overruled(status.conditions, old, trouble, (generation, now));
    status
}

fn counts(pass: &Pass<'_>) -> Counts {
    let mut counts = Counts::default();
    for pod in pass.observed.pods.values().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        counts.pods += 1;
        if health::is_ready(pod) {
            counts.ready += 1;
            counts.updated += u32::from(revision_of(pod) == pass.target);
        }
    }
    counts
}

fn revision_of(pod: &k8s_openapi::api::core::v1::Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(contract::labels::REVISION).map(String::as_str)
}

/// The revision of most ready pods; of equals, the target.
fn current(pass: &Pass<'_>) -> Option<String> {
    let ready: Vec<&str> =
        pass.observed.pods.values().filter(|p| health::is_ready(p)).filter_map(|p| revision_of(p)).collect();
    let score = |revision: &&&str| {
        (
            ready.iter().filter(|other| other == revision).count(),
            Some(**revision) == pass.target,
            revision.len(),
        )
    };
    ready.iter().max_by_key(score).map(|revision| (*revision).to_owned())
}

fn memory(pass: &Pass<'_>, old: &LlmDeploymentStatus, chosen: &Chosen) -> MemoryStatus {
    let before = old.memory.as_ref().and_then(|memory| memory.measured);
    let measured = pass.observed.measured.as_ref().map(|status| status.measured);
    let moved = |new: contract::MemoryPlan, old: contract::MemoryPlan| {
        let pairs = new.components().into_iter().zip(old.components());
        pairs
            .into_iter()
            .any(|((_, new), (_, old))| new.0.abs_diff(old.0).saturating_mul(MEASURED_MOVES) > old.0)
    };
    let measured = match (measured, before) {
        (Some(new), Some(old)) if !moved(new, old) => Some(old),
        (Some(new), _) => Some(new),
        (None, old) => old,
    };
    MemoryStatus {
        per_replica: chosen.budget.to_string(),
        budget: chosen.budget,
        planned: chosen.memory,
        measured,
    }
}

/// The pod that has the longest way to go.
fn progress(pass: &Pass<'_>) -> Option<Progress> {
    let least =
        pass.observed.progress.values().min_by_key(|pace| (pace.reported.phase, pace.reported.bytes_done))?;
    let phase = match least.reported.phase {
        Phase::Starting => "Starting",
        Phase::SelfTest => "SelfTest",
        Phase::Loading => "Loading",
        Phase::WarmingUp => "WarmingUp",
        Phase::Ready | Phase::Draining => return None,
    };
    Some(least.progress(phase))
}

/// Each figure is set once.
fn timings(pass: &Pass<'_>, old: &LlmDeploymentStatus, counts: Counts) -> Timings {
    let old = old.timings.clone().unwrap_or_default();
    let created = pass.llm.metadata.creation_timestamp.as_ref().map_or(pass.now, |time| time.0);
    let since = u64::try_from(pass.now.duration_since(created).as_millis()).unwrap_or(0);
    let first = |old: Option<u64>, holds: bool| old.or(holds.then_some(since));
    let running = |pod: &k8s_openapi::api::core::v1::Pod| {
        pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
    };
    Timings {
        model_ready_milliseconds: first(old.model_ready_milliseconds, pass.target.is_some()),
        placed_milliseconds: first(old.placed_milliseconds, !pass.plan.placement.is_empty()),
        started_milliseconds: first(
            old.started_milliseconds,
            pass.observed.pods.values().any(|pod| running(pod)),
        ),
        ready_milliseconds: first(old.ready_milliseconds, counts.ready > 0),
    }
}

/// What people are told: what changed on the way to an answer. The other conditions sum that up.
#[must_use]
pub fn notes(before: &[Condition], after: &[Condition]) -> Vec<Note> {
    let told = |c: &&Condition| [ACCEPTED, MODEL_READY, PLACED, AVAILABLE].contains(&c.type_.as_str());
    let stalled = find(after, STALLED).is_some_and(|c| c.status == ConditionStatus::True.name());
    let is_wrong =
        |c: &Condition| stalled && c.status == ConditionStatus::False.name() && !Reason::passes(&c.reason);
    transitions(before, &after.iter().filter(told).cloned().collect::<Vec<_>>(), is_wrong)
}

/// A finding without ceremony.
fn finding(
    type_: &'static str,
    status: ConditionStatus,
    reason: impl Into<Cow<'static, str>>,
    message: impl Into<String>,
) -> Finding {
    Finding { type_, status, reason: reason.into(), message: message.into() }
}

#[cfg(test)]
mod tests;
