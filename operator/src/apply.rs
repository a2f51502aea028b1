//! The only place that writes objects: server-side apply in a stated order, deletions, status.
//!
//! In: [`Desired`] objects with what was observed of them. Out: [`Applied`], which says of each object what happened;
//! only this module can make one. It must not know why an object exists, only order and ownership.
//!
//! # Guarantees
//! - Nothing is written where what was observed already says what is desired.
//! - An object of the same name that is somebody else's is never written. What the stores do not have is looked for
//!   before it is made.
//! - A refusal that a person has to deal with (quota, admission, another field manager) is a value, not an error.
//! - A deletion names the uid, so that an object of the same name that came later is left alone.
//! - When a write returns, what it made of the object is in the store of its kind.

mod adopt;
pub mod differ;
mod partial;
pub mod refusal;
pub mod trouble;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Instant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::ApiResource;
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cache::Keepers;
use crate::metrics::Metrics;
use adopt::marks;
use contract::labels::{FIELD_MANAGER, FIELD_MANAGER_STATUS, FINALIZER};
pub use refusal::{Refusal, RefusalReason};

/// The order of application: what others refer to comes first, pods come last.
const ORDER: [&str; 6] = ["LlmModel", "ConfigMap", "PersistentVolumeClaim", "Service", "Job", "Pod"];

/// Whether an object is kept as desired, or only made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upkeep {
    Converge,
    CreateOnly,
}

/// An object that should exist.
#[derive(Clone, Debug)]
pub struct Desired {
    resource: ApiResource,
    namespace: String,
    name: String,
    body: Value,
    observed: Option<Value>,
    upkeep: Upkeep,
    /// Its controller, and the labels that everything of the controller carries.
    owner: Option<(OwnerReference, BTreeMap<String, String>)>,
}

impl Desired {
    /// An object that is kept as it is here.
    pub fn converge<K>(desired: &K, observed: Option<&K>) -> Self
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        Self::new(desired, observed, Upkeep::Converge)
    }

    /// An object that is made when it is missing and then left alone, since it cannot be changed.
    pub fn create_only<K>(desired: &K, observed: Option<&K>) -> Self
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        Self::new(desired, observed, Upkeep::CreateOnly)
    }

    fn new<K>(desired: &K, observed: Option<&K>, upkeep: Upkeep) -> Self
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let body = |object: &K| serde_json::to_value(object).expect("API objects serialize");
        Self {
            resource: ApiResource::erase::<K>(&()),
            namespace: desired.namespace().unwrap_or_default(),
            name: desired.name_any(),
            body: body(desired),
            observed: observed.map(body),
            upkeep,
            owner: desired.owner_references().first().map(|owner| (owner.clone(), marks(desired.labels()))),
        }
    }

    /// Whether nothing of the kind was seen under its name.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.observed.is_none()
    }

    fn rank(&self) -> usize {
        ORDER.iter().position(|kind| *kind == self.resource.kind).unwrap_or(ORDER.len())
    }

    /// A call that failed: a refusal, or an error that may pass.
    fn failed(&self, source: kube::Error) -> Result<Outcome, Error> {
        match refusal::of(&source) {
            Some(refusal) => Ok(Outcome::Refused(refusal)),
            None => Err(Error::Apply { kind: self.resource.kind.clone(), name: self.name.clone(), source }),
        }
    }

    /// Whether an object that is theirs is as desired.
    fn is_settled(&self, existing: &Value) -> bool {
        self.upkeep == Upkeep::CreateOnly || differ::contains(existing, &self.body)
    }
}

/// What became of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was as desired.
    Unchanged,
    /// It was written.
    Written,
    /// It cannot be as desired until somebody does something.
    Refused(Refusal),
}

/// What became of all objects, in the order in which they were applied. It ends at the first refusal.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    outcomes: Vec<(String, String, Outcome)>,
}

impl Applied {
    /// Kind, name and what became of each object.
    pub fn outcomes(&self) -> impl Iterator<Item = (&str, &str, &Outcome)> {
        self.outcomes.iter().map(|(kind, name, outcome)| (kind.as_str(), name.as_str(), outcome))
    }

    /// The refusal, if there was one, with the kind and name of the object.
    #[must_use]
    pub fn refusal(&self) -> Option<(&str, &str, &Refusal)> {
        self.outcomes().find_map(|(kind, name, outcome)| match outcome {
            Outcome::Refused(refusal) => Some((kind, name, refusal)),
            Outcome::Unchanged | Outcome::Written => None,
        })
    }
}

/// A write that may well succeed when it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An object could not be applied.
    #[error("cannot apply {kind} {name}")]
    Apply {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
        /// What the API server or the connection says.
        #[source]
        source: kube::Error,
    },
    /// An object could not be deleted.
    #[error("cannot delete {kind} {name}")]
    Delete {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
        /// What the API server or the connection says.
        #[source]
        source: kube::Error,
    },
    /// An object of the name was left by a former owner, and is not adopted yet. The next pass sees it.
    #[error("{kind} {name} is not adopted yet")]
    Left {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
    },
    /// A status could not be written.
    #[error("cannot write the status of {kind} {name}")]
    Status {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
        /// What the API server or the connection says.
        #[source]
        source: kube::Error,
    },
    /// A finalizer could not be added or removed.
    #[error("cannot change the finalizers of {kind} {name}")]
    Finalizer {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
        /// What the API server or the connection says.
        #[source]
        source: kube::Error,
    },
}

/// Writes objects and counts the writes.
#[derive(Clone)]
pub struct Applier {
    client: Client,
    metrics: Metrics,
    keepers: Keepers,
}

impl Applier {
    /// Writes through this client, which refuses when this process does not lead. What is written goes to the keepers.
    #[must_use]
    pub const fn new(client: Client, metrics: Metrics, keepers: Keepers) -> Self {
        Self { client, metrics, keepers }
    }

    /// Sends a write and keeps its answer, so that the next look at the store sees it.
    async fn send(
        &self,
        kind: &str,
        write: impl Future<Output = kube::Result<DynamicObject>>,
    ) -> kube::Result<DynamicObject> {
        let begun = Instant::now();
        let answer = write.await?;
        self.keepers.keep(kind, answer.clone(), begun).await;
        Ok(answer)
    }

    /// Applies objects in a stated order and by name, up to the first refusal.
    ///
    /// # Errors
    /// The first write that failed for a passing reason; what was written before stays.
    pub async fn apply(&self, mut desired: Vec<Desired>) -> Result<Applied, Error> {
        desired.sort_by(|a, b| (a.rank(), &a.name).cmp(&(b.rank(), &b.name)));
        let mut applied = Applied::default();
        for object in desired {
            let outcome = self.bring(&object).await?;
            let refused = matches!(outcome, Outcome::Refused(_));
            applied.outcomes.push((object.resource.kind, object.name, outcome));
            if refused {
                break;
            }
        }
        Ok(applied)
    }

    /// Writes what is desired, with the uid of what is there, if anything is.
    async fn apply_one(&self, object: &Desired, uid: Option<&Value>) -> Result<Outcome, Error> {
        let Desired { resource, namespace, name, body, .. } = object;
        self.metrics.api_write("apply", &resource.kind);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, resource);
        let mut body = body.clone();
        if let Some(uid) = uid {
            // It keeps the write from reaching a later object of the same name.
            body["metadata"]["uid"] = uid.clone();
        }
        let (how, body) = (PatchParams::apply(FIELD_MANAGER), Patch::Apply(body));
        match self.send(&resource.kind, api.patch(name, &how, &body)).await {
            Ok(_) => {
                tracing::info!(kind = resource.kind, namespace, name, "applied");
                Ok(Outcome::Written)
            }
            Err(source) => object.failed(source),
        }
    }

    /// Deletes this very object, and whatever it owns in the background. An object that is gone is fine.
    ///
    /// # Errors
    /// A deletion that did not happen, also because another object has the name now: the next pass sees that one.
    pub async fn delete<K>(&self, object: &K) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()>,
    {
        let (kind, name) = (K::kind(&()).into_owned(), object.name_any());
        let namespace = object.namespace().unwrap_or_default();
        if object.meta().deletion_timestamp.is_some() {
            return Ok(());
        }
        self.metrics.api_write("delete", &kind);
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &namespace, &ApiResource::erase::<K>(&()));
        let parameters = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions { uid: object.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        let begun = Instant::now();
        match api.delete(&name, &parameters).await {
            Ok(answer) => {
                tracing::info!(kind, namespace, name, "deleted");
                if let Some(going) = answer.left() {
                    self.keepers.keep(&kind, going, begun).await;
                }
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(Error::Delete { kind, name, source }),
        }
    }

    /// Writes the whole status of an object, if it differs from what was observed.
    ///
    /// `observed` is the status that the object came with. An object that is gone is fine.
    pub async fn patch_status<K, S>(&self, object: &K, observed: Option<&S>, status: &S) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()>,
        S: Serialize,
    {
        let value = |status: &S| serde_json::to_value(status).expect("statuses serialize");
        let new = value(status);
        if observed.map(value).as_ref() == Some(&new) {
            return Ok(());
        }
        let (kind, name) = (K::kind(&()).into_owned(), object.name_any());
        self.metrics.api_write("apply_status", &kind);
        let body = json!({
            "apiVersion": K::api_version(&()),
            "kind": kind,
            // The uid keeps the status of an object from reaching a later one of the same name.
            "metadata": { "name": name, "uid": object.uid() },
            "status": new,
        });
        let (parameters, body) = (PatchParams::apply(FIELD_MANAGER_STATUS).force(), Patch::Apply(body));
        let api = self.api_of(object);
        match self.send(&kind, api.patch_status(&name, &parameters, &body)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(Error::Status { kind, name, source }),
        }
    }

    /// Adds our finalizer to an object that lacks it.
    pub async fn add_finalizer<K>(&self, object: &K) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()>,
    {
        if has_finalizer(object) {
            return Ok(());
        }
        let finalizers = object.finalizers().iter().map(String::as_str).chain([FINALIZER]).collect();
        self.set_finalizers(object, finalizers).await
    }

    /// Removes our finalizer: the object may go.
    pub async fn remove_finalizer<K>(&self, object: &K) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()>,
    {
        if !has_finalizer(object) {
            return Ok(());
        }
        let finalizers = object.finalizers().iter().map(String::as_str).filter(|f| *f != FINALIZER).collect();
        self.set_finalizers(object, finalizers).await
    }

    /// The list is replaced as a whole, so it must still be the one that was observed: hence the resourceVersion.
    /// Where it is not, that is an error, and the next pass sees what is newer.
    async fn set_finalizers<K>(&self, object: &K, finalizers: Vec<&str>) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()>,
    {
        let (kind, name) = (K::kind(&()).into_owned(), object.name_any());
        self.metrics.api_write("patch", &kind);
        let body = json!({
            "metadata": { "finalizers": finalizers, "resourceVersion": object.resource_version() },
        });
        let (api, how, body) = (self.api_of(object), PatchParams::default(), Patch::Merge(body));
        match self.send(&kind, api.patch(&name, &how, &body)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(Error::Finalizer { kind, name, source }),
        }
    }

    fn api_of<K: Resource<DynamicType = ()>>(&self, object: &K) -> Api<DynamicObject> {
        let namespace = object.namespace().unwrap_or_default();
        Api::namespaced_with(self.client.clone(), &namespace, &ApiResource::erase::<K>(&()))
    }
}

/// Whether our finalizer is on the object.
pub fn has_finalizer<K: Resource>(object: &K) -> bool {
    object.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// A controlling reference to the owner, so that what it owns goes with it.
pub fn owner_of<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    owner.controller_owner_ref(&()).expect("an object that was read has a name and a uid")
}
