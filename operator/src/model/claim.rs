//! The claim that holds a model's weights.
//!
//! In: a model. Out: the claim's name, and whose it is. It must not know what is to be done.

use kube::ResourceExt;

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
