//! What a change of one object may mean for others.
//!
//! In: an object before and after. Out: [`News`]. It must not know who is interested.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::node::v1::RuntimeClass;

use crate::api::{LlmDeployment, LlmModel};
use crate::fleet::ledger::has_ended;
use crate::fleet::snapshot;
use crate::model::name::served_by;
use crate::mounts;

/// What a change of one object may mean for others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Whether there may be room for what has none.
    pub room: bool,
    /// Models that a deployment names, or named before.
    pub models: BTreeSet<String>,
    /// Claims that are no longer read by a pod.
    pub claims: BTreeSet<String>,
    /// Whether a status was lost.
    pub lost: bool,
}

/// A kind whose changes may mean something for other objects.
pub trait Watched: Sized {
    /// What a change means; no object stands for none.
    #[must_use]
    fn news(_before: Option<&Self>, _after: Option<&Self>) -> News {
        News::default()
    }
}

impl Watched for ConfigMap {}
impl Watched for Job {}
impl Watched for LlmModel {}
impl Watched for PersistentVolume {}
impl Watched for PersistentVolumeClaim {}
impl Watched for RuntimeClass {}
impl Watched for Service {}

impl Watched for Pod {
    fn news(before: Option<&Self>, after: Option<&Self>) -> News {
        let runs = |pod: &&Self| !has_ended(pod);
        let Some(ended) = before.filter(runs).filter(|_| after.filter(runs).is_none()) else {
            return News::default();
        };
        let claims = mounts::claims(ended).map(str::to_owned).collect();
        News { room: true, claims, ..News::default() }
    }
}

impl Watched for Node {
    fn news(before: Option<&Self>, after: Option<&Self>) -> News {
        // Heartbeats change nothing of what counts.
        News { room: before.map(snapshot::read) != after.map(snapshot::read), ..News::default() }
    }
}

impl Watched for LlmDeployment {
    fn news(before: Option<&Self>, after: Option<&Self>) -> News {
        let bookings = |llm: Option<&Self>| -> BTreeSet<String> {
            let status = llm.and_then(|llm| llm.status.as_ref());
            status.into_iter().flat_map(|status| &status.placement).map(|p| p.booking.clone()).collect()
        };
        let models = [before, after].into_iter().flatten();
        let models =
            models.flat_map(|llm| [served_by(&llm.spec), llm.status.as_ref().and_then(|s| s.model.clone())]);
        let room = !bookings(before).is_subset(&bookings(after));
        let observed = |llm: Option<&Self>| llm.and_then(|llm| llm.status.as_ref()?.observed_generation);
        let lost = after.is_some() && observed(before).is_some() && observed(after).is_none();
        News { room, lost, models: models.flatten().collect(), ..News::default() }
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    fn news<K: Watched + DeserializeOwned>(before: &str, after: &str) -> News {
        let object = |text: &str| (!text.is_empty()).then(|| serde_norway::from_str::<K>(text).unwrap());
        K::news(object(before).as_ref(), object(after).as_ref())
    }

    #[test]
    fn a_pod_that_ends_or_goes_makes_room_and_no_other_change_of_it_does() {
        let pod = |phase: &str| {
            format!(
                "{{metadata: {{name: p}}, status: {{phase: {phase}}}, spec: {{containers: [], \
                 volumes: [{{name: w, persistentVolumeClaim: {{claimName: w}}}}]}}}}"
            )
        };
        let room = |before: &str, after: &str| {
            let news = news::<Pod>(before, after);
            assert_eq!(news.room, news.claims.contains("w"));
            news.room
        };
        let (pending, running, failed) = (pod("Pending"), pod("Running"), pod("Failed"));
        assert!(room(&running, &failed) && room(&pending, "") && room(&running, ""));
        assert!(!room("", &pending) && !room(&pending, &running) && !room(&running, &running));
        assert!(!room(&failed, "") && !room("", &failed));
    }

    #[test]
    fn a_node_makes_room_when_what_counts_of_it_changes() {
        let node = |beat: u32, ready: &str, memory: &str, more: &str| {
            format!(
                "{{metadata: {{name: n}}, spec: {{{more}}}, status: {{allocatable: {{memory: {memory}}}, conditions: \
                 [{{type: Ready, status: '{ready}', lastHeartbeatTime: '2026-01-01T00:00:{beat:02}Z'}}]}}}}"
            )
        };
        let first = node(1, "True", "1Gi", "");
        assert!(!news::<Node>(&first, &node(2, "True", "1Gi", "")).room, "a heartbeat");
        let changes = [
            String::new(),
            node(1, "False", "1Gi", ""),
            node(1, "True", "2Gi", ""),
            node(1, "True", "1Gi", "unschedulable: true"),
            node(1, "True", "1Gi", "taints: [{key: k, effect: NoSchedule}]"),
        ];
        for change in changes {
            assert!(news::<Node>(&first, &change).room, "{change}");
        }
    }

    #[test]
    fn a_deployment_tells_the_models_it_names_and_the_bookings_it_gave_up() {
        let llm = |model: &str, served: &str, bookings: &[&str]| {
            let booking = |booking: &&str| {
                format!(
                    "{{replica: 0, revision: r, booking: {booking}, attempt: 0, node: n, devices: 0, concurrency: 1, \
                     hostMemory: 0, cpuMillis: 0, memory: {{weights: 0, kvCache: 0, activations: 0, runtime: 0, \
                     reserve: 0}}}}"
                )
            };
            let bookings: Vec<_> = bookings.iter().map(booking).collect();
            format!(
                "{{apiVersion: llmfleet.dev/v1alpha1, kind: LlmDeployment, metadata: {{name: a}}, \
                 spec: {{model: {{modelRef: {{name: {model}}}}}}}, \
                 status: {{model: {served}, placement: [{}]}}}}",
                bookings.join(", ")
            )
        };
        let observed = |status: &str| llm("m", "m", &[]).replace("status: {", &format!("status: {{{status}"));
        let lost =
            |before: &str, after: &str| news::<LlmDeployment>(&observed(before), &observed(after)).lost;
        assert!(lost("observedGeneration: 1, ", ""));
        assert!(!lost("", "") && !lost("", "observedGeneration: 1, "));
        let edited = news::<LlmDeployment>(&llm("m", "m", &["b"]), &llm("n", "m", &["b", "c"]));
        assert_eq!((edited.room, edited.models), (false, ["m", "n"].map(str::to_owned).into()));
        assert!(news::<LlmDeployment>(&llm("m", "m", &["b"]), &llm("m", "m", &["c"])).room);
        assert!(news::<LlmDeployment>(&llm("m", "m", &["b"]), "").room);
    }
}
