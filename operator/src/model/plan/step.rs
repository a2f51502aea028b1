//! The next step of a model that is to be kept.
//!
//! In: what was observed. Out: what to make, what to discard, what to say. It must not know of deletion or use.
//!
//! ```text
//! claim? → job of attempt n? → running → Complete → line in the log → inspection (job discarded once it is recorded)
//!                                      → Failed   → wait → job of attempt n + 1
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use contract::exit::ExitReason;
use contract::inspect::Inspection;
use contract::labels::MADE_FROM;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Resource, ResourceExt};

use super::{Keep, Wishes, required_nodes};
use crate::args::RuntimeArgs;
use crate::controller::Next;
use crate::model::attempt::{self, Attempt, State};
use crate::model::build::made_from;
use crate::model::claim::{claim_is_foreign, claim_name};
use crate::model::observe::{Log, Observed};
use crate::model::reason::{Cause, Reason};
use crate::owner::owns;

/// First pause between two attempts.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause: how long a model takes at most to notice that the cause of its failures is gone.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How often something is looked at that no watch tells: progress, events, a quota that was raised.
const POLL: Duration = Duration::from_secs(5);

/// Decides the next step.
pub(super) fn keep(observed: &Observed, settings: &RuntimeArgs) -> Keep {
    let claim = match usable(observed) {
        Ok(claim) => claim,
        Err(cause) => return Keep::wait(*cause, Next::OnChange),
    };
    if let (Some(inspection), Some(_)) = (observed.known(), claim) {
        let mut keep = verified(inspection);
        keep.discard.clone_from(&observed.jobs);
        return keep;
    }
    let mut keep = begin_or_follow(observed, settings);
    keep.make_claim = claim.is_none();
    keep
}

/// The claim of the weights; none if it is to be made.
fn usable(observed: &Observed) -> Result<Option<&PersistentVolumeClaim>, Box<Cause>> {
    let model = observed.model.as_ref();
    let (name, foreign) = (claim_name(model), claim_is_foreign(model));
    let cause = |reason: Reason, message: String| Err(Box::new(Cause::new(reason, message)));
    let Some(claim) = observed.claim.as_deref() else {
        return if foreign {
            cause(
                Reason::ClaimNotFound,
                format!("there is no PersistentVolumeClaim {name} in this namespace"),
            )
        } else if observed.known().is_some() {
            // The status must forget the weights before a new claim exists, or an empty claim would pass for them.
            cause(
                Reason::ClaimLost,
                format!("the PersistentVolumeClaim {name} is gone: the files are fetched again"),
            )
        } else {
            Ok(None)
        };
    };
    if claim.meta().deletion_timestamp.is_some() {
        return cause(Reason::ClaimTerminating, format!("the PersistentVolumeClaim {name} is being deleted"));
    }
    if !foreign && !owns(model, claim) {
        let message = format!(
            "the PersistentVolumeClaim {name} was not made for this model: delete it, or give the model another name"
        );
        return cause(Reason::NameTaken, message);
    }
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
        return cause(Reason::ClaimLost, format!("the volume of the PersistentVolumeClaim {name} is gone"));
    }
    Ok(Some(claim))
}

fn verified(inspection: &Inspection) -> Keep {
    let Inspection { digest, bytes, files, .. } = inspection;
    let plural = if *files == 1 { "" } else { "s" };
    let message = format!("{files} file{plural}, {bytes}, {digest}");
    let cause = Cause::new(Reason::WeightsVerified, message);
    Keep { inspection: Some(inspection.clone()), ..Keep::wait(cause, Next::OnChange) }
}

fn begin_or_follow(observed: &Observed, settings: &RuntimeArgs) -> Keep {
    let wishes = Wishes::of(&observed.users, &observed.read_on);
    let start = |number: u32, cause: Cause| Keep {
        start: Some((number, wishes.clone())),
        discard: observed.jobs.clone(),
        ..Keep::wait(cause, Next::OnChange)
    };
    let (Some(attempt), Some(job)) = (observed.attempt(), observed.jobs.last()) else {
        return start(1, Cause::new(Reason::Starting, "the job is being made"));
    };
    // A job cannot be changed: one that does not get on is made anew once it would be another. After a failure it is
    // made anew anyway. A pause lies between two, for what is asked for may go back and forth.
    let anew = || {
        observed.known_for >= pause(attempt.number)
            && would_differ(job, &made_from(&observed.model, settings, wishes.clone()), &observed.read_on)
    };
    // A pod that cannot run, or did not, may have had the wrong image: the right one need not wait.
    let outdated = attempt.image != settings.runtime_image;
    let stale = observed.jobs.iter().filter(|job| attempt::number(job) != attempt.number).cloned().collect();
    let wait = |cause: Cause, next: Next| Keep { discard: stale, ..Keep::wait(cause, next) };
    match &attempt.state {
        State::NoPod if anew() => start(attempt.number + 1, without_pod(observed)),
        State::NoPod => wait(without_pod(observed), Next::After(POLL)),
        State::Starting => wait(starting(observed), Next::After(POLL)),
        State::Blocked(cause) if outdated || anew() => start(attempt.number + 1, blocked(observed, cause)),
        State::Blocked(cause) => wait(blocked(observed, cause), Next::After(POLL)),
        State::Running(_) => wait(running(observed), Next::After(POLL)),
        State::Succeeded => match &observed.log {
            Some(Log::Found(inspection)) => verified(inspection),
            Some(Log::Unusable(why)) => {
                let message = format!("the job ended well, but what it found is not known: {why}");
                failed(observed, &attempt, &Cause::new(Reason::InspectionMissing, message), outdated)
                    .map_or_else(|cause| start(attempt.number + 1, cause), |(cause, next)| wait(cause, next))
            }
            Some(Log::Unreadable(why)) => {
                let message = format!("the job ended well, but its log cannot be read yet: {why}");
                wait(Cause::new(Reason::InspectionMissing, message), Next::After(POLL))
            }
            None => {
                wait(Cause::new(Reason::Inspecting, "the job ended well; its log is read"), Next::After(POLL))
            }
        },
        State::Failed(cause) => failed(observed, &attempt, cause, outdated)
            .map_or_else(|cause| start(attempt.number + 1, cause), |(cause, next)| wait(cause, next)),
    }
}

/// Whether a job made now would be another than this: of other things, or none of the nodes that it must run on has the
/// volume any more. One that an earlier operator made does not say what it was made from.
fn would_differ(job: &Job, made_from: &str, read_on: &BTreeSet<String>) -> bool {
    let pod = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let nodes = required_nodes(pod.and_then(|pod| pod.affinity.as_ref()));
    let has_moved = !nodes.is_empty() && !nodes.iter().any(|node| read_on.contains(*node));
    has_moved || job.annotations().get(MADE_FROM).is_none_or(|carried| carried != made_from)
}

/// Whether to wait after a failure (`Ok`) or to begin the next attempt (`Err`), and what to say meanwhile.
fn failed(
    observed: &Observed,
    attempt: &Attempt,
    cause: &Cause,
    outdated: bool,
) -> Result<(Cause, Next), Cause> {
    let n = attempt.number;
    let pause = pause(n);
    if outdated {
        return Err(Cause::new(
            cause.reason,
            format!("attempt {n}: {}; another image is tried", cause.message),
        ));
    }
    if is_final(observed, cause.reason) {
        let message =
            format!("{}; these files will not be tried again with this runtime image", cause.message);
        return Ok((Cause::new(cause.reason, message), Next::OnChange));
    }
    let hint = match cause.reason {
        Reason::Exit(ExitReason::VolumeFull) => {
            let claim = claim_name(&observed.model);
            format!("; make the PersistentVolumeClaim {claim} larger, or ask for a larger volume.size")
        }
        _ => String::new(),
    };
    let message =
        format!("attempt {n}: {}{hint}; the next attempt begins {} s later", cause.message, pause.as_secs());
    let cause = Cause::new(cause.reason, message);
    match pause.checked_sub(observed.over_for) {
        Some(left) if !left.is_zero() => Ok((cause, Next::After(left))),
        _ => Err(cause),
    }
}

/// Whether the same files will fail in the same way for ever. Files on a foreign claim may be replaced.
fn is_final(observed: &Observed, reason: Reason) -> bool {
    let pinned = !claim_is_foreign(&observed.model);
    pinned && matches!(reason, Reason::Exit(ExitReason::ModelUnsupported | ExitReason::ConfigInvalid))
}

fn pause(attempt: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2u32.saturating_pow(attempt.saturating_sub(1))).min(LONGEST_PAUSE)
}

fn without_pod(observed: &Observed) -> Cause {
    match &observed.job_warning {
        Some(warning) => Cause::new(Reason::PodRefused, format!("the job cannot make its pod: {warning}")),
        None => Cause::new(Reason::Starting, format!("the job has no pod yet{}", unread(observed))),
    }
}

fn starting(observed: &Observed) -> Cause {
    match &observed.claim_warning {
        Some(warning) => provisioning(warning),
        None => Cause::new(Reason::Starting, format!("the pod of the job is starting{}", unread(observed))),
    }
}

/// That more could be said.
fn unread(observed: &Observed) -> String {
    let words = |why| format!("; the events that may tell why cannot be read: {why}");
    observed.unread.as_ref().map(words).unwrap_or_default()
}

fn blocked(observed: &Observed, cause: &Cause) -> Cause {
    match (&observed.claim_warning, cause.reason) {
        (Some(warning), Reason::Unschedulable) => provisioning(warning),
        _ => cause.clone(),
    }
}

fn provisioning(warning: &str) -> Cause {
    Cause::new(Reason::ProvisioningFailed, format!("the claim gets no volume: {warning}"))
}

fn running(observed: &Observed) -> Cause {
    let reason = if claim_is_foreign(&observed.model) { Reason::Inspecting } else { Reason::Fetching };
    let node = observed.pod.as_ref().and_then(|pod| pod.spec.as_ref()?.node_name.clone());
    let at = node.map_or_else(String::new, |node| format!(" on node {node}"));
    let what = if reason == Reason::Fetching {
        "files are fetched and verified"
    } else {
        "files are read and hashed"
    };
    Cause::new(reason, format!("{what}{at}"))
}

impl Observed {
    /// The newest attempt, if there is one.
    fn attempt(&self) -> Option<Attempt> {
        self.jobs.last().map(|job| attempt::read(job, self.pod.as_deref()))
    }

    /// What the status knows of the weights.
    pub(in crate::model) fn known(&self) -> Option<&Inspection> {
        self.model.status.as_ref()?.inspection.as_ref()
    }
}
