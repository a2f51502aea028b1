//! Stories: what is observed, and the steps that follow.

use contract::memory::Capacity;
use contract::{Bytes, KvDType, MemoryPlan};
use serde_json::{Value, json};

use super::*;
use crate::deployment::demand::Chosen;
use crate::deployment::plan::plan;
use crate::fleet::{Amounts, Outcome, Refusal};

const UID: &str = "uid";

fn placement(revision: &str, replica: u32, attempt: u32) -> PlacementStatus {
    PlacementStatus {
        replica,
        revision: revision.into(),
        booking: names::booking(UID, revision, replica, attempt),
        attempt,
        node: "n".into(),
        devices: 1,
        concurrency: 1,
        memory: MemoryPlan::default(),
        host_memory: Bytes::ZERO,
        cpu_millis: 0,
    }
}

fn name(placement: &PlacementStatus) -> String {
    names::pod("llm", &placement.revision, placement.replica, &placement.booking)
}

fn pod(placement: &PlacementStatus, status: &Value) -> (String, Arc<Pod>) {
    let name = name(placement);
    let node = if status["phase"] == "Pending" { Value::Null } else { json!("n") };
    let spec = json!({ "containers": [], "nodeName": node });
    let pod = json!({ "metadata": { "name": name }, "spec": spec, "status": status });
    (name, Arc::new(serde_json::from_value(pod).unwrap()))
}

fn ready() -> Value {
    json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] })
}

fn loading() -> Value {
    json!({ "phase": "Running" })
}

struct Story {
    placement: Vec<PlacementStatus>,
    pods: BTreeMap<String, Arc<Pod>>,
    nodes: BTreeSet<String>,
    second: i64,
}

impl Story {
    fn of(observed: &[(PlacementStatus, Option<Value>)]) -> Self {
        let pods = observed.iter().filter_map(|(p, status)| Some(pod(p, status.as_ref()?)));
        Self {
            pods: pods.collect(),
            placement: observed.iter().map(|(p, _)| p.clone()).collect(),
            nodes: BTreeSet::from(["n".to_owned()]),
            second: 1000,
        }
    }

    /// The node of the one booking, its attempt, and how many pods go.
    fn planned(&self, outcome: Outcome) -> (String, u32, usize) {
        let zero = Amounts { cpu_millis: 0, memory: Bytes::ZERO, devices: 1, pods: 1 };
        let capacity = Capacity { context_length: 1, concurrency: 1, kv_dtype: KvDType::F16 };
        let memory = MemoryPlan::default();
        let chosen = Chosen { capacity, memory, budget: Bytes::ZERO, amounts: zero, cuda: None };
        let now = self.situation(1);
        let plan = plan(&now, &steps(&now), Some((&chosen, vec![outcome])));
        let [only] = plan.placement.as_slice() else { panic!("{plan:?}") };
        (only.node.clone(), only.attempt, plan.delete.len())
    }

    fn situation(&self, replicas: u32) -> Situation<'_> {
        Situation {
            owner: ("llm", UID),
            target: Some("new"),
            replicas,
            placement: &self.placement,
            pods: &self.pods,
            usable_nodes: &self.nodes,
            now: Timestamp::from_second(self.second).unwrap(),
        }
    }
}

#[test]
fn a_first_apply_books_every_replica_and_a_recorded_booking_stays() {
    let steps_of = |story: &Story| steps(&story.situation(2));
    let first = steps_of(&Story::of(&[]));
    assert_eq!(first.book.iter().map(|b| (b.replica, b.attempt)).collect::<Vec<_>>(), [(0, 0), (1, 0)]);
    let recorded = Story::of(&[(placement("new", 0, 0), None), (placement("new", 1, 0), Some(loading()))]);
    let second = steps_of(&recorded);
    assert_eq!((second.keep.len(), second.book.len(), second.delete.len()), (2, 0, 0));
}

#[test]
fn an_older_revision_leaves_when_its_replica_is_replaced_and_ready() {
    let old = (placement("old", 0, 0), Some(ready()));
    let edited = Story::of(std::slice::from_ref(&old));
    let edited = steps(&edited.situation(1));
    assert_eq!(edited.book[0].instead_of.as_ref(), Some(&old.0.booking));
    assert_eq!((edited.keep.len(), edited.delete.len()), (1, 0));
    let surged = Story::of(&[old.clone(), (placement("new", 0, 0), Some(loading()))]);
    assert!(steps(&surged.situation(1)).delete.is_empty());
    let promoted = Story::of(&[old.clone(), (placement("new", 0, 0), Some(ready()))]);
    assert_eq!(steps(&promoted.situation(1)).delete, BTreeSet::from([name(&old.0)]));
    let gone = Story::of(&[(old.0, None), (placement("new", 0, 0), Some(ready()))]);
    assert_eq!(steps(&gone.situation(1)).keep.len(), 1);
}

#[test]
fn only_one_replica_is_swapped_at_a_time() {
    let olds = [0, 1].map(|replica| placement("old", replica, 0));
    let both = Story::of(&olds.clone().map(|p| (p, Some(ready()))));
    let situation = both.situation(2);
    let book = steps(&situation).book[0].clone();
    assert_eq!(swap(&situation, &book), Some(name(&olds[0])));
    let one_is_away = Story::of(&[(olds[0].clone(), Some(ready())), (olds[1].clone(), Some(loading()))]);
    assert_eq!(swap(&one_is_away.situation(2), &book), None);
}

#[test]
fn a_revision_that_never_was_ready_makes_room_and_not_the_one_that_serves() {
    let (serving, broken) = (placement("a", 0, 0), placement("b", 0, 0));
    for (a, b) in [(&serving, &broken), (&broken, &serving)] {
        // Whichever comes first by name: two cards, both taken, and a third revision.
        let mut story = Story::of(&[(a.clone(), Some(loading())), (b.clone(), Some(loading()))]);
        let (name_of_serving, pod) = pod(&serving, &ready());
        story.pods.insert(name_of_serving, pod);
        let steps = steps(&story.situation(1));
        assert_eq!(steps.delete, BTreeSet::from([name(&broken)]));
        assert_eq!(steps.book[0].instead_of.as_ref(), Some(&broken.booking));
        assert_eq!(steps.keep.len(), 2, "until it is gone");
    }
    // One that has served, and is not ready for a moment, may come back.
    let (name_of_serving, mut away) = pod(&serving, &loading());
    let labels = BTreeMap::from([(labels::SERVING.to_owned(), "true".to_owned())]);
    Arc::make_mut(&mut away).metadata.labels = Some(labels);
    let mut story = Story::of(&[(serving, None)]);
    story.pods.insert(name_of_serving, away);
    assert!(steps(&story.situation(1)).delete.is_empty());
}

#[test]
fn a_failed_pod_is_replaced_after_a_delay_under_another_booking() {
    let failed = json!({
        "phase": "Failed", "reason": "Evicted",
        "conditions": [{ "type": "Ready", "status": "False", "lastTransitionTime": "1970-01-01T00:16:35Z" }]
    });
    let mut story = Story::of(&[(placement("new", 0, 0), Some(failed))]);
    let waiting = steps(&story.situation(1));
    assert_eq!((waiting.keep.len(), waiting.book.len()), (1, 0));
    assert_eq!(waiting.wake_at, Some(Timestamp::from_second(995 + 10).unwrap()));
    story.second = 1006;
    let due = steps(&story.situation(1));
    assert_eq!(
        (due.book[0].attempt, due.book[0].takes_over.as_ref()),
        (1, Some(&story.placement[0].booking))
    );
    assert_ne!(due.book[0].booking, story.placement[0].booking);
    assert_eq!(story.planned(Outcome::Placed("m".into())), ("m".into(), 1, 1));
    assert_eq!(story.planned(Outcome::Refused(Refusal::default())), ("n".into(), 0, 0), "nothing better yet");
}

#[test]
fn a_pod_that_no_node_takes_is_planned_again_elsewhere() {
    let refused = json!({ "phase": "Pending", "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "lastTransitionTime": "1970-01-01T00:16:35Z",
    }] });
    let mut story = Story::of(&[(placement("new", 0, 0), Some(refused.clone()))]);
    let waiting = steps(&story.situation(1));
    assert_eq!((waiting.book.len(), waiting.wake_at.map(Timestamp::as_second)), (0, Some(1005)));
    story.second = 1005;
    let due = steps(&story.situation(1)).book;
    assert_eq!((due[0].attempt, due[0].not_on.as_deref()), (1, Some("n")));
    assert_eq!(story.planned(Outcome::Placed("m".into())), ("m".into(), 1, 1));
    assert_eq!(story.planned(Outcome::Refused(Refusal::default())), ("n".into(), 0, 0), "it may still come");

    let mut later = Story::of(&[(placement("new", 0, 2), Some(refused))]);
    later.second = 1005;
    assert_eq!(
        steps(&later.situation(1)).wake_at.map(Timestamp::as_second),
        Some(1035),
        "not again and again"
    );

    // A node that was cordoned before the pod was bound.
    let mut cordoned = Story::of(&[(placement("new", 0, 0), Some(json!({ "phase": "Pending" })))]);
    assert!(steps(&cordoned.situation(1)).book.is_empty());
    cordoned.nodes.clear();
    assert_eq!(steps(&cordoned.situation(1)).book[0].attempt, 1);
}

#[test]
fn a_node_that_goes_takes_only_bookings_without_a_pod() {
    let mut story = Story::of(&[(placement("new", 0, 0), Some(ready())), (placement("new", 1, 0), None)]);
    story.nodes.clear();
    let steps = steps(&story.situation(2));
    assert_eq!(steps.keep.iter().map(|p| p.replica).collect::<Vec<_>>(), [0]);
    assert_eq!(steps.book.iter().map(|b| (b.replica, b.attempt)).collect::<Vec<_>>(), [(1, 1)]);
}

#[test]
fn scaling_down_takes_the_last_replicas_and_keeps_their_bookings_until_they_are_gone() {
    let observed = [0, 1, 2].map(|replica| (placement("new", replica, 0), Some(ready())));
    let story = Story::of(&observed);
    let fewer = steps(&story.situation(1));
    assert_eq!((fewer.keep.len(), fewer.delete.len(), fewer.book.len()), (3, 2, 0));
    let gone = Story::of(&[observed[0].clone(), (observed[1].0.clone(), None)]);
    assert_eq!(steps(&gone.situation(1)).keep.len(), 1);
}

#[test]
fn a_pod_without_a_booking_goes_and_one_that_is_not_seen_yet_keeps_its_booking() {
    let [failed, next, left] =
        [placement("new", 0, 0), placement("new", 0, 1), placement("old", 1, 0)].map(|p| (p, Some(ready())));
    let mut story = Story::of(&[failed.clone(), next.clone(), left.clone()]);
    let strays_of = |story: &Story| strays("llm", [&next.0], &story.pods);
    assert_eq!(strays_of(&story), BTreeSet::from([name(&failed.0), name(&left.0)]));
    let (name_of_left, mut going) = pod(&left.0, &ready());
    Arc::make_mut(&mut going).metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
    story.pods.insert(name_of_left, going);
    assert_eq!(strays_of(&story), BTreeSet::from([name(&failed.0)]), "it goes already");

    // Scaled down right after it was made: the store does not have the pod yet.
    let just_made = Story::of(&[(placement("new", 0, 0), None), (placement("new", 1, 0), None)]);
    assert_eq!(unseen(&just_made.situation(1)), [name(&placement("new", 1, 0))]);
    let found = Story::of(&[(placement("new", 0, 0), None), (placement("new", 1, 0), Some(loading()))]);
    let found = steps(&found.situation(1));
    assert_eq!((found.keep.len(), found.delete.len()), (2, 1));
}

#[test]
fn replicas_alone_decide_as_long_as_the_model_is_not_known() {
    let observed = [
        (placement("old", 0, 0), Some(ready())),
        (placement("new", 0, 0), Some(json!({ "phase": "Failed" }))),
        (placement("old", 1, 0), Some(ready())),
        (placement("old", 2, 0), None),
    ];
    let story = Story::of(&observed);
    let of = |replicas| {
        let steps = steps(&Situation { target: None, ..story.situation(replicas) });
        assert!(steps.book.is_empty());
        (steps.keep.len(), steps.delete)
    };
    assert_eq!(of(3), (4, BTreeSet::new()));
    assert_eq!(of(1), (3, BTreeSet::from([name(&observed[2].0)])));
    assert_eq!(of(0).1.len(), 3, "suspended");
}
