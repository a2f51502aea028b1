//! The stores of the operator: which kinds are watched, where, and how much of them is kept.
//!
//! In: the watch client and the namespaces. Out: [`Stores`]. It must not know who reads them.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodSpec, PodStatus, Service,
};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::ObjectMeta;
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::Store;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::keeper::{Keepers, Request};
use super::{Changes, Started, Watch, kind_of, spawn};
use crate::admin::Check;
use crate::api::{LlmDeployment, LlmModel};
use contract::labels;

/// Selects what the operator made.
const OURS: &str = "app.kubernetes.io/managed-by=llm-fleet";

/// How often a task asks whether the stores are ready.
const ASK_AGAIN: std::time::Duration = std::time::Duration::from_millis(200);

/// What the operator knows of the cluster.
#[derive(Clone)]
pub struct Stores {
    /// All deployments of the watched namespaces.
    pub deployments: Store<LlmDeployment>,
    /// All models of the watched namespaces.
    pub models: Store<LlmModel>,
    /// All pods of the cluster. Of those that are not ours only what they spend is kept.
    pub pods: Store<Pod>,
    /// All nodes, without their lists of images.
    pub nodes: Store<Node>,
    /// All claims of the watched namespaces.
    pub claims: Store<PersistentVolumeClaim>,
    /// All volumes.
    pub volumes: Store<PersistentVolume>,
    /// Our jobs.
    pub jobs: Store<Job>,
    /// Our services.
    pub services: Store<Service>,
    /// Our configuration.
    pub config_maps: Store<ConfigMap>,
    /// All runtime classes.
    pub runtime_classes: Store<RuntimeClass>,
}

impl Stores {
    /// Starts all watches. Without namespaces, those of all namespaces. The checks hold once all is listed; the keepers
    /// take what this process writes.
    pub fn spawn(
        client: &Client,
        namespaces: &[String],
        changes: &Changes,
        shutdown: &CancellationToken,
    ) -> (Self, Vec<Check>, Keepers) {
        let (mut checks, mut keepers) = (Vec::new(), BTreeMap::new());
        let mut parts = Parts { checks: &mut checks, keepers: &mut keepers };
        let stop = || shutdown.clone();
        let stores = Self {
            deployments: parts.take(spawn(watch(client, namespaces, None), changes, stop())),
            models: parts.take(spawn(watch(client, namespaces, None), changes, stop())),
            claims: parts.take(spawn(watch(client, namespaces, None), changes, stop())),
            jobs: parts.take(spawn(watch(client, namespaces, Some(OURS)), changes, stop())),
            services: parts.take(spawn(watch(client, namespaces, Some(OURS)), changes, stop())),
            config_maps: parts.take(spawn(watch(client, namespaces, Some(OURS)), changes, stop())),
            pods: parts.take(spawn(everywhere(client, trim_pod), changes, stop())),
            nodes: parts.take(spawn(everywhere(client, trim_node), changes, stop())),
            volumes: parts.take(spawn(everywhere(client, trim), changes, stop())),
            runtime_classes: parts.take(spawn(everywhere(client, trim), changes, stop())),
        };
        (stores, checks, Keepers::new(keepers))
    }

    /// Waits until everything was listed once.
    pub async fn wait_until_ready(&self) {
        // A store wakes only the last of the tasks that wait for it, so each asks again by itself.
        while tokio::time::timeout(ASK_AGAIN, self.listed()).await.is_err() {}
    }

    async fn listed(&self) {
        let Self {
            deployments,
            models,
            pods,
            nodes,
            claims,
            volumes,
            jobs,
            services,
            config_maps,
            runtime_classes,
        } = self;
        // A watch ends only at shutdown, and then nobody waits any more.
        let _ended = tokio::join!(
            deployments.wait_until_ready(),
            models.wait_until_ready(),
            pods.wait_until_ready(),
            nodes.wait_until_ready(),
            claims.wait_until_ready(),
            volumes.wait_until_ready(),
            jobs.wait_until_ready(),
            services.wait_until_ready(),
            config_maps.wait_until_ready(),
            runtime_classes.wait_until_ready(),
        );
    }
}

/// What comes with the stores, gathered while they are made.
struct Parts<'a> {
    checks: &'a mut Vec<Check>,
    keepers: &'a mut BTreeMap<&'static str, mpsc::Sender<Request>>,
}

impl Parts<'_> {
    fn take<K: Resource<DynamicType = ()>>(&mut self, started: Started<K>) -> Store<K> {
        let Started { store, check, keeper } = started;
        self.checks.push(check);
        self.keepers.insert(kind_of::<K>(), keeper);
        store
    }
}

fn watch<K>(client: &Client, namespaces: &[String], labels: Option<&'static str>) -> Watch<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let apis = if namespaces.is_empty() {
        vec![Api::all(client.clone())]
    } else {
        namespaces.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
    };
    Watch { apis, labels, trim }
}

fn everywhere<K: Resource<DynamicType = ()>>(client: &Client, trim: fn(&mut K)) -> Watch<K> {
    Watch { apis: vec![Api::all(client.clone())], labels: None, trim }
}

/// Who wrote which field is of no use here, and is half of an object.
fn trim<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

fn trim_node(node: &mut Node) {
    trim(node);
    if let Some(status) = &mut node.status {
        status.images = None;
        status.volumes_attached = None;
        status.volumes_in_use = None;
    }
}

/// Of a stranger's pod: which node it is on, what it asks for, which claims it mounts, and whether it is over.
fn trim_pod(pod: &mut Pod) {
    trim(pod);
    if pod.labels().get(labels::APP_MANAGED_BY).is_some_and(|manager| manager == labels::MANAGER) {
        return;
    }
    let ObjectMeta { name, namespace, uid, resource_version, deletion_timestamp, .. } =
        std::mem::take(&mut pod.metadata);
    pod.metadata =
        ObjectMeta { name, namespace, uid, resource_version, deletion_timestamp, ..ObjectMeta::default() };
    if let Some(PodSpec {
        node_name,
        mut containers,
        mut init_containers,
        overhead,
        resources,
        mut volumes,
        ..
    }) = pod.spec.take()
    {
        volumes.iter_mut().for_each(|all| all.retain(|volume| volume.persistent_volume_claim.is_some()));
        for container in containers.iter_mut().chain(init_containers.iter_mut().flatten()) {
            *container = k8s_openapi::api::core::v1::Container {
                name: std::mem::take(&mut container.name),
                resources: container.resources.take(),
                restart_policy: container.restart_policy.take(),
                ..Default::default()
            };
        }
        pod.spec = Some(PodSpec {
            node_name,
            containers,
            init_containers,
            overhead,
            resources,
            volumes: volumes.filter(|all| !all.is_empty()),
            ..PodSpec::default()
        });
    }
    let phase = pod.status.take().and_then(|status| status.phase);
    pod.status = Some(PodStatus { phase, ..PodStatus::default() });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_label_is_the_contracts() {
        assert_eq!(OURS, format!("{}={}", labels::APP_MANAGED_BY, labels::MANAGER));
    }

    #[test]
    fn strangers_keep_what_they_spend_and_ours_keep_all() {
        let yaml = |label: &str| {
            format!(
                "metadata: {{name: p, namespace: a, labels: {{{label}}}, annotations: {{long: text}}}}\n\
                 spec: {{nodeName: n, serviceAccountName: s, volumes: [{{name: e, emptyDir: {{}}}}, {{name: w, \
                 persistentVolumeClaim: {{claimName: w}}}}], containers: [{{name: c, image: i, \
                 resources: {{requests: {{nvidia.com/gpu: '1'}}}}}}]}}\n\
                 status: {{phase: Running, podIP: 10.0.0.1}}"
            )
        };
        let trimmed = |label: &str| {
            let mut pod: Pod = serde_norway::from_str(&yaml(label)).unwrap();
            trim_pod(&mut pod);
            pod
        };
        let stranger = trimmed("x: y");
        let spec = stranger.spec.as_ref().unwrap();
        assert_eq!(spec.node_name.as_deref(), Some("n"));
        assert!(spec.containers[0].resources.is_some() && spec.containers[0].image.is_none());
        assert_eq!(spec.volumes.as_ref().map(Vec::len), Some(1), "claims are kept");
        assert!(stranger.annotations().is_empty() && stranger.status.unwrap().phase.is_some());

        let ours = trimmed("app.kubernetes.io/managed-by: llm-fleet");
        assert!(ours.spec.unwrap().containers[0].image.is_some() && ours.status.unwrap().pod_ip.is_some());
    }
}
