//! Which conditions hold, and why. Each is present from the first pass.
//!
//! In: a pass. Out: findings in a fixed order. The first thing that is missing on the way to an answer gives the
//! summary its reason.

use super::{
    ACCEPTED, AVAILABLE, Counts, MODEL_READY, PLACED, Pass, READY, RECONCILING, STALLED, finding, health,
};
use crate::api::condition::ConditionStatus::{self, False, True, Unknown};
use crate::api::condition::{Finding, find};
use crate::deployment::reason::Reason;
use crate::kubelet::Fault;

/// All findings.
pub(super) fn findings(pass: &Pass<'_>, counts: Counts) -> Vec<Finding> {
    let path = [accepted(pass), model_ready(pass), placed(pass), available(pass, counts)];
    let missing = path.iter().find(|f| f.status != True);
    let wanted = pass.validated.map_or(0, |v| v.replicas);
    let settled = counts.updated == wanted && counts.pods == wanted && pass.refusal.is_none();
    let stuck = stuck(pass, missing);
    let asked_for_none = pass.validated.is_ok_and(|v| v.replicas == 0);
    let progressing = match (&stuck, settled && (missing.is_none() || asked_for_none)) {
        (_, true) if asked_for_none => {
            finding("Progressing", False, Reason::Settled, "no replicas are asked for, and none are left")
        }
        (_, true) => {
            finding("Progressing", False, Reason::Settled, "all replicas are of the target revision")
        }
        (Some(cause), false) => finding("Progressing", False, cause.reason.clone(), cause.message.clone()),
        (None, false) => {
            let words =
                format!("{} of {wanted} replicas are of the target revision and ready", counts.updated);
            finding("Progressing", True, Reason::RollingOut, words)
        }
    };
    let ready = summary(pass, counts, missing, settled);
    let reconciling = ConditionStatus::from(progressing.status == True);
    let (stalled, reason, words) = match &stuck {
        Some(cause) => (True, cause.reason.clone(), cause.message.clone()),
        None => (False, Reason::NotStalled.into(), "nobody has to do anything".to_owned()),
    };
    let mut all = Vec::from(path);
    all.push(finding(RECONCILING, reconciling, progressing.reason.clone(), progressing.message.clone()));
    all.extend([progressing, ready, finding(STALLED, stalled, reason, words)]);
    all.sort_by_key(|f| f.type_);
    all
}

/// What keeps a pod from running, as its status or else its events tell; what passes by itself hides nothing else.
fn problem(pass: &Pass<'_>) -> Option<health::Problem> {
    let by_status = pass.observed.pods.values().filter_map(|pod| health::problem(pod));
    let by_events = pass.observed.warnings.first_key_value().map(|(pod, words)| {
        let message = format!("pod {pod}: {words}");
        health::Problem { reason: Reason::Kubelet(Fault::ContainerNotCreated), message }
    });
    by_status.chain(by_events).min_by_key(|problem| Reason::passes(problem.reason.name()))
}

fn accepted(pass: &Pass<'_>) -> Finding {
    match pass.validated {
        Ok(_) => finding(ACCEPTED, True, Reason::Valid, "the spec can be served"),
        Err(why) => finding(ACCEPTED, False, Reason::Invalid, why),
    }
}

fn model_ready(pass: &Pass<'_>) -> Finding {
    const TYPE: &str = MODEL_READY;
    let name = pass.model.unwrap_or_default();
    let Some(model) = &pass.observed.model else {
        return match &pass.refusal {
            Some(refusal) => finding(TYPE, False, Reason::Refused(refusal.reason), refusal.message.clone()),
            None if pass.llm.spec.model.model_ref.is_some() => finding(
                TYPE,
                False,
                Reason::ModelNotFound,
                format!("there is no LlmModel {name} in this namespace"),
            ),
            None => finding(TYPE, Unknown, Reason::ModelPending, format!("LlmModel {name} is being made")),
        };
    };
    if pass.observed.model_goes() {
        let words = format!("LlmModel {name} is being deleted; another takes its place once it is gone");
        return finding(TYPE, Unknown, Reason::ModelPending, words);
    }
    let conditions = model.status.iter().flat_map(|status| &status.conditions).cloned().collect::<Vec<_>>();
    match find(&conditions, READY) {
        Some(ready) if ready.status == True.name() => {
            finding(TYPE, True, Reason::ModelReady, format!("LlmModel {name}: {}", ready.message))
        }
        Some(ready) if ready.status == False.name() => {
            // The model's own reason says more than any word for "not ready".
            finding(TYPE, False, ready.reason.clone(), format!("LlmModel {name}: {}", ready.message))
        }
        Some(ready) => {
            finding(TYPE, Unknown, Reason::ModelPending, format!("LlmModel {name}: {}", ready.message))
        }
        None => finding(
            TYPE,
            Unknown,
            Reason::ModelPending,
            format!("LlmModel {name} has not been looked at yet"),
        ),
    }
}

fn placed(pass: &Pass<'_>) -> Finding {
    const TYPE: &str = PLACED;
    if let Some(Err(why)) = pass.chosen {
        return finding(TYPE, False, why.reason, why.message.clone());
    }
    if pass.target.is_none() {
        return finding(TYPE, Unknown, Reason::ModelPending, "a replica's bytes are known once the model is");
    }
    if let Some(why) = pass.unknown {
        return finding(TYPE, Unknown, Reason::VolumePending, why);
    }
    if let Some(why) = pass.refused {
        return finding(TYPE, False, Reason::DoesNotFit, why);
    }
    if let Some((replica, node)) = pass.plan.waiting.first() {
        let words =
            format!("replica {replica} takes the place of its older revision on {node} once that has left");
        return finding(TYPE, False, Reason::WaitingForRoom, words);
    }
    let wanted = pass.plan.placement.iter().filter(|p| Some(p.revision.as_str()) == pass.target);
    let places: Vec<_> = wanted.map(|p| format!("replica {} on {}", p.replica, p.node)).collect();
    let words = if places.is_empty() { "no replicas are asked for".to_owned() } else { places.join(", ") };
    finding(TYPE, True, Reason::Placed, words)
}

fn available(pass: &Pass<'_>, counts: Counts) -> Finding {
    const TYPE: &str = AVAILABLE;
    if counts.ready > 0 {
        return finding(TYPE, True, Reason::Serving, serve(counts.ready));
    }
    if pass.validated.is_ok_and(|v| v.replicas == 0) {
        let suspended = pass.llm.spec.suspend;
        let reason = if suspended { Reason::Suspended } else { Reason::ScaledToZero };
        return finding(TYPE, False, reason, "no replicas are asked for");
    }
    if let Some(refusal) = pass.refusal {
        return finding(TYPE, False, Reason::Refused(refusal.reason), refusal.message.clone());
    }
    match problem(pass) {
        Some(problem) => finding(TYPE, False, problem.reason, problem.message),
        None if pass.observed.pods.is_empty() => finding(TYPE, False, Reason::NoPods, "there is no pod yet"),
        None => finding(TYPE, False, Reason::Loading, "the first replica is loading"),
    }
}

/// What will not pass by itself, or only when something outside changes.
fn stuck(pass: &Pass<'_>, missing: Option<&Finding>) -> Option<Finding> {
    if let Some(refusal) = pass.refusal {
        return Some(finding(STALLED, True, Reason::Refused(refusal.reason), refusal.message.clone()));
    }
    let missing = missing.filter(|f| f.status == False && !Reason::passes(&f.reason));
    let by_model =
        pass.observed.model.as_ref().and_then(|m| find(&m.status.as_ref()?.conditions, STALLED).cloned());
    let model_works = by_model.is_some_and(|stalled| stalled.status != True.name());
    missing.filter(|f| !(f.type_ == MODEL_READY && model_works)).cloned().or_else(|| {
        let problem = problem(pass).filter(|problem| !Reason::passes(problem.reason.name()))?;
        Some(finding(STALLED, True, problem.reason, problem.message))
    })
}

fn serve(n_ready: u32) -> String {
    if n_ready == 1 { "1 replica serves".to_owned() } else { format!("{n_ready} replicas serve") }
}

fn summary(pass: &Pass<'_>, counts: Counts, missing: Option<&Finding>, settled: bool) -> Finding {
    match missing {
        Some(cause) => finding(READY, False, cause.reason.clone(), cause.message.clone()),
        None if settled => finding(READY, True, Reason::Ready, serve(counts.ready)),
        None => match pass.refusal {
            Some(refusal) => finding(READY, False, Reason::Refused(refusal.reason), refusal.message.clone()),
            None => match problem(pass) {
                Some(problem) => finding(READY, False, problem.reason, problem.message),
                None => finding(
                    READY,
                    False,
                    Reason::RollingOut,
                    "not all replicas are of the target revision and ready",
                ),
            },
        },
    }
}
