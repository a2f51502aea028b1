//! A deployment that serves: its model was inspected by a job, its pod is ready, and all has settled.

use anyhow::Context;
use contract::labels;
use e2e::operator::kubelet::Node;
use e2e::operator::scene::{Scene, only};
use e2e::operator::stage::{KIND, pods, run, spec, volume};
use e2e::operator::{Operator, Site};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};

pub(crate) const CHAT: (&str, &str) = (KIND, "chat");
pub(crate) const MODEL: &str = "LlmModel";

/// What serves.
pub(crate) struct Served<'a> {
    pub(crate) scene: Scene<'a>,
    pub(crate) node: Node,
    pub(crate) pod: Pod,
}

/// Brings `chat` to serve in a namespace and on a node of this name. In `files` it fetches its own model.
pub(crate) async fn serving<'a>(
    site: &'a Site,
    operator: &'a Operator,
    name: &str,
    cards: u32,
    log: u16,
) -> Served<'a> {
    let scene = site.scene(operator, name).await.unwrap();
    site.namespace(&scene.client, name).await.unwrap();
    let node = Node::join(&scene.client, name, cards, log).await.unwrap();
    let mut llm = spec(name, 1);
    if name == "files" {
        let file =
            json!({ "url": "http://models.invalid/m.gguf", "sha256": "0f".repeat(32), "path": "m.gguf" });
        llm["model"] = json!({ "source": { "http": { "files": [file] } } });
        llm["volume"] = json!({ "size": "1Gi" });
        shelf(&scene).await;
    } else {
        volume(&scene).await;
        let source =
            json!({ "source": { "persistentVolumeClaim": { "claimName": "weights", "path": "tiny.gguf" } } });
        scene.apply(MODEL, "tiny", &source).await.unwrap();
    }
    scene.apply(KIND, "chat", &llm).await.unwrap();
    inspects(&scene, &node).await;
    let pod = only(pods(&scene, "chat", 1).await.unwrap());
    run(&node, &pod).await;
    scene.condition(CHAT, "Ready", "Ready").await.unwrap();
    scene.settles().await.unwrap();
    let pod = scene.all::<Pod>().get(&pod.name_any()).await.unwrap();
    assert_eq!(pod.labels()[labels::SERVING], "true");
    Served { scene, node, pod }
}

/// A volume that any claim of its size may have.
async fn shelf(scene: &Scene<'_>) {
    let volume = json!({
        "metadata": { "name": scene.namespace },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" }, "hostPath": { "path": "/none" },
        },
    });
    let volumes: Api<PersistentVolume> = Api::all(scene.client.clone());
    volumes.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
}

/// Runs the pod of the model's next job to its end.
pub(crate) async fn inspects(scene: &Scene<'_>, node: &Node) {
    let pods: Api<Pod> = scene.all();
    let of_models = ListParams::default().labels(labels::MODEL);
    let pod = scene.wait("the pod of a job", async || {
        let pods = pods.list(&of_models).await?.items;
        let begun = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        pods.into_iter().find(|pod| !begun(pod)).context("there is none")
    });
    let pod = pod.await.unwrap();
    node.bind(&pod).await.unwrap();
    node.runs(&pod, true).await.unwrap();
    let state = json!({ "terminated": { "exitCode": 0, "reason": "Done", "message": "" } });
    node.report(&pod, "Succeeded", false, &state).await.unwrap();
}

/// Takes the whole status off an object, as a restore that leaves it out does.
pub(crate) async fn loses_status(scene: &Scene<'_>, kind: &str, name: &str) {
    let objects = scene.ours(kind);
    scene
        .wait("a status to be lost", async || {
            let mut object = objects.get(name).await?;
            object.data["status"] = Value::Null;
            object.managed_fields_mut().clear();
            objects.replace_status(name, &PostParams::default(), &object).await.map(drop).context("replace")
        })
        .await
        .unwrap();
}
