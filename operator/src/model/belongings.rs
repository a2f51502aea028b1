//! What belongs to a model: its claim, and the objects that it made.
//!
//! In: a model, an object. Out: a name, or whose it is. It must not know what is to be done.

use kube::{Resource, ResourceExt};

use crate::api::LlmModel;

/// Name of the claim that holds a model's weights.
#[must_use]
pub fn claim_name(model: &LlmModel) -> String {
    let existing = model.spec.source.persistent_volume_claim.as_ref();
    existing.map_or_else(|| model.name_any(), |claim| claim.claim_name.clone())
}

/// Whether the model's claim is one that somebody else made and keeps.
#[must_use]
pub fn claim_is_foreign(model: &LlmModel) -> bool {
    model.spec.source.persistent_volume_claim.is_some()
}

/// Whether the model made this object.
#[must_use]
pub fn owns<K: Resource>(model: &LlmModel, object: &K) -> bool {
    let uid = model.uid();
    object.owner_references().iter().any(|owner| Some(&owner.uid) == uid.as_ref())
}
