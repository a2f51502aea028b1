//! Whose an object is.
//!
//! In: two objects. Out: whether one owns the other. It must not know why.

use kube::{Resource, ResourceExt};

/// Whether `owner`, this very object and not one of the same name, owns `object`.
#[must_use]
pub fn owns<O: Resource, K: Resource>(owner: &O, object: &K) -> bool {
    let uid = owner.meta().uid.as_ref();
    object.owner_references().iter().any(|reference| Some(&reference.uid) == uid)
}
