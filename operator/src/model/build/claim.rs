//! The claim that fetched weights are kept on.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;

use crate::api::LlmModel;
use crate::api::shared::VolumeSpec;
use crate::api::shared::default_size;

/// The claim of a model, of the model's name.
///
/// It is made once and then left alone, so that its owner may make it larger.
#[must_use]
pub fn claim(model: &LlmModel) -> PersistentVolumeClaim {
    let VolumeSpec { storage_class_name, size } = model
        .spec
        .volume
        .clone()
        .unwrap_or_else(|| VolumeSpec { storage_class_name: None, size: default_size() });
    let requests = [("storage".to_owned(), Quantity(size))].into();
    PersistentVolumeClaim {
        metadata: super::metadata(model, model.name_any()),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements { requests: Some(requests), limits: None }),
            storage_class_name,
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
