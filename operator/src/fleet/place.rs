//! Where each demand goes: best fit, in a total order.
//!
//! Demands are taken largest first (bytes, then owner, then replica), so equal input gives equal output. A demand goes
//! to the node with the least left after it: bytes of the card (of memory on class CPU), then cards, memory, cores,
//! then by the node's name. What is known to be conservative: a node that is too small by the sum of its pods'
//! requests is refused although they may use less.

use std::collections::BTreeMap;

use super::demand::Reach;
use super::{Demand, Fleet, Reason};

/// What became of a demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It fits: this node, booked.
    Placed(String),
    /// It would fit on this node once the booking that it replaces has ended. Nothing is booked.
    AfterRelease(String),
    /// It fits nowhere.
    Refused(Refusal),
}

/// Why a demand fits nowhere: for every node, in the order of their names, the first rule that refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// Node and rule.
    pub nodes: Vec<(String, Reason)>,
}

/// Chooses a node for each demand; one outcome for each, in the order of the demands.
#[must_use]
pub fn place(demands: &[Demand], fleet: &Fleet) -> Vec<Outcome> {
    let mut fleet = fleet.clone();
    let mut claims: BTreeMap<&(String, String), String> = BTreeMap::new();
    let mut order: Vec<usize> = (0..demands.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (&demands[*a], &demands[*b]);
        let size = b.bytes.cmp(&a.bytes);
        size.then_with(|| (&a.owner, a.replica, &a.booking).cmp(&(&b.owner, b.replica, &b.booking)))
    });
    let mut outcomes = vec![Outcome::Refused(Refusal::default()); demands.len()];
    for index in order {
        let demand = pinned(&demands[index], &claims);
        let taken_over = demand.takes_over.as_deref().and_then(|b| Some((b, fleet.release(b)?)));
        outcomes[index] = match best(&demand, &fleet) {
            Ok(name) => {
                fleet.nodes.get_mut(&name).expect("the best node is one of the fleet").commit(&demand);
                if let Reach::OneNode { claim, .. } = &demands[index].reach {
                    claims.insert(claim, name.clone());
                }
                Outcome::Placed(name)
            }
            Err(refusal) => {
                let later = after_release(&demand, &fleet);
                if let Some((booking, spending)) = taken_over {
                    fleet.take_again(booking, spending);
                }
                later.map_or(Outcome::Refused(refusal), Outcome::AfterRelease)
            }
        };
    }
    outcomes
}

/// A demand for a claim that can be read from one node follows the one that was placed before it.
fn pinned(demand: &Demand, claims: &BTreeMap<&(String, String), String>) -> Demand {
    let mut demand = demand.clone();
    if let Reach::OneNode { claim, node: node @ None, .. } = &mut demand.reach {
        *node = claims.get(claim).cloned();
    }
    demand
}

/// The node with the least left, or why there is none.
fn best(demand: &Demand, fleet: &Fleet) -> Result<String, Refusal> {
    let mut fits = Vec::new();
    let mut refusal = Refusal::default();
    for (name, node) in fleet.nodes.iter().filter(|(name, _)| demand.not_on.as_ref() != Some(name)) {
        match node.check(demand) {
            Ok(left) => fits.push((left, name)),
            Err(reason) => refusal.nodes.push((name.clone(), reason)),
        }
    }
    fits.into_iter().min().map(|(_, name)| name.clone()).ok_or(refusal)
}

/// The node of the booking that this demand would replace, if it fits there without it.
fn after_release(demand: &Demand, fleet: &Fleet) -> Option<String> {
    let spending = fleet.bookings.get(demand.instead_of.as_ref()?)?;
    let mut node = fleet.nodes.get(&spending.node)?.clone();
    node.give_back(spending.amounts);
    node.check(demand).ok().filter(|_| demand.not_on.as_ref() != Some(&node.name)).map(|_| node.name)
}

#[cfg(test)]
mod tests;
