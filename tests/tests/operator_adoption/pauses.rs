//! An object that is paused: nothing of it is written, whatever happens, until the pause ends.

use anyhow::ensure;
use contract::labels;
use e2e::operator::kubelet::Node;
use e2e::operator::scene::Scene;
use e2e::operator::stage::{KIND, change, pods, run, says};
use e2e::operator::{Operator, Site};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::served::{CHAT, MODEL, Served, inspects, loses_status, serving};

const NAME: &str = "paused";

/// Pauses an object, or ends its pause.
pub(crate) async fn set(scene: &Scene<'_>, (kind, name): (&str, &str), paused: bool) {
    let value = if paused { json!("") } else { Value::Null };
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { labels::PAUSED: value } } }));
    scene.ours(kind).patch(name, &PatchParams::default(), &patch).await.unwrap();
}

/// All that operators have written in the namespace.
fn writes(site: &Site) -> usize {
    let calls = site.calls("operator").unwrap();
    calls.iter().filter(|call| call.namespace == NAME && call.writes()).count()
}

/// What goes on under the next operator.
pub(crate) struct Paused {
    node: Node,
    writes: usize,
}

/// Both objects are paused, and then everything happens that would lead to something.
pub(crate) async fn begins(site: &Site, operator: &Operator, log: u16) -> Paused {
    let Served { scene, node, pod } = serving(site, operator, NAME, 3, log).await;
    for object in [CHAT, (MODEL, "tiny")] {
        set(&scene, object, true).await;
    }
    scene.settles().await.unwrap();
    let before = writes(site);
    change(&scene, &json!({ "replicas": 2, "restart": "now" })).await;
    scene.all::<Pod>().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
    node.lets_go(&pod).await.unwrap();
    scene.all::<Service>().delete("chat", &DeleteParams::default()).await.unwrap();
    loses_status(&scene, MODEL, "tiny").await;
    loses_status(&scene, KIND, "chat").await;
    scene.settles().await.unwrap();
    assert_eq!(writes(site), before, "{:?}", scene.writes().unwrap());
    Paused { node, writes: before }
}

/// The next operator leaves them alone too, until the pause ends.
pub(crate) async fn goes_on(site: &Site, next: &Operator, Paused { node, writes: before }: Paused) {
    let scene = site.scene(next, NAME).await.unwrap();
    let leads = scene.wait("the next operator to look at everything", async || {
        ensure!(next.metric("llmfleet_reconcile_seconds_count").await? >= 8.0, "it does not yet");
        Ok(())
    });
    leads.await.unwrap();
    scene.settles().await.unwrap();
    assert_eq!(writes(site), before, "{:?}", scene.writes().unwrap());

    set(&scene, (MODEL, "tiny"), false).await;
    inspects(&scene, &node).await;
    scene.condition((MODEL, "tiny"), "Ready", "WeightsVerified").await.unwrap();
    assert!(pods(&scene, "chat", 0).await.unwrap().is_empty(), "the deployment is paused still");
    set(&scene, CHAT, false).await;
    for pod in pods(&scene, "chat", 2).await.unwrap() {
        run(&node, &pod).await;
    }
    says(&scene, "chat", "/readyReplicas", &json!(2)).await;
    scene.condition(CHAT, "Ready", "Ready").await.unwrap();
    assert!(scene.all::<Service>().get_opt("chat").await.unwrap().is_some());
}
