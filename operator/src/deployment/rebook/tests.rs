use serde_json::{Value, json};

use super::*;

const UID: &str = "uid";

fn placement(revision: &str, replica: u32, attempt: u32) -> PlacementStatus {
    PlacementStatus {
        replica,
        revision: revision.into(),
        booking: names::booking(UID, revision, replica, attempt),
        attempt,
        node: "booked".into(),
        devices: 1,
        concurrency: 4,
        memory: MemoryPlan { weights: Bytes(70), reserve: Bytes(30), ..MemoryPlan::default() },
        host_memory: Bytes::mib(1),
        cpu_millis: 500,
    }
}

/// A pod of a booking, which it carries if asked for.
fn pod(of: &PlacementStatus, carries: Option<&str>, status: &Value) -> (String, Arc<Pod>) {
    let name = names::pod("llm", &of.revision, of.replica, &of.booking);
    let annotations = carries.map(|carried| json!({ labels::BOOKED: carried })).unwrap_or_default();
    let env = json!([{ "name": ENV_BUDGET, "value": "100" }, { "name": ENV_CONCURRENCY, "value": "4" }]);
    let requests = json!({ "cpu": "500m", "memory": "1Mi", "nvidia.com/gpu": "1" });
    let pod = json!({
        "metadata": {
            "name": name, "annotations": annotations,
            "labels": names::pod_labels("llm", &of.revision, of.replica, &of.booking),
        },
        "spec": { "nodeName": "real", "containers": [
            { "name": "of-a-mesh" },
            { "name": COMPONENT, "env": env, "resources": { "requests": requests } },
        ] },
        "status": status,
    });
    (name, Arc::new(serde_json::from_value(pod).unwrap()))
}

fn carrying(of: &PlacementStatus, status: &Value) -> (String, Arc<Pod>) {
    pod(of, Some(&booked::write(of)), status)
}

fn ready() -> Value {
    json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] })
}

fn read(known: &[PlacementStatus], model: Option<&Inspection>, pods: &[(String, Arc<Pod>)]) -> Rebooked {
    let frozen = BTreeMap::new();
    rebook(&Evidence { owner: ("llm", UID), known, frozen: &frozen, model }, &pods.iter().cloned().collect())
}

fn model() -> Inspection {
    let geometry = json!({ "family": "llama", "hidden": 64, "heads": 4, "ffn": 128, "vocab": 256,
        "contextLength": 512, "layers": [{ "attention": "Full", "count": 2, "headDim": 16, "kvHeads": 2 }] });
    serde_json::from_value(json!({ "format": "gguf", "digest": "sha256:0f", "bytes": 1, "files": 1,
        "parameters": 1, "geometry": geometry, "tensors": [] }))
    .unwrap()
}

#[test]
fn what_a_pod_carries_needs_nothing_else_and_the_pod_knows_its_node() {
    let all = [placement("r", 0, 3), placement("r", 1, 0), placement("older", 0, 0)];
    let pods: Vec<_> = all.iter().map(|p| carrying(p, &ready())).collect();
    let mut expected = all.clone().map(|p| PlacementStatus { node: "real".into(), ..p });
    expected.sort_by_key(|p| (p.revision.clone(), p.replica));
    assert_eq!(read(&[], None, &pods).bookings, expected);
    // One that is not bound yet, and that may run anywhere, is where it was booked.
    let (name, mut unbound) = pods[0].clone();
    Arc::make_mut(&mut unbound).spec.as_mut().unwrap().node_name = None;
    assert_eq!(read(&[], None, &[(name, unbound)]).bookings, all[..1]);
}

#[test]
fn a_pod_tells_what_it_does_not_carry_or_what_cannot_be_read() {
    let of = placement("r", 0, 2);
    let expected = PlacementStatus {
        node: "real".into(),
        memory: MemoryPlan { reserve: Bytes(100), ..MemoryPlan::default() },
        ..of.clone()
    };
    let newer = booked::write(&of).replace("\"version\":1", "\"version\":2");
    let another = booked::write(&placement("r", 1, 0));
    for carries in [None, Some("{"), Some("{}"), Some(newer.as_str()), Some(another.as_str())] {
        let pods = [pod(&of, carries, &ready())];
        assert_eq!(read(&[], Some(&model()), &pods).bookings, std::slice::from_ref(&expected), "{carries:?}");
        let unknown = read(&[], None, &pods);
        assert_eq!((unknown.bookings.len(), unknown.unclear), (0, BTreeSet::from([pods[0].0.clone()])));
    }
    let more = booked::write(&of).replace("\"version\":1", "\"version\":1,\"unheardOf\":{}");
    assert_eq!(read(&[], None, &[pod(&of, Some(&more), &ready())]).bookings[0].attempt, 2);
    // The booking of a former object of this name: no booking of this one is the same.
    let former = PlacementStatus { booking: names::booking("former", "r", 0, 2), ..of };
    let found = read(&[], Some(&model()), &[pod(&former, None, &ready())]).bookings;
    assert_eq!((found[0].attempt, &found[0].booking), (0, &former.booking));
}

#[test]
fn a_replica_has_one_booking() {
    let [first, second] = [placement("r", 0, 0), placement("r", 0, 1)];
    let failed = json!({ "phase": "Failed" });
    let loading = json!({ "phase": "Running" });
    let attempt = |a: &Value, b: &Value| {
        let all = read(&[], None, &[carrying(&first, a), carrying(&second, b)]);
        assert!(all.bookings.len() == 1 && all.unclear.is_empty());
        all.bookings[0].attempt
    };
    assert_eq!(attempt(&failed, &loading), 1);
    assert_eq!(attempt(&loading, &failed), 0);
    assert_eq!(attempt(&ready(), &loading), 0, "what serves stays");
    assert_eq!(attempt(&loading, &loading), 1);
    let known = std::slice::from_ref(&second);
    assert_eq!(read(known, None, &[carrying(&first, &ready())]), Rebooked::default(), "it was replaced");
}

#[test]
fn a_pod_that_is_not_what_it_says_has_no_booking() {
    let of = placement("r", 0, 0);
    let (name, pod) = carrying(&of, &ready());
    assert_eq!(read(&[], None, &[(format!("{name}-copy"), pod.clone())]), Rebooked::default());
    let mut unlabelled = pod;
    Arc::make_mut(&mut unlabelled).metadata.labels = None;
    assert_eq!(read(&[], None, &[(name, unlabelled)]), Rebooked::default());
}
