//! Joins the steps with what the fleet answered: everything that is to be written, without a choice left.
//!
//! In: [`Steps`], the outcome of each booking. Out: [`Plan`]. It must not know how objects look.

use std::collections::BTreeSet;

use super::demand::Chosen;
use super::rollout::{Book, Situation, Steps, swap};
use crate::api::deployment::PlacementStatus;
use crate::fleet::Outcome;

/// What is to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// All bookings, ordered by replica and revision.
    pub placement: Vec<PlacementStatus>,
    /// Names of pods that go.
    pub delete: BTreeSet<String>,
    /// Replicas that wait for room that another booking of this deployment has, with its node.
    pub waiting: Vec<(u32, String)>,
}

/// Joins steps and outcomes, which are in the order of `steps.book`. Nothing is decided before it is known what a
/// replica takes.
#[must_use]
pub fn plan(now: &Situation<'_>, steps: &Steps, decided: Option<(&Chosen, Vec<Outcome>)>) -> Plan {
    let mut plan = Plan { placement: steps.keep.clone(), delete: steps.delete.clone(), ..Plan::default() };
    let mut swapping = false;
    let decided = decided.into_iter().flat_map(|(chosen, all)| all.into_iter().map(move |one| (chosen, one)));
    for (book, (chosen, outcome)) in steps.book.iter().zip(decided) {
        match outcome {
            Outcome::Placed(node) => {
                if let Some(former) = &book.takes_over {
                    plan.placement.retain(|p| p.booking != *former);
                    let former = now.placement.iter().find(|p| p.booking == *former);
                    plan.delete.extend(former.and_then(|p| now.pod_of(p)).map(|(name, _)| name.clone()));
                }
                plan.placement.push(placement(book, node, chosen));
            }
            Outcome::AfterRelease(node) => {
                let leaves = swap(now, book).filter(|_| !swapping);
                swapping |= leaves.is_some();
                plan.delete.extend(leaves);
                plan.waiting.push((book.replica, node));
            }
            // What had a booking before keeps it; what had none is asked for again.
            Outcome::Refused(_) => {}
        }
    }
    plan.placement.sort_by(|a, b| (a.replica, &a.revision).cmp(&(b.replica, &b.revision)));
    plan
}

fn placement(book: &Book, node: String, chosen: &Chosen) -> PlacementStatus {
    PlacementStatus {
        replica: book.replica,
        revision: book.revision.clone(),
        booking: book.booking.clone(),
        attempt: book.attempt,
        node,
        devices: chosen.amounts.devices,
        concurrency: chosen.capacity.concurrency,
        memory: chosen.memory,
        host_memory: chosen.amounts.memory,
        cpu_millis: chosen.amounts.cpu_millis,
    }
}
