//! Writes of one field of an object, each by its own writer.
//!
//! In: an object as observed, and the field. Out: nothing, or an error that may pass.

use kube::api::{Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::{Applier, Error};
use crate::api::LlmDeployment;
use crate::api::deployment::PlacementStatus;
use contract::labels::FIELD_MANAGER_PLACEMENT;

impl Applier {
    /// Records all bookings of a deployment, if they differ from those that were observed.
    ///
    /// The resourceVersion makes a pass on an old view fail instead of undoing a newer one's bookings.
    ///
    /// # Errors
    /// A write that did not happen, a conflict among them: the next pass sees what is newer.
    pub async fn patch_placement(
        &self,
        llm: &LlmDeployment,
        observed: &[PlacementStatus],
        placement: &[PlacementStatus],
    ) -> Result<(), Error> {
        if observed == placement {
            return Ok(());
        }
        let (kind, name) = (LlmDeployment::kind(&()).into_owned(), llm.name_any());
        self.metrics.api_write("apply_placement", &kind);
        let body = json!({
            "apiVersion": LlmDeployment::api_version(&()),
            "kind": kind,
            "metadata": { "name": name, "uid": llm.uid(), "resourceVersion": llm.resource_version() },
            "status": { "placement": placement },
        });
        let (parameters, body) = (PatchParams::apply(FIELD_MANAGER_PLACEMENT).force(), Patch::Apply(body));
        let api = self.api_of(llm);
        match self.send(&kind, api.patch_status(&name, &parameters, &body)).await {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::Apply { kind, name, source }),
        }
    }

    /// Sets one label of this very object, if it has another value. An object that is gone is fine.
    ///
    /// # Errors
    /// A write that did not happen.
    pub async fn label<K>(&self, object: &K, label: &str, value: &str) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()>,
    {
        if object.labels().get(label).is_some_and(|has| has == value) {
            return Ok(());
        }
        let (kind, name) = (K::kind(&()).into_owned(), object.name_any());
        self.metrics.api_write("patch", &kind);
        // The uid keeps the label from reaching a later object of the same name.
        let body = json!({ "metadata": { "uid": object.uid(), "labels": { label: value } } });
        let (api, how, body) = (self.api_of(object), PatchParams::default(), Patch::Merge(body));
        match self.send(&kind, api.patch(&name, &how, &body)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(Error::Apply { kind, name, source }),
        }
    }
}
