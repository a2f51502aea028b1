//! Which claims a pod mounts.
//!
//! In: a pod. Out: names of claims of its namespace. It must not know what is on them.

use k8s_openapi::api::core::v1::Pod;

/// Names of the claims that a pod mounts.
pub fn claims(pod: &Pod) -> impl Iterator<Item = &str> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| volume.persistent_volume_claim.as_ref())
        .map(|claim| claim.claim_name.as_str())
}
