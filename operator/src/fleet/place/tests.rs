use contract::Bytes;
use contract::device::{CUDA_IMAGE, DeviceClass, Version};
use k8s_openapi::api::core::v1::{NodeSelector, Taint, Toleration};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::fleet::card::Cards;
use crate::fleet::{Amounts, Node, Spending};

const GIB: u64 = 1 << 30;

fn amounts(cpu_millis: u64, gib: u64, devices: u32) -> Amounts {
    Amounts { cpu_millis, memory: Bytes(gib * GIB), devices, pods: 1 }
}

fn node(name: &str, free: Amounts, card_gib: Option<u64>) -> Node {
    let cards = Cards {
        product: Some("X9".into()),
        memory: card_gib.map(|gib| Bytes(gib * GIB)),
        sharing: None,
        driver: None,
        cuda: None,
        compute: None,
        total: free.devices.max(1),
    };
    Node {
        name: name.into(),
        labels: BTreeMap::new(),
        taints: vec![],
        ready: true,
        cordoned: false,
        cards: card_gib.map(|_| cards),
        allocatable: Amounts { pods: 110, ..free },
        free: Amounts { pods: 110, ..free },
        owed: Amounts::default(),
    }
}

fn fleet(nodes: Vec<Node>) -> Fleet {
    Fleet { nodes: nodes.into_iter().map(|node| (node.name.clone(), node)).collect(), ..Fleet::default() }
}

fn demand(booking: &str, class: DeviceClass, gib: u64) -> Demand {
    let (memory, devices) = if class == DeviceClass::Cpu { (gib, 0) } else { (1, 1) };
    Demand {
        booking: booking.into(),
        owner: ("default".into(), "chat".into()),
        replica: 0,
        class,
        bytes: Bytes(gib * GIB),
        amounts: amounts(500, memory, devices),
        products: vec![],
        cuda: None,
        card_memory: None,
        architecture: Some("amd64".into()),
        node_selector: BTreeMap::new(),
        tolerations: vec![],
        reach: Reach::Anywhere,
        instead_of: None,
        takes_over: None,
        not_on: None,
    }
}

fn placed(outcomes: &[Outcome]) -> Vec<&str> {
    let node = |outcome: &Outcome| match outcome {
        Outcome::Placed(node) => node.clone(),
        other => panic!("{other:?}"),
    };
    outcomes.iter().map(node).map(|name| &*name.leak()).collect()
}

#[test]
fn the_smallest_card_that_fits_is_taken_and_the_largest_demand_goes_first() {
    let fleet = fleet(vec![
        node("a", amounts(8000, 64, 1), Some(80)),
        node("b", amounts(8000, 64, 1), Some(24)),
        node("c", amounts(8000, 64, 0), Some(24)),
    ]);
    let demands = [demand("small", DeviceClass::Nvidia, 10), demand("large", DeviceClass::Nvidia, 20)];
    assert_eq!(placed(&place(&demands, &fleet)), ["a", "b"]);
    assert_eq!(placed(&place(&demands[..1], &fleet)), ["b"]);
}

#[test]
fn a_refusal_says_why_of_every_node_and_what_would_have_fitted() {
    let mut cordoned = node("c", amounts(8000, 64, 8), Some(80));
    cordoned.cordoned = true;
    let fleet = fleet(vec![
        node("a", amounts(8000, 64, 1), Some(18)),
        node("b", amounts(8000, 64, 0), Some(80)),
        cordoned,
        node("d", amounts(8000, 64, 0), None),
        node("e", amounts(8000, 64, 0), None),
    ]);
    let demand = demand("x", DeviceClass::Nvidia, 21);
    let [Outcome::Refused(refusal)] = &place(std::slice::from_ref(&demand), &fleet)[..] else { panic!() };
    assert_eq!(
        refusal.to_string(),
        "a: needs 21.00 GiB, largest free card has 18.00 GiB; b: its only card is taken; c: is cordoned; \
         d and 1 more: has no nvidia.com/gpu"
    );
    assert_eq!(refusal.largest_fit(&demand), Some(Bytes(18 * GIB)));
    assert_eq!(Refusal::default().to_string(), "the cluster has no nodes");
}

#[test]
fn driver_and_cards_must_run_the_image_where_labels_tell() {
    let version = |major, minor| Some(Version { major, minor });
    let told = |driver, cuda, compute, real: bool| {
        let mut old = node("a", amounts(8000, 64, 1), Some(24));
        let cards = old.cards.take().unwrap();
        old.cards = Some(Cards { driver, cuda, compute, ..cards });
        let demand = Demand { cuda: real.then_some(CUDA_IMAGE), ..demand("x", DeviceClass::Nvidia, 20) };
        match place(&[demand], &fleet(vec![old])).remove(0) {
            Outcome::Refused(refusal) => format!("{}: {refusal}", refusal.category()),
            other => format!("{other:?}"),
        }
    };
    let placed = "Placed(\"a\")";
    let cases = [
        (version(470, 57), None, None, "Driver: a: has driver 470.57, the runtime needs 580.65 or newer"),
        (version(580, 64), None, None, "Driver: a: has driver 580.64, the runtime needs 580.65 or newer"),
        (version(580, 65), version(13, 0), version(8, 0), placed),
        (version(610, 0), version(14, 2), version(12, 1), placed),
        (
            None,
            version(12, 9),
            None,
            "Cuda: a: has a driver for CUDA 12.9, the runtime needs one for 13.0 or newer",
        ),
        (
            version(580, 95),
            version(13, 0),
            version(7, 5),
            "ComputeCapability: a: has cards of compute capability 7.5, the runtime needs 8.0 or higher",
        ),
        (None, None, None, placed),
    ];
    for (driver, cuda, compute, expected) in cases {
        assert_eq!(told(driver, cuda, compute, true), expected);
        assert_eq!(told(driver, cuda, compute, false), placed, "a simulated card needs no driver");
    }
}

#[test]
fn what_fits_only_without_the_old_booking_is_not_booked() {
    let mut fleet = fleet(vec![node("a", amounts(8000, 64, 0), Some(24))]);
    fleet.bookings.insert("old".into(), Spending { node: "a".into(), amounts: amounts(500, 1, 1) });
    let mut swap = demand("new", DeviceClass::Nvidia, 20);
    swap.instead_of = Some("old".into());
    assert_eq!(place(&[swap.clone()], &fleet), [Outcome::AfterRelease("a".into())]);
    swap.bytes = Bytes(25 * GIB);
    assert!(matches!(place(&[swap], &fleet)[0], Outcome::Refused(_)));
}

#[test]
fn replicas_share_a_node_when_their_volume_can_be_read_from_one_only() {
    let fleet = fleet(vec![node("a", amounts(8000, 10, 0), None), node("b", amounts(8000, 30, 0), None)]);
    let one = |booking: &str, node: Option<&str>| Demand {
        reach: one_node("w", node, None),
        ..demand(booking, DeviceClass::Cpu, 8)
    };
    let both = place(&[one("x", None), one("y", None)], &fleet);
    assert_eq!(both[0], Outcome::Placed("a".into()));
    let Outcome::Refused(refusal) = &both[1] else { panic!("{both:?}") };
    assert!(
        refusal.to_string().contains("b: cannot read the volume with the weights, which is attached to a")
    );
    assert_eq!(placed(&place(&[one("x", Some("b")), one("y", Some("b"))], &fleet)), ["b", "b"]);
}

#[test]
fn what_is_taken_over_is_free_for_who_takes_it_and_nobody_else() {
    let spending = |devices| Spending { node: "a".into(), amounts: amounts(0, 0, devices) };
    let build = |strangers: Vec<Spending>| {
        let mut fleet =
            fleet(vec![node("a", amounts(4000, 8, 1), Some(8)), node("b", amounts(4000, 8, 0), Some(8))]);
        let ledger = [("old".to_owned(), spending(1))];
        for spent in strangers.iter().chain(ledger.iter().map(|(_, spent)| spent)) {
            fleet.nodes.get_mut("a").unwrap().spend(spent.amounts);
        }
        fleet.bookings.extend(ledger);
        fleet
    };
    let again = Demand { takes_over: Some("old".into()), ..demand("new", DeviceClass::Nvidia, 4) };
    let other = Demand { replica: 1, ..demand("other", DeviceClass::Nvidia, 4) };
    let both = place(&[other.clone(), again.clone()], &build(vec![]));
    assert_eq!((&both[1], matches!(both[0], Outcome::Refused(_))), (&Outcome::Placed("a".into()), true));
    let elsewhere = Demand { not_on: Some("a".into()), ..again.clone() };
    let both = place(&[elsewhere, other], &build(vec![]));
    assert!(both.iter().all(|outcome| matches!(outcome, Outcome::Refused(_))), "{both:?}");
    // A stranger has the card that was booked: there is none to take over.
    let taken = place(&[again], &build(vec![spending(1)]));
    assert!(matches!(taken[0], Outcome::Refused(_)), "{taken:?}");
}

/// What the one selector of these tests admits.
fn in_pool(node: &Node) -> bool {
    node.labels.get("pool").is_some_and(|pool| pool == "1")
}

fn zone() -> NodeSelector {
    let terms = json!([{ "matchExpressions": [{ "key": "pool", "operator": "In", "values": ["1"] }] }]);
    serde_json::from_value(json!({ "nodeSelectorTerms": terms })).unwrap()
}

fn one_node(claim: &str, node: Option<&str>, selector: Option<NodeSelector>) -> Reach {
    let claim = ("default".into(), claim.into());
    Reach::OneNode { claim, node: node.map(str::to_owned), selector }
}

#[test]
fn a_disk_of_a_zone_is_read_from_one_node_of_it_and_a_share_of_a_zone_from_all() {
    let in_zone = |name: &str, gib: u64, zone: &str| {
        let labels = BTreeMap::from([("pool".to_owned(), zone.to_owned())]);
        Node { labels, ..node(name, amounts(8000, gib, 0), None) }
    };
    // The node outside the zone would be the best fit.
    let fleet =
        |first: u64| fleet(vec![in_zone("a", first, "1"), in_zone("b", 30, "1"), in_zone("c", 8, "2")]);
    let place_two = |reach: &Reach, first: u64| {
        let demands = ["x", "y"].map(|b| Demand { reach: reach.clone(), ..demand(b, DeviceClass::Cpu, 8) });
        place(&demands, &fleet(first))
    };
    let disk = one_node("w", None, Some(zone()));
    assert_eq!(placed(&place_two(&disk, 20)), ["a", "a"]);
    let both = place_two(&disk, 10);
    assert_eq!(both[0], Outcome::Placed("a".into()));
    let Outcome::Refused(refusal) = &both[1] else { panic!("{both:?}") };
    assert_eq!(refusal.nodes[1], ("b".into(), Reason::VolumeElsewhere("a".into())));
    assert_eq!(refusal.nodes[2], ("c".into(), Reason::Volume));
    assert_eq!(placed(&place_two(&one_node("w", Some("b"), Some(zone())), 10)), ["b", "b"]);
    assert_eq!(placed(&place_two(&Reach::Nodes(zone()), 10)), ["a", "b"]);
}

/// The rules again, in the plainest words, to hold the real ones against.
fn legal(node: &Node, demand: &Demand) -> bool {
    let free = node.free;
    let fits = demand.amounts.cpu_millis <= free.cpu_millis
        && demand.amounts.memory <= free.memory
        && demand.amounts.pods <= free.pods;
    let cards = || {
        let Some(cards) = &node.cards else { return false };
        let product = cards.product.clone().unwrap_or("unknown".into());
        let runs = |has: Option<Version>, need: Version| {
            has.is_none_or(|has| (has.major, has.minor) >= (need.major, need.minor))
        };
        let image = demand.cuda.is_none_or(|needs| {
            runs(cards.driver, needs.driver)
                && runs(cards.cuda, needs.cuda)
                && runs(cards.compute, needs.compute)
        });
        image
            && cards.sharing.is_none()
            && (demand.products.is_empty() || demand.products.contains(&product))
            && cards.memory.or(demand.card_memory).is_some_and(|bytes| demand.bytes <= bytes)
            && demand.amounts.devices <= free.devices
    };
    let tolerated = |taint: &Taint| demand.tolerations.iter().any(|t| t.key.as_ref() == Some(&taint.key));
    node.ready
        && !node.cordoned
        && node.labels.get("kubernetes.io/arch").is_none_or(|arch| Some(arch) == demand.architecture.as_ref())
        && demand.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
        && node.taints.iter().all(|taint| taint.effect == "PreferNoSchedule" || tolerated(taint))
        && match &demand.reach {
            Reach::Anywhere => true,
            Reach::Nodes(_) => in_pool(node),
            Reach::OneNode { node: only, selector, .. } => {
                only.as_ref().is_none_or(|only| *only == node.name) && (selector.is_none() || in_pool(node))
            }
        }
        && fits
        && (demand.class == DeviceClass::Cpu || cards())
}

fn waste(node: &Node, demand: &Demand) -> (u64, u32) {
    match demand.class {
        DeviceClass::Cpu => ((node.free.memory.0) - demand.amounts.memory.0, node.free.devices),
        DeviceClass::Nvidia => {
            let card = node.cards.as_ref().unwrap().memory.or(demand.card_memory).unwrap();
            (card.0 - demand.bytes.0, node.free.devices - demand.amounts.devices)
        }
    }
}

/// Mostly unknown or new enough, with all that lies close to a limit.
fn any_version(major: u32, minor: u32) -> impl Strategy<Value = Option<Version>> {
    let near = (major - 1..=major + 1, minor.saturating_sub(1)..=minor + 1);
    let near = near.prop_map(|(major, minor)| Version { major, minor });
    proptest::option::weighted(0.3, near)
}

prop_compose! {
    fn any_node()(
        free in (0u64..4000, 0u64..16, 0u32..3, 0u32..3),
        card in proptest::option::of(proptest::option::of(1u64..6)),
        flags in (prop::bool::weighted(0.9), prop::bool::weighted(0.1), prop::bool::weighted(0.1)),
        label in 0u8..3, taint in 0u8..4, arm in prop::bool::weighted(0.2),
        versions in (any_version(580, 65), any_version(13, 0), any_version(8, 0)),
    ) -> Node {
        let mut node = node("", amounts(free.0, free.1, free.2), card.flatten());
        node.free.pods = free.3;
        node.cards = card.map(|memory| Cards {
            product: Some(if label == 0 { "X9" } else { "X8" }.into()),
            memory: memory.map(|gib| Bytes(gib * GIB)),
            sharing: flags.2.then(|| "time-slicing".into()),
            driver: versions.0,
            cuda: versions.1,
            compute: versions.2,
            total: free.2,
        });
        (node.ready, node.cordoned) = (flags.0, flags.1);
        node.labels.insert("pool".into(), label.to_string());
        node.labels.insert("kubernetes.io/arch".into(), if arm { "arm64" } else { "amd64" }.into());
        let effect = ["NoSchedule", "PreferNoSchedule", "NoExecute"].get(usize::from(taint));
        node.taints = effect.map(|e| Taint { key: "t".into(), effect: (*e).into(), ..Taint::default() })
            .into_iter().collect();
        node
    }
}

prop_compose! {
    fn any_demand()(
        cpu in prop::bool::ANY, gib in 1u64..6, devices in 1u32..3, millis in 0u64..2000,
        product in prop::bool::weighted(0.2), known in proptest::option::of(1u64..6),
        pool in proptest::option::weighted(0.3, 0u8..3), tolerates in prop::bool::ANY,
        one in proptest::option::weighted(0.3, 0u8..3), zonal in prop::bool::weighted(0.3),
        replica in 0u32..3, real in prop::bool::ANY,
    ) -> Demand {
        let mut demand = demand("", if cpu { DeviceClass::Cpu } else { DeviceClass::Nvidia }, gib);
        demand.amounts = amounts(millis, if cpu { gib } else { 1 }, if cpu { 0 } else { devices });
        demand.replica = replica;
        demand.cuda = real.then_some(CUDA_IMAGE);
        demand.card_memory = known.map(|gib| Bytes(gib * GIB));
        demand.products = product.then(|| "X9".to_owned()).into_iter().collect();
        demand.node_selector = pool.map(|pool| ("pool".into(), pool.to_string())).into_iter().collect();
        let toleration = Toleration { key: Some("t".into()), operator: Some("Exists".into()), ..Toleration::default() };
        demand.tolerations = tolerates.then_some(toleration).into_iter().collect();
        let selector = zonal.then(zone);
        demand.reach = match one {
            Some(one) => one_node(&one.to_string(), None, selector),
            None => selector.map_or(Reach::Anywhere, Reach::Nodes),
        };
        demand
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Placed: the node is legal, and no legal node would have less left. Refused: no node is legal.
    #[test]
    fn placements_are_legal_and_best_and_refusals_are_true(
        nodes in prop::collection::vec(any_node(), 0..6),
        mut demands in prop::collection::vec(any_demand(), 0..8),
    ) {
        let nodes = nodes.into_iter().enumerate().map(|(i, n)| Node { name: format!("n{i}"), ..n }).collect();
        demands.iter_mut().enumerate().for_each(|(i, d)| d.booking = format!("b{i}"));
        let mut fleet = fleet(nodes);
        let outcomes = place(&demands, &fleet);
        prop_assert_eq!(outcomes.len(), demands.len());

        let mut order: Vec<(&Demand, &Outcome)> = demands.iter().zip(&outcomes).collect();
        order.sort_by_key(|(d, _)| (std::cmp::Reverse(d.bytes), d.owner.clone(), d.replica, d.booking.clone()));
        let mut claims: BTreeMap<(String, String), String> = BTreeMap::new();
        for (demand, outcome) in order {
            let mut demand = demand.clone();
            if let Reach::OneNode { claim, node, .. } = &mut demand.reach {
                *node = claims.get(claim).cloned();
            }
            match outcome {
                Outcome::Placed(name) => {
                    let chosen = &fleet.nodes[name];
                    prop_assert!(legal(chosen, &demand), "{:?} on {:?}", demand, chosen);
                    let least = fleet.nodes.values().filter(|n| legal(n, &demand)).map(|n| waste(n, &demand)).min();
                    prop_assert_eq!(Some(waste(chosen, &demand)), least);
                    let free = &mut fleet.nodes.get_mut(name).unwrap().free;
                    *free = free.minus(demand.amounts);
                    if let Reach::OneNode { claim, .. } = &demand.reach {
                        claims.insert(claim.clone(), name.clone());
                    }
                }
                Outcome::Refused(refusal) => {
                    prop_assert!(fleet.nodes.values().all(|node| !legal(node, &demand)));
                    prop_assert_eq!(refusal.nodes.len(), fleet.nodes.len());
                }
                Outcome::AfterRelease(_) => prop_assert!(false, "nothing is replaced here"),
            }
        }
    }
}
