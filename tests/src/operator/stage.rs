//! What every scene of a deployment needs: a model, its volume, a node, and a look at the status.
//!
//! In: a [`Scene`]. Out: objects in it, and what is said of them. It must not know what a scene is about.
//!
//! # Panics
//! Where the API server does not do what a test asks of it.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use anyhow::{Result, ensure};
use contract::labels;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::kubelet::Node;
use super::scene::{Scene, inspection};
use super::{Operator, Site};

/// The kind of a deployment.
pub const KIND: &str = "LlmDeployment";

/// A scene with a model that is ready, and a node with so many cards.
pub async fn scene<'a>(site: &'a Site, operator: &'a Operator, name: &str, cards: u32) -> (Scene<'a>, Node) {
    let scene = site.scene(operator, name).await.unwrap();
    site.namespace(&scene.client, name).await.unwrap();
    let node = Node::join(&scene.client, name, cards, 1).await.unwrap();
    // Nobody but the test says what is known of it.
    let model = json!({
        "apiVersion": "llmfleet.dev/v1alpha1", "kind": "LlmModel",
        "metadata": { "name": "tiny", "annotations": { labels::PAUSED: "" } },
        "spec": { "source": { "persistentVolumeClaim": { "claimName": "weights", "path": "tiny.gguf" } } },
    });
    volume(&scene).await;
    let models = scene.ours("LlmModel");
    models.create(&PostParams::default(), &serde_json::from_value(model).unwrap()).await.unwrap();
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "WeightsVerified", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let status = json!({ "status": {
        "claimName": "weights", "path": "tiny.gguf", "inspection": inspection().unwrap(), "conditions": [ready],
    } });
    models.patch_status("tiny", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    (scene, node)
}

/// The claim of the model, bound to a volume that every node can read.
pub async fn volume(scene: &Scene<'_>) {
    let size = json!({ "storage": "1Gi" });
    let volume = json!({
        "metadata": { "name": scene.namespace },
        "spec": {
            "accessModes": ["ReadOnlyMany"], "capacity": size, "storageClassName": "none",
            "claimRef": { "namespace": scene.namespace, "name": "weights" }, "hostPath": { "path": "/none" },
        },
    });
    let claim = json!({
        "metadata": { "name": "weights" },
        "spec": {
            "accessModes": ["ReadOnlyMany"], "resources": { "requests": size }, "storageClassName": "none",
            "volumeName": scene.namespace,
        },
    });
    let volumes: Api<PersistentVolume> = Api::all(scene.client.clone());
    let claims: Api<PersistentVolumeClaim> = scene.all();
    volumes.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
    claims.create(&PostParams::default(), &serde_json::from_value(claim).unwrap()).await.unwrap();
}

/// What a user asks for: the model on nodes of this name.
#[must_use]
pub fn spec(node: &str, replicas: u32) -> Value {
    json!({
        "model": { "modelRef": { "name": "tiny" } }, "replicas": replicas,
        "placement": { "nodeSelector": { "kubernetes.io/hostname": node } },
    })
}

/// Selects what carries the label of a deployment.
#[must_use]
pub fn of(name: &str) -> ListParams {
    ListParams::default().labels(&format!("{}={name}", labels::DEPLOYMENT))
}

/// Waits until the deployment has so many pods; in the order of their replicas.
pub async fn pods(scene: &Scene<'_>, name: &str, count: usize) -> Result<Vec<Pod>> {
    let all: Api<Pod> = scene.all();
    scene
        .wait(&format!("{count} pods of {name}"), async || {
            let mut pods = all.list(&of(name)).await?.items;
            let names: Vec<_> = pods.iter().map(ResourceExt::name_any).collect();
            ensure!(pods.len() == count, "{names:?}");
            pods.sort_by_key(|pod| pod.labels().get(labels::REPLICA).cloned());
            Ok(pods)
        })
        .await
}

/// Runs a pod until it is ready.
pub async fn run(node: &Node, pod: &Pod) {
    node.bind(pod).await.unwrap();
    node.runs(pod, true).await.unwrap();
}

/// The status of a deployment.
pub async fn status(scene: &Scene<'_>, name: &str) -> Value {
    scene.ours(KIND).get(name).await.unwrap().data["status"].clone()
}

/// Waits until the status says this at this path.
pub async fn says(scene: &Scene<'_>, name: &str, path: &str, value: &Value) {
    let all = scene.ours(KIND);
    let said = scene.wait(format!("{name}: {path}: {value}"), async || {
        let status = all.get(name).await?.data["status"].clone();
        ensure!(status.pointer(path).unwrap_or(&Value::Null) == value, "{status}");
        Ok(())
    });
    said.await.unwrap();
}

/// Changes the spec of `chat`.
pub async fn change(scene: &Scene<'_>, spec: &Value) {
    let patch = Patch::Merge(json!({ "spec": spec }));
    scene.ours(KIND).patch("chat", &PatchParams::default(), &patch).await.unwrap();
}
