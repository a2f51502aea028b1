//! Whose an object is.
//!
//! In: an object and who asks. Out: whether it is theirs, was left by one of the same name, or is somebody else's. It
//! must not know why.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};

/// How an object stands to who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is owned by this very object.
    Owned,
    /// An object of the same kind and name made it, and nobody controls it now: it may be adopted.
    Left,
    /// It is none of theirs.
    Foreign,
}

/// Whether `owner`, this very object and not one of the same name, owns `object`.
#[must_use]
pub fn owns<O: Resource, K: Resource>(owner: &O, object: &K) -> bool {
    let uid = owner.meta().uid.as_ref();
    object.owner_references().iter().any(|reference| Some(&reference.uid) == uid)
}

/// How an object stands to an owner whose objects carry these labels.
///
/// Names are unique, so a controller of the owner's kind and name but another uid is gone, as surely as the owner is
/// there.
#[must_use]
pub fn standing(owner: &OwnerReference, marks: &BTreeMap<String, String>, object: &ObjectMeta) -> Standing {
    let references = object.owner_references.as_deref().unwrap_or_default();
    if references.iter().any(|reference| reference.uid == owner.uid) {
        return Standing::Owned;
    }
    let labels = object.labels.as_ref();
    let marked = marks.iter().all(|(key, value)| labels.and_then(|all| all.get(key)) == Some(value));
    if marked && references.iter().all(|reference| !controls(reference) || is_former(owner, reference)) {
        Standing::Left
    } else {
        Standing::Foreign
    }
}

/// Who controls an object, in words.
#[must_use]
pub fn controller(object: &ObjectMeta) -> String {
    let mut references = object.owner_references.iter().flatten();
    match references.find(|reference| controls(reference)) {
        Some(OwnerReference { kind, name, .. }) => format!("it is controlled by {kind} {name}"),
        None => "it was not made by this operator".to_owned(),
    }
}

/// The owners of an object once it is adopted: those that it has, with the controller in the place of former ones.
#[must_use]
pub fn adopted(owner: &OwnerReference, object: &ObjectMeta) -> Vec<OwnerReference> {
    let others = object.owner_references.iter().flatten();
    others.filter(|reference| !is_former(owner, reference)).chain([owner]).cloned().collect()
}

fn controls(reference: &OwnerReference) -> bool {
    reference.controller.unwrap_or(false)
}

fn is_former(owner: &OwnerReference, reference: &OwnerReference) -> bool {
    let group = |version: &str| version.split_once('/').map(|(group, _)| group.to_owned());
    reference.uid != owner.uid
        && (&reference.kind, &reference.name) == (&owner.kind, &owner.name)
        && group(&reference.api_version) == group(&owner.api_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(kind: &str, uid: &str, controller: &str) -> String {
        format!("{{apiVersion: llmfleet.dev/v1, kind: {kind}, name: chat, uid: {uid}{controller}}}")
    }

    fn object(labels: &str, owners: &[String]) -> ObjectMeta {
        let owners = owners.join(", ");
        serde_norway::from_str(&format!("{{labels: {{{labels}}}, ownerReferences: [{owners}]}}")).unwrap()
    }

    #[test]
    fn only_what_nobody_controls_and_carries_our_labels_may_be_adopted() {
        const OURS: &str = "by: us, of: chat, more: x";
        let marks = [("by", "us"), ("of", "chat")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let controls = ", controller: true";
        let me: OwnerReference = serde_norway::from_str(&owner("LlmDeployment", "new", controls)).unwrap();
        let of = |labels: &str, owners: &[String]| standing(&me, &marks, &object(labels, owners));
        let former = owner("LlmDeployment", "old", controls);
        let [mine, other] = [owner("LlmDeployment", "new", controls), owner("ReplicaSet", "rs", controls)];
        assert_eq!(of("", std::slice::from_ref(&mine)), Standing::Owned);
        assert_eq!(of(OURS, &[]), Standing::Left);
        assert_eq!(of(OURS, std::slice::from_ref(&former)), Standing::Left);
        assert_eq!(of(OURS, &[owner("ConfigMap", "other", "")]), Standing::Left, "it goes with it, no more");
        assert_eq!(of(OURS, std::slice::from_ref(&other)), Standing::Foreign);
        assert_eq!(of("by: us", &[]), Standing::Foreign, "of another");
        assert_eq!(of("", std::slice::from_ref(&former)), Standing::Foreign);
        assert!(controller(&object("", std::slice::from_ref(&other))).contains("ReplicaSet chat"));

        let (beside, owners) = (owner("ConfigMap", "other", ""), |all: Vec<OwnerReference>| {
            all.into_iter().map(|reference| reference.uid).collect::<Vec<_>>()
        });
        assert_eq!(owners(adopted(&me, &object(OURS, &[former, beside]))), ["other", "new"]);
    }
}
