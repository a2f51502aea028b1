//! What a job and its pod say about one attempt to fetch or inspect.
//!
//! In: a job and its newest pod. Out: an [`Attempt`]. It must not know what follows from it.

use contract::exit::ExitReport;
use contract::labels::ATTEMPT;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use kube::ResourceExt;

use super::reason::{Cause, Reason};
use crate::kubelet::Fault;

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// Image that it runs.
    pub image: String,
    /// How far it is.
    pub state: State,
}

/// How far an attempt is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The job has made no pod yet.
    NoPod,
    /// The pod does not run, for no bad reason yet.
    Starting,
    /// The pod cannot run.
    Blocked(Cause),
    /// The pod runs; its address once it has one.
    Running(Option<String>),
    /// The job ended well.
    Succeeded,
    /// The job failed.
    Failed(Cause),
}

/// Which attempt a job is.
#[must_use]
pub fn number(job: &Job) -> u32 {
    job.labels().get(ATTEMPT).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Reads a job and its newest pod.
#[must_use]
pub fn read(job: &Job, pod: Option<&Pod>) -> Attempt {
    let template = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let container = template.and_then(|spec| spec.containers.first());
    Attempt {
        number: number(job),
        image: container.and_then(|container| container.image.clone()).unwrap_or_default(),
        state: state(job, pod),
    }
}

fn state(job: &Job, pod: Option<&Pod>) -> State {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let holds = |type_: &str| conditions.clone().find(|c| c.type_ == type_ && c.status == "True");
    if holds("Complete").is_some() {
        return State::Succeeded;
    }
    let status = pod.and_then(|pod| pod.status.as_ref());
    if let Some(failed) = holds("Failed") {
        let words = failed.message.as_deref().unwrap_or("the job failed");
        return State::Failed(
            status.and_then(last_words).unwrap_or_else(|| Cause::new(Reason::PodFailed, words)),
        );
    }
    let Some(status) = status else { return State::NoPod };
    match status.phase.as_deref() {
        Some("Pending") | None => blocked(status).map_or(State::Starting, State::Blocked),
        _ => State::Running(status.pod_ip.clone()),
    }
}

fn container(status: &PodStatus) -> Option<&ContainerStatus> {
    status.container_statuses.as_ref()?.first()
}

/// Why the pod ended, by its own report if it left one.
fn last_words(status: &PodStatus) -> Option<Cause> {
    let ended = container(status).and_then(|c| c.state.as_ref()?.terminated.as_ref());
    let Some(ended) = ended else {
        // Evicted or rejected before its container ran.
        let reason = status.reason.as_deref()?;
        let message = status.message.as_deref().unwrap_or("no message");
        return Some(Cause::new(Reason::PodFailed, format!("the pod ended: {reason}: {message}")));
    };
    let words = ended.message.as_deref().unwrap_or_default().trim();
    if let Some(ExitReport { reason, message }) = ExitReport::from_line(words) {
        return Some(Cause::new(Reason::Exit(reason), message));
    }
    let reason = ended.reason.as_deref().unwrap_or("Error");
    let hint = if reason == "OOMKilled" { "; it needs more memory than its limit" } else { "" };
    let said = if words.is_empty() { String::new() } else { format!("; its last words: {words}") };
    let code = ended.exit_code;
    Some(Cause::new(Reason::PodFailed, format!("the pod ended with exit code {code} ({reason}){hint}{said}")))
}

/// Why a pending pod cannot run, if there is such a reason.
fn blocked(status: &PodStatus) -> Option<Cause> {
    let waiting = container(status).and_then(|c| c.state.as_ref()?.waiting.as_ref());
    if let Some(waiting) = waiting {
        let message = waiting.message.as_deref().unwrap_or("the kubelet gives no details");
        let reason = waiting.reason.as_deref()?;
        let fault = Fault::of(reason)?;
        return Some(Cause::new(Reason::Kubelet(fault), format!("{reason}: {message}")));
    }
    let conditions = status.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    let message = scheduled.message.as_deref().unwrap_or("the scheduler gives no details");
    Some(Cause::new(Reason::Unschedulable, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(job: &str, pod: Option<&str>) -> State {
        let job: Job = serde_norway::from_str(job).unwrap();
        let pod: Option<Pod> = pod.map(|pod| serde_norway::from_str(pod).unwrap());
        read(&job, pod.as_ref()).state
    }

    fn reason(state: State) -> (Reason, String) {
        match state {
            State::Blocked(cause) | State::Failed(cause) => (cause.reason, cause.message),
            other => panic!("{other:?}"),
        }
    }

    const FAILED: &str = "status: {conditions: [{type: Failed, status: 'True', message: limit reached}]}";

    #[test]
    fn the_pods_own_report_is_the_reason() {
        let report = ExitReport { reason: contract::exit::ExitReason::VolumeFull, message: "no room".into() };
        let pod = format!(
            "status: {{phase: Failed, containerStatuses: [{{name: c, image: i, imageID: i, ready: false, \
             restartCount: 0, state: {{terminated: {{exitCode: 1, message: '{}'}}}}}}]}}",
            report.to_line()
        );
        let (reason, message) = reason(check(FAILED, Some(&pod)));
        assert_eq!((reason.name(), message.as_str()), ("VolumeFull", "no room"));
    }

    #[test]
    fn a_pod_without_a_report_still_has_a_reason() {
        let killed = "status: {phase: Failed, containerStatuses: [{name: c, image: i, imageID: i, ready: false, \
             restartCount: 0, state: {terminated: {exitCode: 137, reason: OOMKilled}}}]}";
        let (oom, message) = reason(check(FAILED, Some(killed)));
        assert!(
            oom == Reason::PodFailed && message.contains("137") && message.contains("memory"),
            "{message}"
        );
        let evicted = "status: {phase: Failed, reason: Evicted, message: disk pressure}";
        assert_eq!(reason(check(FAILED, Some(evicted))).1, "the pod ended: Evicted: disk pressure");
        assert_eq!(reason(check(FAILED, None)).1, "limit reached");
    }

    #[test]
    fn pods_that_cannot_run_say_why() {
        let waiting = |why: &str| {
            format!(
                "status: {{phase: Pending, containerStatuses: [{{name: c, image: i, imageID: '', ready: false, \
                 restartCount: 0, state: {{waiting: {{reason: {why}, message: m}}}}}}]}}"
            )
        };
        assert_eq!(
            reason(check("{}", Some(&waiting("ErrImagePull")))).0,
            Reason::Kubelet(Fault::ImagePullFailed)
        );
        let of = |why: &str| {
            let status = format!(
                "{{status: {{containerStatuses: [{{name: c, image: i, imageID: '', ready: false, restartCount: 0, \
                 state: {{waiting: {{reason: {why}}}}}}}]}}}}"
            );
            let by_deployment = crate::deployment::health::problem(&serde_norway::from_str(&status).unwrap());
            let by_model = reason(check("{}", Some(&waiting(why)))).0;
            assert_eq!(by_deployment.map(|problem| problem.reason.name()), Some(by_model.name()));
            by_model.name()
        };
        // The same fault has the same name, whichever pod it befalls.
        assert_eq!(
            (of("RegistryUnavailable"), of("ImageInspectError")),
            ("ImagePullFailed", "ImagePullFailed")
        );
        assert_eq!(of("CreateContainerConfigError"), "ContainerNotCreated");
        assert_eq!(check("{}", Some(&waiting("ContainerCreating"))), State::Starting);
        let unschedulable = "status: {phase: Pending, conditions: [{type: PodScheduled, status: 'False', \
             reason: Unschedulable, message: 0/1 nodes}]}";
        assert_eq!(reason(check("{}", Some(unschedulable))), (Reason::Unschedulable, "0/1 nodes".into()));
    }

    #[test]
    fn the_job_decides_when_it_is_over() {
        let running = Some("status: {phase: Running, podIP: 10.0.0.1}");
        assert_eq!(check("{}", None), State::NoPod);
        assert_eq!(check("{}", running), State::Running(Some("10.0.0.1".into())));
        let complete = "status: {conditions: [{type: Complete, status: 'True'}]}";
        assert_eq!(check(complete, running), State::Succeeded);
    }
}
