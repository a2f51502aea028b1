//! What is spent, by whom: the union, by booking, of what could spend the same bytes.
//!
//! In: pods, recorded placements, bookings decided here and not yet seen back. Out: one [`Spending`] a booking, and
//! one for each stranger's pod.
//!
//! # Guarantees
//! - A pod of ours spends until the API server has let go of it, also while it ends or its node cannot be reached.
//! - A booking is never counted twice: the pod's figures win over the recorded ones, and those over assumed ones.

use std::collections::BTreeMap;

use contract::labels::{APP_MANAGED_BY, BOOKING, MANAGER};
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::Amounts;
use crate::api::LlmDeployment;
use crate::api::deployment::PlacementStatus;

/// What is spent on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spending {
    /// Node.
    pub node: String,
    /// How much.
    pub amounts: Amounts,
}

/// Everything that is spent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// By booking.
    pub bookings: BTreeMap<String, Spending>,
    /// By nobody that we know.
    pub strangers: Vec<Spending>,
}

impl From<&PlacementStatus> for Spending {
    fn from(placement: &PlacementStatus) -> Self {
        let amounts = Amounts {
            cpu_millis: placement.cpu_millis,
            memory: placement.host_memory,
            devices: placement.devices,
            pods: 1,
        };
        Self { node: placement.node.clone(), amounts }
    }
}

/// Joins all sources.
pub fn ledger<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    deployments: impl IntoIterator<Item = &'a LlmDeployment>,
    assumed: &BTreeMap<String, Spending>,
) -> Ledger {
    let mut ledger = Ledger { bookings: assumed.clone(), strangers: Vec::new() };
    let placements = deployments.into_iter().filter_map(|llm| llm.status.as_ref()).flat_map(|s| &s.placement);
    ledger.bookings.extend(placements.map(|p| (p.booking.clone(), Spending::from(p))));
    for pod in pods {
        let Some(spec) = pod.spec.as_ref().filter(|_| !has_ended(pod)) else { continue };
        let Some(node) = node_of(spec) else { continue };
        let spending = Spending { node: node.to_owned(), amounts: Amounts::of_pod(spec) };
        match booking_of(pod) {
            Some(booking) => drop(ledger.bookings.insert(booking.to_owned(), spending)),
            None => ledger.strangers.push(spending),
        }
    }
    ledger
}

/// Whether all containers have ended for good: then the kubelet has taken back what they had.
#[must_use]
pub fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The booking that a pod of ours spends.
#[must_use]
pub fn booking_of(pod: &Pod) -> Option<&str> {
    let labels = pod.metadata.labels.as_ref()?;
    let ours = labels.get(APP_MANAGED_BY).is_some_and(|manager| manager == MANAGER);
    labels.get(BOOKING).filter(|_| ours).map(String::as_str)
}

/// The node that a pod is on, or that it may only be on.
#[must_use]
pub fn node_of(spec: &PodSpec) -> Option<&str> {
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let [term] = required.node_selector_terms.as_slice() else { return None };
    let field =
        term.match_fields.iter().flatten().find(|r| r.key == "metadata.name" && r.operator == "In")?;
    match field.values.as_deref() {
        Some([node]) => Some(node),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
