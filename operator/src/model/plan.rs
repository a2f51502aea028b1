//! What to do about a model: a decision on values.
//!
//! In: what was observed, and the settings. Out: a [`Plan`], which leaves execution no choices.
//! It must not know the API server or a clock: how long something has lasted is part of what was observed.

mod step;
mod wishes;

use std::collections::BTreeSet;
use std::sync::Arc;

use contract::inspect::Inspection;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Resource, ResourceExt};

use super::claim::claim_is_foreign;
use super::observe::Observed;
use super::reason::{Cause, Reason};
use crate::api::LlmModel;
use crate::apply::has_finalizer;
use crate::args::RuntimeArgs;
use crate::controller::Next;
use crate::owner::owns;
use contract::labels;

pub use wishes::{Wishes, required_nodes};

/// What to do.
#[derive(Debug)]
pub enum Plan {
    /// A deployment made it, and none uses it any more: delete it, after asking the API server once more.
    Retire,
    /// It is being deleted: delete these, and let it go once there are none.
    Remove {
        /// Jobs that it made.
        jobs: Vec<Arc<Job>>,
        /// The claim that it made.
        claim: Option<Arc<PersistentVolumeClaim>>,
    },
    /// Everything else.
    Keep(Box<Keep>),
}

/// What to apply, and what is true.
#[derive(Debug)]
pub struct Keep {
    /// Why it is as it is.
    pub cause: Cause,
    /// Whether the claim has to be made.
    pub make_claim: bool,
    /// The attempt to begin, with what its users ask for.
    pub start: Option<(u32, Wishes)>,
    /// Jobs that are no longer needed.
    pub discard: Vec<Arc<Job>>,
    /// What is known of the weights, if they are there.
    pub inspection: Option<Inspection>,
    /// When to look again.
    pub next: Next,
}

impl Keep {
    /// Nothing to do but to wait.
    fn wait(cause: Cause, next: Next) -> Self {
        Self { cause, make_claim: false, start: None, discard: Vec::new(), inspection: None, next }
    }
}

/// Whether a deployment made this model.
fn is_made_by_a_deployment(model: &LlmModel) -> bool {
    model.labels().get(labels::APP_MANAGED_BY).is_some_and(|manager| manager == labels::MANAGER)
}

/// Whether nothing is done about a model: somebody paused it, or it goes and nothing of ours holds it. A pause does
/// not keep from going what is being deleted.
#[must_use]
pub fn is_left_alone(model: &LlmModel) -> bool {
    if model.meta().deletion_timestamp.is_some() {
        !has_finalizer(model)
    } else {
        model.annotations().contains_key(labels::PAUSED)
    }
}

/// Decides.
#[must_use]
pub fn plan(observed: &Observed, settings: &RuntimeArgs) -> Plan {
    let model = &observed.model;
    // Pods whose deployment was deleted without them read on, and another of its name may take them over.
    let unused = observed.users.is_empty() && observed.readers.is_empty();
    if model.meta().deletion_timestamp.is_some() {
        // What was never verified serves nobody, and its users get another. Who reads it knows that it was verified, even
        // if the status does not any more.
        let known = observed.known().is_some() || !observed.readers.is_empty();
        let serves = known && !removal_has_begun(observed);
        if !unused && serves {
            return Plan::Keep(Box::new(Keep {
                inspection: observed.known().cloned(),
                ..Keep::wait(in_use(observed), Next::OnChange)
            }));
        }
        let claim = observed.claim.clone().filter(|claim| owns(model.as_ref(), claim.as_ref()));
        return Plan::Remove { jobs: observed.jobs.clone(), claim };
    }
    if unused && is_made_by_a_deployment(model) {
        return Plan::Retire;
    }
    Plan::Keep(Box::new(step::keep(observed, settings)))
}

/// Whether the claim that the model made is going, or gone: then there is nothing left that a user could have, and
/// who came meanwhile is served by another model of the same name, once this one has made way.
fn removal_has_begun(observed: &Observed) -> bool {
    let stays = |claim: &PersistentVolumeClaim| claim.meta().deletion_timestamp.is_none();
    !claim_is_foreign(&observed.model) && !observed.claim.as_deref().is_some_and(stays)
}

fn in_use(observed: &Observed) -> Cause {
    let users = observed.users.iter().map(|user| user.name_any());
    let names: BTreeSet<String> = users.chain(observed.readers.iter().cloned()).collect();
    let names: Vec<String> = names.into_iter().collect();
    let message = format!("it is deleted once these deployments no longer use it: {}", names.join(", "));
    Cause::new(Reason::InUse, message)
}

#[cfg(test)]
mod tests;
