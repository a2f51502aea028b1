//! Bookings that were decided and are not yet seen back.
//!
//! In: demands and a view of the cluster. Out: outcomes. It must not know channels or clocks.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use super::Owner;
use crate::api::LlmDeployment;
use crate::fleet::demand::Reach;
use crate::fleet::ledger::{booking_of, ledger};
use crate::fleet::{Demand, Fleet, Outcome, Spending, place};

/// The cluster at one moment.
pub(super) struct View {
    /// All nodes.
    pub(super) nodes: Vec<Arc<Node>>,
    /// All pods.
    pub(super) pods: Vec<Arc<Pod>>,
    /// All deployments.
    pub(super) deployments: Vec<Arc<LlmDeployment>>,
}

/// A booking that was decided.
#[derive(Debug)]
struct Assumed {
    owner: Owner,
    spending: Spending,
    /// The claim that it reads, if that can be read from one node only.
    claim: Option<(String, String)>,
}

/// By booking: for whom, and what it spends.
#[derive(Debug, Default)]
pub(super) struct Books(BTreeMap<String, Assumed>);

impl Books {
    /// Forgets what an owner no longer asks for.
    pub(super) fn forget(&mut self, owner: &Owner, but: &[Demand]) {
        self.0
            .retain(|booking, of| of.owner != *owner || but.iter().any(|demand| demand.booking == *booking));
    }

    /// Decides over all demands at once and books what fits.
    pub(super) fn decide(&mut self, demands: &[Demand], view: &View) -> Vec<Outcome> {
        self.forget_recorded(view);
        let assumed = self.0.iter().filter(|(booking, _)| !demands.iter().any(|d| d.booking == **booking));
        let assumed = assumed.map(|(booking, of)| (booking.clone(), of.spending.clone())).collect();
        let pods = view.pods.iter().map(AsRef::as_ref);
        let ledger = ledger(pods, view.deployments.iter().map(AsRef::as_ref), &assumed);
        let mut fleet = Fleet::new(view.nodes.iter().map(AsRef::as_ref), ledger);

        let mut kept: BTreeMap<&str, String> = BTreeMap::new();
        for demand in demands {
            if let Some(node) = self.keep(demand, &mut fleet) {
                kept.insert(&demand.booking, node);
            }
        }
        let mut others: Vec<Demand> = demands.to_vec();
        others.retain(|demand| !kept.contains_key(demand.booking.as_str()));
        for demand in &others {
            self.0.remove(&demand.booking);
        }
        others.iter_mut().for_each(|demand| self.pin(demand));
        let mut placed = place(&others, &fleet).into_iter();
        let mut outcome = |demand: &Demand| match kept.remove(demand.booking.as_str()) {
            Some(node) => Outcome::Placed(node),
            None => placed.next().expect("one outcome for each demand"),
        };
        let outcomes: Vec<Outcome> = demands.iter().map(&mut outcome).collect();
        for (demand, outcome) in demands.iter().zip(&outcomes) {
            if let Outcome::Placed(node) = outcome {
                let claim = match &demand.reach {
                    Reach::OneNode { claim, .. } => Some(claim.clone()),
                    Reach::Anywhere | Reach::Nodes(_) => None,
                };
                let spending = Spending { node: node.clone(), amounts: demand.amounts };
                let assumed = Assumed { owner: demand.owner.clone(), spending, claim };
                self.0.insert(demand.booking.clone(), assumed);
            }
        }
        outcomes
    }

    /// Pins a demand to the node from which a claim of one node will be read, as was decided before.
    fn pin(&self, demand: &mut Demand) {
        if let Reach::OneNode { claim, node: node @ None, .. } = &mut demand.reach {
            let reader = self.0.values().find(|assumed| assumed.claim.as_ref() == Some(claim));
            *node = reader.map(|assumed| assumed.spending.node.clone());
        }
    }

    /// The node that was assumed for this booking before, booked again if that is still legal.
    fn keep(&self, demand: &Demand, fleet: &mut Fleet) -> Option<String> {
        let Assumed { spending, .. } = self.0.get(&demand.booking)?;
        let taken_over = demand.takes_over.as_deref().and_then(|b| Some((b, fleet.release(b)?)));
        let node = fleet.nodes.get_mut(&spending.node).filter(|node| node.check(demand).is_ok());
        if let Some(node) = node {
            node.commit(demand);
            return Some(node.name.clone());
        }
        if let Some((booking, spending)) = taken_over {
            fleet.take_again(booking, spending);
        }
        None
    }

    /// What a status or a pod tells is in the ledger without us; whose owner is gone is not needed.
    fn forget_recorded(&mut self, view: &View) {
        for pod in &view.pods {
            if let Some(booking) = booking_of(pod) {
                self.0.remove(booking);
            }
        }
        let mut owners = std::collections::BTreeSet::new();
        for deployment in &view.deployments {
            let metadata = &deployment.metadata;
            owners.insert((metadata.namespace.as_deref(), metadata.name.as_deref()));
            for placement in deployment.status.iter().flat_map(|status| &status.placement) {
                self.0.remove(&placement.booking);
            }
        }
        self.0.retain(|_, Assumed { owner: (namespace, name), .. }| {
            owners.contains(&(Some(namespace), Some(name)))
        });
    }
}

#[cfg(test)]
mod tests;
