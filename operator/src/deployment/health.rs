//! What keeps a pod from running, in words.
//!
//! In: a pod. Out: a reason of a closed set and a sentence with the kubelet's, the scheduler's or the runtime's own
//! words. It must not know whether the pod serves or fetches.

use contract::exit::ExitReport;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;

use super::reason::Reason;
use crate::kubelet::Fault;

/// What the API server says of a pod that others hold back, as quotas by queue do.
const GATED: &str = "SchedulingGated";

/// What keeps a pod from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// One word of a closed set.
    pub reason: Reason,
    /// For a person.
    pub message: String,
}

/// The first thing that is wrong with a pod, if anything is.
#[must_use]
pub fn problem(pod: &Pod) -> Option<Problem> {
    let status = pod.status.as_ref()?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if status.phase.as_deref() == Some("Failed") && status.reason.is_some() {
        let words = status.message.clone().unwrap_or_default();
        let reason =
            if status.reason.as_deref() == Some("Evicted") { Reason::Evicted } else { Reason::PodRejected };
        return Some(Problem { reason, message: format!("pod {name}: {words}") });
    }
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    if let Some(problem) = containers.filter_map(|container| of_container(name, container)).next() {
        return Some(problem);
    }
    let scheduled =
        status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    let words = scheduled.message.clone().unwrap_or_default();
    let gated = scheduled.reason.as_deref() == Some(GATED);
    let reason = if gated { Reason::SchedulingGated } else { Reason::Unschedulable };
    Some(Problem { reason, message: format!("pod {name}: {words}") })
}

fn of_container(pod: &str, container: &ContainerStatus) -> Option<Problem> {
    let state = container.state.as_ref();
    let ended = state.and_then(|s| s.terminated.as_ref()).filter(|t| t.exit_code != 0);
    let ended = ended.or_else(|| container.last_state.as_ref().and_then(|s| s.terminated.as_ref()));
    if container.ready {
        return None;
    }
    if let Some(ended) = ended.filter(|ended| ended.exit_code != 0) {
        if let Some(report) = ended.message.as_deref().and_then(ExitReport::from_line) {
            return Some(Problem { reason: Reason::Exit(report.reason), message: report.message });
        }
        let oom = ended.reason.as_deref() == Some("OOMKilled");
        let reason = if oom { Reason::OutOfMemory } else { Reason::ContainerFailed };
        let words = ended.message.clone().or_else(|| ended.reason.clone()).unwrap_or_default();
        let message = format!("pod {pod} ended with exit code {}: {}", ended.exit_code, words.trim());
        return Some(Problem { reason, message });
    }
    let waiting = state.and_then(|s| s.waiting.as_ref())?;
    let words = waiting.message.clone().unwrap_or_default();
    let reason = match waiting.reason.as_deref()? {
        "CrashLoopBackOff" => Reason::ContainerFailed,
        other => Reason::Kubelet(Fault::of(other)?),
    };
    Some(Problem { reason, message: format!("image {}: {words}", container.image) })
}

/// Whether the pod is ready and not going away.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// Since when the kubelet has had the pod, if all that it says is that the container is being made.
#[must_use]
pub fn creating_since(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref().filter(|_| pod.metadata.deletion_timestamp.is_none())?;
    let waiting = |c: &ContainerStatus| c.state.as_ref()?.waiting.as_ref()?.reason.clone();
    let mut containers = status.container_statuses.iter().flatten().filter_map(waiting);
    let creating =
        containers.any(|reason| ["ContainerCreating", "PodInitializing"].contains(&reason.as_str()));
    let mut conditions = status.conditions.iter().flatten();
    let bound = conditions.find(|c| c.type_ == "PodScheduled" && c.status == "True")?;
    bound.last_transition_time.as_ref().filter(|_| creating).map(|t| t.0)
}

/// Since when the scheduler has found no node for the pod.
#[must_use]
pub fn unschedulable_since(pod: &Pod) -> Option<Timestamp> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let refused = conditions.find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    // A pod may also wait for a gate that somebody else opens.
    refused
        .last_transition_time
        .as_ref()
        .filter(|_| refused.reason.as_deref() == Some("Unschedulable"))
        .map(|t| t.0)
}

/// When the pod ended, as far as its containers or its conditions tell.
#[must_use]
pub fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten();
    let finished =
        containers.filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|t| t.0));
    let moved =
        status.conditions.iter().flatten().filter_map(|c| c.last_transition_time.as_ref().map(|t| t.0));
    finished.chain(moved).max()
}

#[cfg(test)]
mod tests {
    use contract::exit::ExitReason;
    use serde_json::{Value, json};

    use super::*;

    fn found(status: &Value) -> Option<(&'static str, String)> {
        let pod = json!({ "metadata": { "name": "p" }, "status": status });
        problem(&serde_json::from_value(pod).unwrap()).map(|p| (p.reason.name(), p.message))
    }

    fn container(ready: bool, state: &Value, last: &Value) -> Value {
        let container = json!({
            "name": "c", "image": "i:1", "imageID": "", "ready": ready, "restartCount": 1,
            "state": state, "lastState": last,
        });
        json!({ "phase": "Running", "containerStatuses": [container] })
    }

    #[test]
    fn the_runtime_s_own_words_win() {
        let report = ExitReport { reason: ExitReason::BudgetTooSmall, message: "needs 2 GiB".into() };
        let last = json!({ "terminated": { "exitCode": 1, "message": report.to_line() } });
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off" } });
        let expected = Some(("BudgetTooSmall", "needs 2 GiB".to_owned()));
        assert_eq!(found(&container(false, &waiting, &last)), expected);
        assert_eq!(found(&container(true, &json!({ "running": {} }), &last)), None);
    }

    #[test]
    fn a_container_that_is_being_made_has_no_problem_of_its_own() {
        let since = |reason: &str, scheduled: &str| {
            let mut status = container(false, &json!({ "waiting": { "reason": reason } }), &json!({}));
            status["conditions"] = json!([{
                "type": "PodScheduled", "status": scheduled, "lastTransitionTime": "1970-01-01T00:00:07Z",
            }]);
            creating_since(&serde_json::from_value(json!({ "status": status })).unwrap())
                .map(Timestamp::as_second)
        };
        assert_eq!(since("ContainerCreating", "True"), Some(7));
        assert_eq!(since("ContainerCreating", "False"), None);
        assert_eq!(since("ErrImagePull", "True"), None);
    }

    #[test]
    fn the_kubelet_and_the_scheduler_are_quoted() {
        let pull = json!({ "waiting": { "reason": "ErrImagePull", "message": "not found" } });
        let expected = Some(("ImagePullFailed", "image i:1: not found".to_owned()));
        assert_eq!(found(&container(false, &pull, &json!({}))), expected);
        let oom = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } });
        assert_eq!(found(&container(false, &oom, &json!({}))).unwrap().0, "OutOfMemory");
        let condition = json!({ "type": "PodScheduled", "status": "False", "message": "0/1 nodes" });
        let pending = json!({ "phase": "Pending", "conditions": [condition] });
        assert_eq!(found(&pending), Some(("Unschedulable", "pod p: 0/1 nodes".to_owned())));
        let gated = json!({
            "type": "PodScheduled", "status": "False", "reason": GATED, "message": "Scheduling is blocked",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let gated = json!({ "phase": "Pending", "conditions": [gated] });
        assert_eq!(found(&gated), Some(("SchedulingGated", "pod p: Scheduling is blocked".to_owned())));
        let pod: Pod = serde_json::from_value(json!({ "status": gated })).unwrap();
        assert_eq!(unschedulable_since(&pod), None, "another node would not help");
        let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": "low on memory" });
        assert_eq!(found(&evicted).unwrap().0, "Evicted");
        assert_eq!(found(&json!({ "phase": "Pending" })), None);
    }
}
