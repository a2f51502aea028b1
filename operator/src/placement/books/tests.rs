use contract::Bytes;
use contract::device::DeviceClass;
use serde_json::{Value, json};

use super::*;
use crate::fleet::Amounts;
use crate::fleet::demand::Reach;

const GIB: u64 = 1 << 30;

fn node(name: &str, gib: u64) -> Arc<Node> {
    let node = json!({
        "metadata": { "name": name },
        "status": {
            "allocatable": { "cpu": "8", "memory": format!("{gib}Gi"), "pods": "110" },
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    });
    Arc::new(serde_json::from_value(node).unwrap())
}

fn deployment(name: &str, placement: &Value) -> Arc<LlmDeployment> {
    let deployment = json!({
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "model": { "modelRef": { "name": "m" } } },
        "status": { "placement": placement },
    });
    Arc::new(serde_json::from_value(deployment).unwrap())
}

fn recorded(booking: &str, gib: u64) -> Value {
    json!([{ "replica": 0, "revision": "r", "booking": booking, "attempt": 0, "node": "a", "devices": 0,
        "concurrency": 1, "hostMemory": gib * GIB, "cpuMillis": 0,
        "memory": { "weights": 0, "kvCache": 0, "activations": 0, "runtime": 0, "reserve": 0 } }])
}

fn view(nodes: &[Arc<Node>], deployments: &[Arc<LlmDeployment>]) -> View {
    View { nodes: nodes.to_vec(), pods: vec![], deployments: deployments.to_vec() }
}

fn demand(owner: &str, booking: &str, gib: u64) -> Demand {
    Demand {
        booking: booking.into(),
        owner: ("default".into(), owner.into()),
        replica: 0,
        class: DeviceClass::Cpu,
        bytes: Bytes(gib * GIB),
        amounts: Amounts { cpu_millis: 0, memory: Bytes(gib * GIB), devices: 0, pods: 1 },
        products: vec![],
        cuda: None,
        card_memory: None,
        architecture: None,
        node_selector: BTreeMap::new(),
        tolerations: vec![],
        reach: Reach::Anywhere,
        instead_of: None,
        takes_over: None,
        not_on: None,
    }
}

fn places(books: &mut Books, demands: &[Demand], view: &View) -> Vec<bool> {
    books.decide(demands, view).iter().map(|outcome| matches!(outcome, Outcome::Placed(_))).collect()
}

#[test]
fn what_was_decided_counts_before_it_is_seen_back() {
    let (mut books, view) = (Books::default(), view(&[node("a", 10)], &both()));
    assert_eq!(places(&mut books, &[demand("x", "b1", 6)], &view), [true]);
    assert_eq!(places(&mut books, &[demand("y", "b2", 6)], &view), [false]);
    assert_eq!(places(&mut books, &[demand("x", "b1", 6)], &view), [true], "asking again changes nothing");
    books.forget(&("default".into(), "x".into()), &[]);
    assert_eq!(places(&mut books, &[demand("y", "b2", 6)], &view), [true]);
}

fn both() -> [Arc<LlmDeployment>; 2] {
    [deployment("x", &json!([])), deployment("y", &json!([]))]
}

#[test]
fn a_record_takes_over_and_a_gone_owner_frees() {
    let mut books = Books::default();
    let nodes = [node("a", 10)];
    assert_eq!(places(&mut books, &[demand("x", "b1", 6)], &view(&nodes, &both())), [true]);
    let seen = [deployment("x", &recorded("b1", 6)), deployment("y", &json!([]))];
    assert_eq!(places(&mut books, &[demand("y", "b2", 6)], &view(&nodes, &seen)), [false]);
    assert!(books.0.is_empty(), "the record counts, the assumption is over");
    assert_eq!(places(&mut books, &[demand("y", "b2", 6)], &view(&nodes, &both())), [true]);
    let only_x = [deployment("x", &json!([]))];
    assert_eq!(places(&mut books, &[demand("x", "b1", 6)], &view(&nodes, &only_x)), [true], "y is gone");
}

#[test]
fn the_same_booking_keeps_its_node_while_that_is_legal() {
    let mut books = Books::default();
    let asked = [demand("x", "b1", 6)];
    let decide =
        |books: &mut Books, nodes: &[Arc<Node>]| books.decide(&asked, &view(nodes, &both())).remove(0);
    assert_eq!(decide(&mut books, &[node("a", 10)]), Outcome::Placed("a".into()));
    // A better fit has come meanwhile.
    assert_eq!(decide(&mut books, &[node("a", 10), node("b", 6)]), Outcome::Placed("a".into()));
    assert_eq!(decide(&mut books, &[node("b", 6)]), Outcome::Placed("b".into()));
}

#[test]
fn demands_of_one_batch_do_not_spend_the_same_bytes() {
    let mut books = Books::default();
    let demands = [demand("x", "b1", 6), demand("y", "b2", 7), demand("x", "b3", 3)];
    let view = view(&[node("a", 10)], &both());
    assert_eq!(places(&mut books, &demands, &view), [false, true, true], "the largest first");
    let more = [demand("x", "b3", 3), demand("x", "b4", 1)];
    assert_eq!(places(&mut books, &more, &view), [true, false]);
}

#[test]
fn a_claim_of_one_node_is_read_where_it_was_decided_before() {
    let reads = |owner: &str, booking: &str, gib: u64| {
        let reach = Reach::OneNode { claim: ("default".into(), "w".into()), node: None, selector: None };
        Demand { reach, ..demand(owner, booking, gib) }
    };
    let (mut books, nodes) = (Books::default(), [node("a", 10), node("b", 3)]);
    let view = view(&nodes, &both());
    assert_eq!(books.decide(&[reads("x", "b1", 6)], &view), [Outcome::Placed("a".into())]);
    // It alone would fit best on the other.
    assert_eq!(books.decide(&[reads("y", "b2", 3)], &view), [Outcome::Placed("a".into())]);
    // The node goes before anything is recorded: what was decided there binds nobody.
    books.forget(&("default".into(), "y".into()), &[]);
    let moved = books.decide(&[reads("x", "b1", 3)], &super::tests::view(&nodes[1..], &both()));
    assert_eq!(moved, [Outcome::Placed("b".into())]);
}
