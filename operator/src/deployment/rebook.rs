//! Bookings that no status has, read back from the pods that spend them.
//!
//! In: bookings, pods, configuration of revisions, what is known of the model. Out: [`Rebooked`]. It must not know what
//! becomes of a pod, nor nodes.
//!
//! # Rules
//! - A pod is known by its name and its labels, which must agree; a replica of a revision has one booking.
//! - A pod carries its booking. One of an operator that did not write it there tells all of it but the bytes of each
//!   component, which follow from the model; until that is known, nothing is said of such a pod.
//! - Where a pod and its booking disagree, the pod is right: it is what runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contract::config::{ENV_BUDGET, ENV_CONCURRENCY};
use contract::inspect::Inspection;
use contract::memory::{self, Capacity, MemoryPlan};
use contract::{Bytes, labels};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::build::{Frozen, booked};
use super::health;
use super::names::{self, COMPONENT};
use crate::api::deployment::PlacementStatus;
use crate::fleet::Amounts;
use crate::fleet::ledger::{has_ended, node_of};

/// Attempts among which that of a pod is looked for which does not carry it.
const ATTEMPTS: u32 = 4096;

/// What bookings are read from.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Name and uid of the deployment.
    pub owner: (&'a str, &'a str),
    /// Bookings that are known.
    pub known: &'a [PlacementStatus],
    /// What is frozen, by revision.
    pub frozen: &'a BTreeMap<String, Frozen>,
    /// What is known of the model.
    pub model: Option<&'a Inspection>,
}

/// What pods without a booking come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rebooked {
    /// Bookings that are had again.
    pub bookings: Vec<PlacementStatus>,
    /// Names of pods whose bookings cannot be told yet.
    pub unclear: BTreeSet<String>,
}

/// Names of the pods that no booking is known for and that may have had one.
#[must_use]
pub fn unbooked(evidence: &Evidence<'_>, pods: &BTreeMap<String, Arc<Pod>>) -> BTreeSet<String> {
    let replicas = replicas(evidence, pods);
    replicas.into_values().flatten().map(|pod| pod.metadata.name.clone().unwrap_or_default()).collect()
}

/// Reads their bookings back.
#[must_use]
pub fn rebook(evidence: &Evidence<'_>, pods: &BTreeMap<String, Arc<Pod>>) -> Rebooked {
    let mut rebooked = Rebooked::default();
    for ((revision, replica), pods) in replicas(evidence, pods) {
        // Of several, one is on its way out: the one that serves stays, or else the last that was made.
        let rank = |pod: &&&Arc<Pod>| {
            let (stays, runs) = (pod.metadata.deletion_timestamp.is_none(), !has_ended(pod));
            (stays && runs, health::is_ready(pod), runs, attempt(evidence, pod), pod.metadata.name.clone())
        };
        match pods.iter().max_by_key(rank).and_then(|pod| booking(evidence, pod, &revision, replica)) {
            Some(booking) => rebooked.bookings.push(booking),
            None if evidence.model.is_none() => {
                rebooked.unclear.extend(pods.iter().filter_map(|pod| pod.metadata.name.clone()));
            }
            None => {}
        }
    }
    rebooked
}

/// Pods by revision and replica, without those that another booking is known for.
fn replicas<'a>(
    evidence: &Evidence<'_>,
    pods: &'a BTreeMap<String, Arc<Pod>>,
) -> BTreeMap<(String, u32), Vec<&'a Arc<Pod>>> {
    let mut replicas: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (name, pod) in pods {
        let Some((revision, replica, _)) = identity(pod).filter(|_| is_named(evidence.owner.0, name, pod))
        else {
            continue;
        };
        let known = |p: &PlacementStatus| p.revision == revision && p.replica == replica;
        if !evidence.known.iter().any(known) {
            replicas.entry((revision.to_owned(), replica)).or_default().push(pod);
        }
    }
    replicas
}

/// Whether a pod of a deployment has the name that its labels give it.
#[must_use]
pub fn is_named(deployment: &str, name: &str, pod: &Pod) -> bool {
    let by_labels =
        identity(pod).map(|(revision, replica, id)| names::pod(deployment, revision, replica, id));
    by_labels.as_deref() == Some(name)
}

/// Revision, replica and booking of a pod, by its labels.
fn identity(pod: &Pod) -> Option<(&str, u32, &str)> {
    let label = |name: &str| pod.metadata.labels.as_ref()?.get(name).map(String::as_str);
    Some((label(labels::REVISION)?, label(labels::REPLICA)?.parse().ok()?, label(labels::BOOKING)?))
}

/// What the pod carries, if that is about this very pod.
fn carried(pod: &Pod) -> Option<PlacementStatus> {
    let identity = identity(pod);
    booked::read(pod).filter(|p| Some((p.revision.as_str(), p.replica, p.booking.as_str())) == identity)
}

fn attempt(evidence: &Evidence<'_>, pod: &Pod) -> u32 {
    if let Some(carried) = carried(pod) {
        return carried.attempt;
    }
    let Some((revision, replica, id)) = identity(pod) else { return 0 };
    // The booking of a former object of this name is of another uid: its attempt does not matter, for no booking of
    // this object is the same.
    let is_it = |attempt: &u32| names::booking(evidence.owner.1, revision, replica, *attempt) == id;
    (0..ATTEMPTS).find(is_it).unwrap_or(0)
}

fn booking(evidence: &Evidence<'_>, pod: &Pod, revision: &str, replica: u32) -> Option<PlacementStatus> {
    let node = node_of(pod.spec.as_ref()?).map(str::to_owned);
    if let Some(carried) = carried(pod) {
        return Some(PlacementStatus { node: node.unwrap_or(carried.node), ..carried });
    }
    let (_, _, id) = identity(pod)?;
    let container = pod.spec.iter().flat_map(|spec| &spec.containers).find(|c| c.name == COMPONENT)?;
    let concurrency = u32::try_from(variable(container, ENV_CONCURRENCY)?).ok()?;
    let budget = Bytes(variable(container, ENV_BUDGET)?);
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let amounts = requests.map(Amounts::read).unwrap_or_default();
    Some(PlacementStatus {
        replica,
        revision: revision.to_owned(),
        booking: id.to_owned(),
        attempt: attempt(evidence, pod),
        node: node?,
        devices: amounts.devices,
        concurrency,
        memory: components(evidence.frozen.get(revision), evidence.model?, concurrency, budget),
        host_memory: amounts.memory,
        cpu_millis: amounts.cpu_millis,
    })
}

fn variable(container: &Container, name: &str) -> Option<u64> {
    container.env.iter().flatten().find(|variable| variable.name == name)?.value.as_ref()?.parse().ok()
}

/// The bytes of each component of a budget. The sum is the budget, whatever formula it was made with: what this one does
/// not explain is reserve.
fn components(frozen: Option<&Frozen>, model: &Inspection, concurrency: u32, budget: Bytes) -> MemoryPlan {
    let config = frozen.map(|frozen| &frozen.revision.config);
    let config = config.filter(|config| config.digest.as_ref() == Some(&model.digest));
    let planned = config.and_then(|config| {
        let context_length = config.context_length.unwrap_or(model.geometry.context_length);
        let capacity = Capacity { context_length, concurrency, kv_dtype: config.kv_dtype };
        let plan = memory::plan(&model.geometry, &model.tensors, capacity, config.device).ok()?;
        let explained = MemoryPlan { reserve: Bytes::ZERO, ..plan };
        explained.total().is_ok_and(|total| total <= budget).then_some(explained)
    });
    let explained = planned.unwrap_or_default();
    let reserve = budget.minus(explained.total().unwrap_or_default());
    MemoryPlan { reserve, ..explained }
}

#[cfg(test)]
mod tests;
