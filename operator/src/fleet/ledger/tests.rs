use contract::Bytes;
use serde_json::json;

use super::*;
use crate::fleet::Fleet;

fn pod(name: &str, booking: Option<&str>, phase: &str, node: Option<&str>) -> Pod {
    let mut labels = json!({});
    if let Some(booking) = booking {
        labels = json!({ "app.kubernetes.io/managed-by": "llm-fleet", "llmfleet.dev/booking": booking });
    }
    let target = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
        { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["a"] }] }] } } });
    serde_json::from_value(json!({
        "metadata": { "name": name, "labels": labels },
        "spec": {
            "nodeName": node, "affinity": target,
            "containers": [{ "name": "x", "resources": { "requests": { "memory": "4Gi", "nvidia.com/gpu": "1" } } }],
        },
        "status": { "phase": phase },
    }))
    .unwrap()
}

fn deployment(bookings: &[(&str, u64)]) -> LlmDeployment {
    let placement = |(booking, gib): &(&str, u64)| {
        json!({ "replica": 0, "revision": "0", "booking": booking, "attempt": 0, "node": "a", "devices": 1,
            "concurrency": 1, "hostMemory": gib << 30, "cpuMillis": 0,
            "memory": { "weights": 0, "kvCache": 0, "activations": 0, "runtime": 0, "reserve": 0 } })
    };
    serde_json::from_value(json!({
        "metadata": { "name": "chat", "namespace": "default" },
        "spec": { "model": { "modelRef": { "name": "m" } } },
        "status": { "placement": bookings.iter().map(placement).collect::<Vec<_>>() },
    }))
    .unwrap()
}

fn spent(pods: &[Pod], deployments: &[LlmDeployment], assumed: &[&str]) -> (u64, usize) {
    let amounts = Amounts { memory: Bytes(1 << 30), ..Amounts::default() };
    let assume = |booking: &&str| ((*booking).to_owned(), Spending { node: "a".into(), amounts });
    let ledger = ledger(pods, deployments, &assumed.iter().map(assume).collect());
    let all = ledger.bookings.values().chain(&ledger.strangers);
    (all.map(|s| s.amounts.memory.0 >> 30).sum(), ledger.strangers.len())
}

#[test]
fn a_booking_counts_once_whatever_tells_of_it() {
    assert_eq!(spent(&[], &[], &["b1"]), (1, 0));
    assert_eq!(spent(&[], &[deployment(&[("b1", 2)])], &["b1"]), (2, 0));
    assert_eq!(
        spent(&[pod("p", Some("b1"), "Running", Some("a"))], &[deployment(&[("b1", 2)])], &["b1"]),
        (4, 0)
    );
    assert_eq!(spent(&[pod("p", Some("b1"), "Pending", None)], &[deployment(&[("b2", 2)])], &["b3"]), (7, 0));
}

#[test]
fn a_pod_spends_until_it_is_gone_and_its_record_until_it_is_replaced() {
    let mut ending = pod("p", Some("b1"), "Running", Some("a"));
    ending.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    assert_eq!(spent(&[ending], &[], &[]), (4, 0));
    assert_eq!(spent(&[pod("p", Some("b1"), "Failed", Some("a"))], &[], &[]), (0, 0));
}

#[test]
fn strangers_spend_what_they_request_once_they_have_a_node() {
    let mut labelled = pod("x", None, "Running", Some("a"));
    labelled.metadata.labels = Some([(BOOKING.to_owned(), "b1".to_owned())].into());
    assert_eq!(
        spent(&[labelled, pod("done", None, "Succeeded", Some("a"))], &[deployment(&[("b1", 2)])], &[]),
        (6, 1)
    );
}

#[test]
fn a_fleet_has_what_nodes_offer_less_what_is_spent() {
    let node =
        |json: serde_json::Value| serde_json::from_value::<k8s_openapi::api::core::v1::Node>(json).unwrap();
    let a = node(json!({
        "metadata": { "name": "a", "labels": { "nvidia.com/gpu.memory": "24576", "nvidia.com/gpu.product": "X9" } },
        "spec": { "unschedulable": true, "taints": [
            { "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" },
            { "key": "nvidia.com/gpu", "effect": "NoSchedule" }] },
        "status": {
            "allocatable": { "cpu": "8", "memory": "16Gi", "pods": "110", "nvidia.com/gpu": "2" },
            "conditions": [{ "type": "Ready", "status": "True" }] },
    }));
    let b = node(json!({ "metadata": { "name": "b" }, "status": { "capacity": { "nvidia.com/gpu": "8" } } }));
    let spent = ledger(&[pod("p", Some("b1"), "Running", Some("a"))], &[], &BTreeMap::new());
    let fleet = Fleet::new(&[a, b], spent);
    let (a, b) = (&fleet.nodes["a"], &fleet.nodes["b"]);
    assert_eq!((a.free.devices, a.free.pods, a.free.memory), (1, 109, Bytes(12 << 30)));
    assert_eq!(a.cards.as_ref().and_then(|cards| cards.memory), Some(Bytes(24 << 30)));
    assert_eq!((a.ready, a.cordoned, a.taints.len()), (true, true, 1));
    assert_eq!(
        (b.ready, b.cards.as_ref().map(|cards| cards.total), b.free),
        (false, Some(8), Amounts::default())
    );
}
