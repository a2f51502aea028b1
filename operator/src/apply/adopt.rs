//! Names that are taken: what is there already is ours, was left by a former owner of the same name, or is a stranger's.
//!
//! In: what is desired, and objects that were left. Out: writes of owner references, and nothing else of an object. It
//! must not know why an object exists.

use std::collections::BTreeMap;
use std::fmt::Debug;

use contract::labels::{APP_MANAGED_BY, DEPLOYMENT, MODEL};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Applier, Desired, Error, Outcome, Refusal, RefusalReason};
use crate::owner::{Standing, adopted, controller, standing};

/// Labels that tell whose an object is.
const MARKS: [&str; 3] = [APP_MANAGED_BY, DEPLOYMENT, MODEL];

/// Those labels of an object that tell whose it is.
pub(super) fn marks(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let marks = MARKS.iter().filter_map(|mark| labels.get_key_value(*mark));
    marks.map(|(key, value)| (key.clone(), value.clone())).collect()
}

impl Applier {
    /// Makes an object, or brings it to what is desired, if it is theirs.
    pub(super) async fn bring(&self, object: &Desired) -> Result<Outcome, Error> {
        let Some((owner, marks)) = &object.owner else {
            // What belongs to nobody is everybody's.
            return match &object.observed {
                Some(existing) if object.is_settled(existing) => Ok(Outcome::Unchanged),
                _ => self.apply_one(object, None).await,
            };
        };
        let looked_up;
        let existing = match &object.observed {
            Some(observed) => observed,
            None => match self.look(object).await {
                Ok(Some(found)) => {
                    looked_up = found;
                    &looked_up
                }
                Ok(None) => return self.apply_one(object, None).await,
                Err(source) => return object.failed(source),
            },
        };
        let metadata = ObjectMeta::deserialize(&existing["metadata"]).unwrap_or_default();
        match standing(owner, marks, &metadata) {
            Standing::Owned if object.is_settled(existing) => Ok(Outcome::Unchanged),
            Standing::Owned => self.apply_one(object, Some(&existing["metadata"]["uid"])).await,
            Standing::Left => {
                Err(Error::Left { kind: object.resource.kind.clone(), name: object.name.clone() })
            }
            Standing::Foreign => Ok(Outcome::Refused(taken(object, owner, &metadata))),
        }
    }

    /// An object that no store has: it may be a stranger's, or have been made a moment ago.
    async fn look(&self, object: &Desired) -> Result<Option<Value>, kube::Error> {
        let Desired { resource, namespace, name, .. } = object;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, resource);
        let found = api.get_opt(name).await?;
        Ok(found.map(|found| serde_json::to_value(found).expect("API objects serialize")))
    }

    /// Makes `owner` the controller of an object that was left; the object as it is then. `None` if it is no longer as
    /// it was observed: what is newer leads to another pass.
    ///
    /// # Errors
    /// A write that did not happen.
    pub async fn adopt<K>(&self, owner: &OwnerReference, object: &K) -> Result<Option<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
    {
        let (kind, name) = (K::kind(&()).into_owned(), object.name_any());
        self.metrics.api_write("patch", &kind);
        // The list is replaced as a whole, so the object must still be the one that was observed.
        let body = json!({ "metadata": {
            "uid": object.uid(), "resourceVersion": object.resource_version(),
            "ownerReferences": adopted(owner, object.meta()),
        } });
        let (api, how, body) = (self.api_of(object), PatchParams::default(), Patch::Merge(body));
        match self.send(&kind, api.patch(&name, &how, &body)).await {
            Ok(patched) => {
                tracing::info!(kind, name, owner = owner.name, "adopted");
                // What cannot be read as its kind is seen as such by the next pass.
                Ok(patched.try_parse().ok())
            }
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(None),
            Err(source) => Err(Error::Apply { kind, name, source }),
        }
    }
}

fn taken(object: &Desired, owner: &OwnerReference, existing: &ObjectMeta) -> Refusal {
    let (kind, name) = (&object.resource.kind, &object.name);
    let OwnerReference { kind: owner_kind, name: owner_name, .. } = owner;
    let whose = controller(existing);
    let message = format!(
        "there is a {kind} {name} already, and {whose}: it is left as it is; delete it, or give the \
         {owner_kind} {owner_name} another name"
    );
    Refusal { reason: RefusalReason::NameTaken, message }
}
