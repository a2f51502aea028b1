//! Decides what is to be done for claims and volumes. Pure.

use std::collections::BTreeSet;
use std::path::Path;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use serde_json::json;

use super::{PROVISIONER, quantity};
use crate::addresses::NODE_NAME;

/// By this annotation the controller manager asks a provisioner for a volume. With a class that waits for the first
/// consumer, it does so only after the scheduler has chosen a node.
const ASKED: &str = "volume.kubernetes.io/storage-provisioner";
/// By this annotation the controller manager knows that someone else deletes the volume.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The smallest image that has room for a file system.
const SMALLEST: u64 = 1 << 20;
/// The volume's folder in its file system. It is missing while that is not mounted, so no pod writes beside it.
pub const DATA: &str = "data";

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make the image, mount it and create the volume.
    Provision(Claim),
    /// Mount an image whose volume exists, after a restart.
    Mount(String),
    /// Unmount and remove the image, and delete the volume.
    Reclaim(String),
    /// Remove an image that has no volume and no claim.
    Discard(String),
}

/// A claim that waits for a volume.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The claim's UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its storage class.
    pub class: String,
    /// Its access modes.
    pub access_modes: Vec<String>,
    /// The volume's name, derived from the UID.
    pub volume: String,
    /// The volume's size.
    pub bytes: u64,
}

/// All steps, in an order in which they can be taken. `images` and `mounted` are volumes' names.
pub fn plan(
    claims: &[PersistentVolumeClaim],
    volumes: &[PersistentVolume],
    images: &BTreeSet<String>,
    mounted: &BTreeSet<String>,
) -> Vec<Step> {
    let ours: Vec<_> = volumes
        .iter()
        .filter(|volume| annotation(volume.annotations(), PROVISIONED_BY) == Some(PROVISIONER))
        .collect();
    let names: BTreeSet<_> = ours.iter().map(|volume| volume.name_any()).collect();
    let wanted: Vec<_> =
        claims.iter().filter_map(wanted).filter(|claim| !names.contains(&claim.volume)).collect();

    let mut steps = Vec::new();
    for image in images {
        if !names.contains(image) && !wanted.iter().any(|claim| claim.volume == *image) {
            steps.push(Step::Discard(image.clone()));
        }
    }
    for volume in ours {
        let name = volume.name_any();
        let released = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Released");
        if released && volume.metadata.deletion_timestamp.is_none() {
            steps.push(Step::Reclaim(name));
        } else if images.contains(&name) && !mounted.contains(&name) {
            steps.push(Step::Mount(name));
        }
    }
    steps.extend(wanted.into_iter().map(Step::Provision));
    steps
}

/// The volume for a claim, whose image lies in `folder`.
pub fn object(claim: &Claim, folder: &Path) -> PersistentVolume {
    let object = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": { "name": claim.volume, "annotations": { PROVISIONED_BY: PROVISIONER } },
        "spec": {
            "capacity": { "storage": claim.bytes.to_string() },
            "accessModes": claim.access_modes,
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": claim.class,
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": claim.namespace, "name": claim.name, "uid": claim.uid,
            },
            "local": { "path": folder.join(&claim.volume).join(DATA) },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                { "key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME] },
            ] }] } },
        },
    });
    serde_json::from_value(object).expect("the object above is a PersistentVolume")
}

fn wanted(claim: &PersistentVolumeClaim) -> Option<Claim> {
    let spec = claim.spec.as_ref()?;
    let asked = annotation(claim.annotations(), ASKED) == Some(PROVISIONER);
    let waits = spec.volume_name.as_deref().unwrap_or_default().is_empty();
    if !asked || !waits || claim.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let requests = spec.resources.as_ref()?.requests.as_ref()?;
    let uid = claim.uid()?;
    Some(Claim {
        volume: format!("pvc-{uid}"),
        uid,
        namespace: claim.namespace()?,
        name: claim.name_any(),
        class: spec.storage_class_name.clone().unwrap_or_default(),
        access_modes: spec.access_modes.clone().unwrap_or_default(),
        bytes: quantity::bytes(&requests.get("storage")?.0)?.max(SMALLEST),
    })
}

fn annotation<'a>(annotations: &'a std::collections::BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    annotations.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(uid: &str, asked: bool, volume: &str) -> PersistentVolumeClaim {
        let annotations = if asked { json!({ ASKED: PROVISIONER }) } else { json!({}) };
        serde_json::from_value(json!({
            "metadata": { "name": "c", "namespace": "n", "uid": uid, "annotations": annotations },
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "volumeName": volume,
                "resources": { "requests": { "storage": "64Mi" } },
                "storageClassName": "lab-local",
            },
        }))
        .unwrap()
    }

    fn volume(claim: &PersistentVolumeClaim, phase: &str) -> PersistentVolume {
        let mut volume = object(&wanted(claim).unwrap(), Path::new("/v"));
        volume.status = Some(serde_json::from_value(json!({ "phase": phase })).unwrap());
        volume
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_claim_is_served_once_and_only_when_it_was_asked_for() {
        let none = set(&[]);
        let [Step::Provision(first)] = &plan(&[claim("1", true, "")], &[], &none, &none)[..] else {
            panic!()
        };
        assert_eq!((first.volume.as_str(), first.bytes), ("pvc-1", 64 << 20));
        assert_eq!(plan(&[claim("1", false, "")], &[], &none, &none), []);
        assert_eq!(plan(&[claim("1", true, "pvc-1")], &[], &none, &none), []);
        let made = volume(&claim("1", true, ""), "Available");
        assert_eq!(plan(&[claim("1", true, "")], &[made], &set(&["pvc-1"]), &set(&["pvc-1"])), []);
    }

    #[test]
    fn a_released_volume_is_reclaimed_and_a_bound_one_is_mounted_again() {
        let (released, bound) =
            (volume(&claim("1", true, ""), "Released"), volume(&claim("2", true, ""), "Bound"));
        let images = set(&["pvc-1", "pvc-2"]);
        let steps = plan(&[], &[released, bound], &images, &set(&["pvc-1"]));
        assert_eq!(steps, [Step::Reclaim("pvc-1".to_owned()), Step::Mount("pvc-2".to_owned())]);
    }

    #[test]
    fn what_a_killed_provisioner_left_is_discarded_unless_its_claim_still_waits() {
        let left = set(&["pvc-1", "pvc-9"]);
        let steps = plan(&[claim("1", true, "")], &[], &left, &set(&[]));
        assert_eq!(steps[0], Step::Discard("pvc-9".to_owned()));
        assert!(matches!(&steps[1..], [Step::Provision(claim)] if claim.volume == "pvc-1"));
    }
}
