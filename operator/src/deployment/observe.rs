//! Everything that one pass looks at, read once.
//!
//! In: the stores and the admin ports of the deployment's pods. Out: [`Observed`]. Where a store may be behind and that
//! would matter, the API server's own answer. It must not decide.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contract::Bytes;
use contract::http::{RuntimeStatus, STATUS};
use contract::labels::{DEPLOYMENT, PAUSED, REVISION};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource, ResourceExt};

use super::demand::readers;
use super::rebook::is_named;
use super::status::READY;
use super::{health, names};
use crate::api::condition::{ConditionStatus, find};
use crate::api::deployment::PlacementStatus;
use crate::api::{LlmDeployment, LlmModel};
use crate::apply::owner_of;
use crate::cache::{Stores, asks_the_same};
use crate::context::Context;
use crate::fleet::card::Cards;
use crate::fleet::snapshot::is_ready;
use crate::model::name::served_by;
use crate::owner::{Standing, standing};
use crate::recent::{Pace, Recent};
use crate::telemetry::chain;
use crate::warnings;

/// Runtime class that NVIDIA's container toolkit installs.
const NVIDIA_CLASS: &str = "nvidia";

/// How long making a container usually takes at most; after that the events about the pod are read.
const CREATING: SignedDuration = SignedDuration::from_secs(3);

/// What one pass looks at.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The model that is to be served, if it is there.
    pub model: Option<Arc<LlmModel>>,
    /// The claim with its weights, and the volume behind it.
    pub claim: Option<(Arc<PersistentVolumeClaim>, Option<Arc<PersistentVolume>>)>,
    /// Nodes that read that claim, whoever it is that does.
    pub readers: BTreeSet<String>,
    /// What nobody controls any more, of a deployment of this name.
    pub left: Left,
    /// Pods of the deployment, by name.
    pub pods: BTreeMap<String, Arc<Pod>>,
    /// Configuration of its revisions, by name.
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
    /// Its service.
    pub service: Option<Arc<Service>>,
    /// Names of nodes that are ready and not cordoned.
    pub usable_nodes: BTreeSet<String>,
    /// Bytes of a card of each node that has some and says so.
    pub cards: BTreeMap<String, Bytes>,
    /// Runtime class for cards, where there is one.
    pub runtime_class: Option<String>,
    /// What pods that load say of it, by pod.
    pub progress: BTreeMap<String, Pace>,
    /// Why containers are not made, in the kubelet's words, by pod.
    pub warnings: BTreeMap<String, String>,
    /// What a ready pod measured.
    pub measured: Option<RuntimeStatus>,
}

/// What a deployment of the same name left: it was deleted without its objects, or these were restored without it.
#[derive(Clone, Debug, Default)]
pub struct Left {
    /// Pods of replicas.
    pub pods: Vec<Arc<Pod>>,
    /// Configuration of revisions.
    pub config_maps: Vec<Arc<ConfigMap>>,
    /// Its service.
    pub services: Vec<Arc<Service>>,
}

impl Left {
    /// Whether there is nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.config_maps.is_empty() && self.services.is_empty()
    }
}

impl Observed {
    /// Whether the model is being removed, so that it is as good as gone. One that is only held by its users still
    /// serves.
    #[must_use]
    pub fn model_goes(&self) -> bool {
        let Some(model) = self.model.as_ref().filter(|m| m.meta().deletion_timestamp.is_some()) else {
            return false;
        };
        let conditions = model.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let serves = find(conditions, READY).is_some_and(|c| c.status == ConditionStatus::True.name());
        let claim_goes = self.claim.as_ref().is_some_and(|(c, _)| c.meta().deletion_timestamp.is_some());
        !serves || claim_goes
    }
}

/// A read that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A pod that the store does not have.
    #[error("cannot read pod {0}")]
    Pod(String, #[source] kube::Error),
    /// The deployment itself.
    #[error("cannot read the deployment again")]
    Deployment(#[source] kube::Error),
}

/// Those of the pods that the API server has now, whatever the store knows.
pub async fn pods_now(
    client: &Client,
    namespace: &str,
    names: Vec<String>,
) -> Result<BTreeMap<String, Arc<Pod>>, Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut pods = BTreeMap::new();
    for name in names {
        let pod = api.get_opt(&name).await.map_err(|error| Error::Pod(name.clone(), error))?;
        pods.extend(pod.map(|pod| (name, Arc::new(pod))));
    }
    Ok(pods)
}

/// This very deployment as the API server has it now; `None` if it is gone, whatever has its name.
async fn now(client: &Client, llm: &LlmDeployment) -> Result<Option<LlmDeployment>, Error> {
    let api: Api<LlmDeployment> = Api::namespaced(client.clone(), &llm.namespace().unwrap_or_default());
    let now = api.get_opt(&llm.name_any()).await.map_err(Error::Deployment)?;
    Ok(now.filter(|now| now.uid() == llm.uid()))
}

/// The bookings that the API server has now; `None` if this very deployment is gone.
pub async fn placement_now(
    client: &Client,
    llm: &LlmDeployment,
) -> Result<Option<Vec<PlacementStatus>>, Error> {
    Ok(now(client, llm).await?.map(|now| now.status.map(|status| status.placement).unwrap_or_default()))
}

/// Whether the API server has this very deployment now, neither going nor paused: then no other of its name is there.
pub async fn is_current(client: &Client, llm: &LlmDeployment) -> Result<bool, Error> {
    Ok(now(client, llm).await?.is_some_and(|now| !is_left_alone(&now)))
}

/// Whether nothing is done about a deployment: somebody paused it, or it goes. What it owns goes with it: the API
/// server's garbage collector follows the owner references.
#[must_use]
pub fn is_left_alone(llm: &LlmDeployment) -> bool {
    llm.meta().deletion_timestamp.is_some() || llm.annotations().contains_key(PAUSED)
}

/// Whether the deployment still asks for what it did when it was seen.
pub async fn is_unchanged(client: &Client, llm: &LlmDeployment) -> Result<bool, Error> {
    Ok(now(client, llm).await?.is_some_and(|now| asks_the_same(&now, llm)))
}

/// Reads the stores, then asks the pods, and the API server about those that do not get on.
pub async fn observe(context: &Context, recent: &Recent, llm: &LlmDeployment, now: Timestamp) -> Observed {
    let stores = &context.stores;
    let namespace = llm.namespace().unwrap_or_default();
    let name = llm.name_any();
    let model = served_by(&llm.spec).and_then(|n| stores.models.get(&ObjectRef::new(&n).within(&namespace)));
    let claim_name = model.as_ref().and_then(|m| m.status.as_ref()?.claim_name.clone());
    let claim = claim_name.and_then(|n| stores.claims.get(&ObjectRef::new(&n).within(&namespace)));
    let claim = claim.map(|claim| {
        let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
        let volume = volume.and_then(|n| stores.volumes.get(&ObjectRef::new(n)));
        (claim, volume)
    });
    let readers = claim.as_ref().map(|(claim, _)| readers_of(stores, &namespace, &claim.name_any()));
    let (pods, mut left_pods) = of_deployment(&stores.pods, llm);
    // Labels are copied, by people and by tools; names are not.
    left_pods.retain(|pod| is_named(&name, &pod.name_any(), pod));
    let (config_maps, mut left_config_maps) = of_deployment(&stores.config_maps, llm);
    left_config_maps.retain(|map| {
        map.labels().get(REVISION).is_some_and(|hash| map.name_any() == names::config_map(&name, hash))
    });
    let (mut services, mut left_services) = of_deployment(&stores.services, llm);
    left_services.retain(|service| service.name_any() == names::service(&name));
    let mut observed = Observed {
        model,
        claim,
        readers: readers.unwrap_or_default(),
        left: Left { pods: left_pods, config_maps: left_config_maps, services: left_services },
        pods,
        config_maps,
        service: services.remove(&names::service(&name)),
        usable_nodes: stores.nodes.state().iter().filter(|n| is_usable(n)).map(|n| n.name_any()).collect(),
        cards: stores.nodes.state().iter().filter_map(|node| Some((node.name_any(), card(node)?))).collect(),
        runtime_class: stores.runtime_classes.get(&ObjectRef::new(NVIDIA_CLASS)).map(|c| c.name_any()),
        ..Observed::default()
    };
    ask(recent, &mut observed).await;
    observed.warnings = warnings_of(&context.client, observed.pods.values(), now).await;
    observed
}

/// Nodes that read a claim.
fn readers_of(stores: &Stores, namespace: &str, claim: &str) -> BTreeSet<String> {
    let serves = |llm: &LlmDeployment| {
        let status = llm.status.as_ref().filter(|_| llm.namespace().as_deref() == Some(namespace));
        let Some(status) = status.filter(|status| !status.placement.is_empty()) else { return false };
        let model = status.model.clone().or_else(|| served_by(&llm.spec));
        let model = model.and_then(|n| stores.models.get(&ObjectRef::new(&n).within(namespace)));
        model.is_some_and(|m| m.status.as_ref().and_then(|s| s.claim_name.as_deref()) == Some(claim))
    };
    let users = stores.deployments.state_filter(serves);
    let bookings = users.iter().filter_map(|llm| llm.status.as_ref()).flat_map(|status| &status.placement);
    readers((namespace, claim), &stores.pods.state(), bookings)
}

/// What events say of pods whose containers take long to be made.
async fn warnings_of(
    client: &Client,
    pods: impl Iterator<Item = &Arc<Pod>>,
    now: Timestamp,
) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let is_late = |since: Timestamp| now.duration_since(since) > CREATING;
    for pod in pods.filter(|pod| health::creating_since(pod).is_some_and(is_late)) {
        match warnings::about(client, pod.as_ref()).await {
            Ok(events) => found.extend(warnings::unresolved(&events).map(|event| {
                let part = |text: &Option<String>| text.clone().unwrap_or_default();
                (pod.name_any(), format!("{}: {}", part(&event.reason), part(&event.message)))
            })),
            Err(error) => tracing::warn!(pod = pod.name_any(), error = chain(&error), "cannot read events"),
        }
    }
    found
}

/// Objects that carry the deployment's label, in its namespace: those that are owned by this very object, by name, and
/// those that one of its name has left and that are not going.
fn of_deployment<K>(store: &Store<K>, llm: &LlmDeployment) -> (BTreeMap<String, Arc<K>>, Vec<Arc<K>>)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let (owner, marks) = (owner_of(llm), names::marks(&llm.name_any()));
    let of_name = |object: &K| {
        object.meta().namespace == llm.metadata.namespace
            && object.labels().get(DEPLOYMENT) == llm.metadata.name.as_ref()
    };
    let (mut owned, mut left) = (BTreeMap::new(), Vec::new());
    for object in store.state_filter(of_name) {
        match standing(&owner, &marks, object.meta()) {
            Standing::Owned => drop(owned.insert(object.name_any(), object)),
            Standing::Left if object.meta().deletion_timestamp.is_none() => left.push(object),
            Standing::Left | Standing::Foreign => {}
        }
    }
    (owned, left)
}

fn is_usable(node: &Arc<Node>) -> bool {
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    !cordoned && is_ready(node)
}

fn card(node: &Arc<Node>) -> Option<Bytes> {
    Cards::read(node.labels(), 1)?.memory
}

/// Asks pods that load how far they are, and one that is ready what it measured. No answer is no news.
async fn ask(recent: &Recent, observed: &mut Observed) {
    let address = |pod: &Arc<Pod>| {
        let status = pod.status.as_ref()?;
        let running = status.phase.as_deref() == Some("Running") && pod.metadata.deletion_timestamp.is_none();
        status.pod_ip.clone().filter(|_| running)
    };
    let loading = observed.pods.iter().filter(|(_, pod)| !health::is_ready(pod));
    let loading = loading.filter_map(|(name, pod)| Some((name.clone(), pod.uid()?, address(pod)?)));
    let questions = loading.map(|(name, uid, ip)| async move { (name, recent.pace(&uid, &ip).await) });
    let answers = join_all(questions).await;
    observed.progress = answers.into_iter().filter_map(|(name, pace)| Some((name, pace?))).collect();
    let ready = observed.pods.values().filter(|pod| health::is_ready(pod)).find_map(address);
    if let Some(ip) = ready {
        observed.measured = recent.ask().get(&ip, STATUS).await;
    }
}
