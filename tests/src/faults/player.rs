//! Scheduler and kubelet of one namespace, who do at once what is asked of them.
//!
//! In: a node, and how far pods may get. Out: pods that are bound, run, end and go, whoever made them and whenever; and
//! how often two of one replica ran at once. It must not know what the pods are for, beyond whether a job made them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use contract::labels;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;

use crate::operator::kubelet::Node;

/// How soon something is tried again that did not succeed.
const AGAIN: Duration = Duration::from_millis(200);
/// Names the job of a pod.
const JOB: &str = "batch.kubernetes.io/job-name";

/// How far pods may get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gates {
    /// Pods of jobs run, and end well.
    pub jobs: bool,
    /// Other pods become ready.
    pub ready: bool,
}

/// Plays for one namespace.
pub struct Player<'a> {
    node: &'a Node,
    pods: Api<Pod>,
    gates: watch::Sender<Gates>,
    doubles: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Bind,
    Run { ready: bool },
    End,
    LetGo,
}

impl<'a> Player<'a> {
    /// With all gates closed.
    #[must_use]
    pub fn new(client: &Client, namespace: &str, node: &'a Node) -> Self {
        let pods = Api::namespaced(client.clone(), namespace);
        Self { node, pods, gates: watch::channel(Gates::default()).0, doubles: AtomicU64::new(0) }
    }

    /// Opens gates.
    pub fn open(&self, gates: Gates) {
        self.gates.send_replace(gates);
    }

    /// How often a pod began while another of the same replica and revision was there.
    pub fn doubles(&self) -> u64 {
        self.doubles.load(Ordering::Relaxed)
    }

    /// Plays, until it is dropped.
    pub async fn play(&self) {
        let mut seen = BTreeMap::new();
        let mut gates = self.gates.subscribe();
        let mut events = watcher(self.pods.clone(), watcher::Config::default()).default_backoff().boxed();
        loop {
            tokio::select! {
                event = events.next() => self.see(event, &mut seen),
                changed = gates.changed() => drop(changed),
                () = tokio::time::sleep(AGAIN) => {}
            }
            let now = *gates.borrow_and_update();
            for pod in seen.values() {
                if let Some(act) = due(pod, now) {
                    // What does not succeed is tried again, at the latest after a pause.
                    drop(self.act(pod, act).await);
                }
            }
        }
    }

    fn see(&self, event: Option<Result<Event<Pod>, watcher::Error>>, seen: &mut BTreeMap<String, Pod>) {
        match event {
            Some(Ok(Event::Apply(pod) | Event::InitApply(pod))) => {
                let before = seen.insert(pod.name_any(), pod);
                let doubles = doubles(seen.values());
                if before.is_none() && doubles > 0 {
                    self.doubles.fetch_add(doubles, Ordering::Relaxed);
                }
            }
            Some(Ok(Event::Delete(pod))) => drop(seen.remove(&pod.name_any())),
            Some(Ok(Event::Init)) => seen.clear(),
            Some(Ok(Event::InitDone) | Err(_)) | None => {}
        }
    }

    async fn act(&self, pod: &Pod, act: Act) -> Result<()> {
        match act {
            Act::Bind => self.node.bind(pod).await,
            Act::Run { ready } => self.node.runs(pod, ready).await,
            Act::End => {
                let state = json!({ "terminated": { "exitCode": 0, "reason": "Completed" } });
                self.node.report(pod, "Succeeded", false, &state).await
            }
            Act::LetGo => self.node.has_ended(pod).await,
        }
    }
}

/// What is to be done about a pod.
fn due(pod: &Pod, gates: Gates) -> Option<Act> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(Act::LetGo);
    }
    let status = pod.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    let of_job = pod.labels().contains_key(JOB);
    if matches!(phase.as_str(), "Succeeded" | "Failed") || of_job && !gates.jobs {
        return None;
    }
    if pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none()) {
        return Some(Act::Bind);
    }
    if of_job {
        return Some(Act::End);
    }
    let ready = status.conditions.iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
    (phase != "Running" || ready != gates.ready).then_some(Act::Run { ready: gates.ready })
}

/// How many pods are there beyond one for each replica of each revision. One that is asked to go does not count.
fn doubles<'p>(pods: impl Iterator<Item = &'p Pod>) -> u64 {
    let (mut replicas, mut doubles) = (BTreeSet::new(), 0);
    for pod in pods.filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let label = |key| pod.labels().get(key).cloned();
        let replica =
            label(labels::DEPLOYMENT).map(|of| (of, label(labels::REVISION), label(labels::REPLICA)));
        doubles += u64::from(replica.is_some_and(|replica| !replicas.insert(replica)));
    }
    doubles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(yaml: &str) -> Pod {
        serde_norway::from_str(yaml).unwrap()
    }

    #[test]
    fn a_pod_gets_as_far_as_the_gates_let_it() {
        let (closed, open) = (Gates::default(), Gates { jobs: true, ready: true });
        let new = pod("{metadata: {name: p}}");
        assert_eq!(due(&new, closed), Some(Act::Bind));
        let bound =
            pod("{metadata: {name: p}, spec: {containers: [], nodeName: n}, status: {phase: Pending}}");
        assert_eq!(due(&bound, closed), Some(Act::Run { ready: false }));
        let runs = |ready: &str| {
            pod(&format!(
                "{{metadata: {{name: p}}, spec: {{containers: [], nodeName: n}}, status: {{phase: Running, \
                 conditions: [{{type: Ready, status: '{ready}'}}]}}}}"
            ))
        };
        assert_eq!((due(&runs("False"), closed), due(&runs("True"), open)), (None, None));
        assert_eq!(due(&runs("False"), open), Some(Act::Run { ready: true }));
        let goes = pod("{metadata: {name: p, deletionTimestamp: '2026-01-01T00:00:00Z'}}");
        assert_eq!(due(&goes, closed), Some(Act::LetGo));
        let job = |rest: &str| pod(&format!("{{metadata: {{name: p, labels: {{{JOB}: j}}}}, {rest}}}"));
        assert_eq!(due(&job("spec: {containers: []}"), closed), None);
        assert_eq!(due(&job("spec: {containers: []}"), open), Some(Act::Bind));
        assert_eq!(due(&job("spec: {containers: [], nodeName: n}"), open), Some(Act::End));
        assert_eq!(due(&job("spec: {containers: [], nodeName: n}, status: {phase: Succeeded}"), open), None);
    }

    #[test]
    fn a_second_pod_of_a_replica_is_counted_unless_one_of_them_goes() {
        let of = |name: &str, replica: &str, rest: &str| {
            pod(&format!(
                "{{metadata: {{name: {name}, labels: {{{}: d, {}: r, {}: '{replica}'}}{rest}}}}}",
                labels::DEPLOYMENT,
                labels::REVISION,
                labels::REPLICA
            ))
        };
        let goes = ", deletionTimestamp: '2026-01-01T00:00:00Z'";
        assert_eq!(doubles([of("a", "0", ""), of("b", "1", ""), of("c", "0", goes)].iter()), 0);
        assert_eq!(doubles([of("a", "0", ""), of("b", "1", ""), of("c", "0", "")].iter()), 1);
        assert_eq!(doubles([pod("{metadata: {name: x}}"), pod("{metadata: {name: y}}")].iter()), 0);
    }
}
