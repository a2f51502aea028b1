//! The objects of a model: a claim and a job.
//!
//! In: the model, the attempt, the settings. Out: objects. It must not know the state of the cluster.

pub mod claim;
pub mod job;

pub use claim::claim;
pub use job::{job, made_from};

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use crate::api::LlmModel;
use crate::apply::owner_of;
use contract::labels;

/// What part the objects of a model play.
pub const COMPONENT: &str = "fetch";

/// Labels of everything that a model makes.
fn labels_of(model: &LlmModel) -> BTreeMap<String, String> {
    let name = model.name_any();
    let label = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    [
        (labels::APP_NAME, labels::MANAGER),
        (labels::APP_INSTANCE, name.as_str()),
        (labels::APP_COMPONENT, COMPONENT),
        (labels::APP_MANAGED_BY, labels::MANAGER),
        (labels::MODEL, name.as_str()),
    ]
    .map(label)
    .into()
}

/// Those labels that tell whose an object is, whatever part it plays.
#[must_use]
pub fn marks(model: &str) -> BTreeMap<String, String> {
    [(labels::APP_MANAGED_BY, labels::MANAGER), (labels::MODEL, model)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn metadata(model: &LlmModel, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: model.namespace(),
        labels: Some(labels_of(model)),
        owner_references: Some(vec![owner_of(model)]),
        ..ObjectMeta::default()
    }
}
