//! The objects of a deployment: a Service, a ConfigMap for each revision, a pod for each booking.
//!
//! In: the deployment, what is frozen, what is booked. Out: objects. It must not know the state of the cluster.

pub mod booked;
pub mod config_map;
pub mod pod;
pub mod resources;
pub mod service;

pub use config_map::{Frozen, config_map};
pub use pod::{PodPlan, pod};
pub use service::service;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::names::Labels;
use crate::api::LlmDeployment;
use crate::apply::owner_of;

fn metadata(owner: &LlmDeployment, name: String, labels: Labels) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: owner.namespace(),
        labels: Some(labels),
        owner_references: Some(vec![owner_of(owner)]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests;
