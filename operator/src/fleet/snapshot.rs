//! The fleet at one moment.
//!
//! In: nodes and the ledger. Out: [`Fleet`], nodes by name with what is free.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;

use super::card::Cards;
use super::{Amounts, Ledger, Node, Spending};

/// Taint that `kubectl cordon` sets beside the field: told as a cordon, not as a taint.
const CORDONED: &str = "node.kubernetes.io/unschedulable";

/// Nodes with what is free, and what each booking spends.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// By name.
    pub nodes: BTreeMap<String, Node>,
    /// By booking.
    pub bookings: BTreeMap<String, Spending>,
}

impl Fleet {
    /// Takes from each node what is spent there.
    pub fn new<'a>(nodes: impl IntoIterator<Item = &'a core::Node>, ledger: Ledger) -> Self {
        let mut nodes: BTreeMap<String, Node> =
            nodes.into_iter().map(read).map(|node| (node.name.clone(), node)).collect();
        let Ledger { bookings, strangers } = ledger;
        for Spending { node, amounts } in strangers.iter().chain(bookings.values()) {
            if let Some(node) = nodes.get_mut(node) {
                node.spend(*amounts);
            }
        }
        Self { nodes, bookings }
    }

    /// Gives back what a booking spends; tells what that was.
    pub fn release(&mut self, booking: &str) -> Option<Spending> {
        let spending = self.bookings.remove(booking)?;
        if let Some(node) = self.nodes.get_mut(&spending.node) {
            node.give_back(spending.amounts);
        }
        Some(spending)
    }

    /// Takes again what [`Fleet::release`] gave back.
    pub fn take_again(&mut self, booking: &str, spending: Spending) {
        if let Some(node) = self.nodes.get_mut(&spending.node) {
            node.spend(spending.amounts);
        }
        self.bookings.insert(booking.to_owned(), spending);
    }
}

/// What counts of a node, with nothing spent.
pub fn read(node: &core::Node) -> Node {
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let spec = node.spec.clone().unwrap_or_default();
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let amounts = allocatable.map(Amounts::read).unwrap_or_default();
    // Cards that the plug-in has but calls unhealthy are in the capacity only.
    let capacity = node.status.as_ref().and_then(|status| status.capacity.as_ref());
    let cards = capacity.map_or(0, |resources| Amounts::read(resources).devices).max(amounts.devices);
    Node {
        name: node.metadata.name.clone().unwrap_or_default(),
        cards: Cards::read(&labels, cards),
        labels,
        taints: spec.taints.unwrap_or_default().into_iter().filter(|taint| taint.key != CORDONED).collect(),
        ready: is_ready(node),
        cordoned: spec.unschedulable.unwrap_or(false),
        allocatable: amounts,
        free: amounts,
        owed: Amounts::default(),
    }
}

/// Whether the kubelet has lately said that the node is ready.
#[must_use]
pub fn is_ready(node: &core::Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True")
}
