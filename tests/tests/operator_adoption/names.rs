//! Objects of a stranger under names that are needed: they stay what they are, and a condition says so.

use e2e::operator::scene::{Scene, only};
use e2e::operator::stage::{KIND, of, pods, spec};
use e2e::operator::{Operator, Site, is_owned};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};

use super::served::{CHAT, MODEL, Served, serving};

async fn make<K>(scene: &Scene<'_>, object: Value) -> K
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    let object: K = serde_json::from_value(object).unwrap();
    let all: Api<K> = scene.all();
    all.create(&PostParams::default(), &object).await.unwrap()
}

/// Names that a deployment and a model need.
pub(crate) async fn names_that_are_taken(site: &Site, operator: &Operator, log: u16) {
    let Served { scene, node, pod } = serving(site, operator, "taken", 1, log).await;
    let map = only(scene.all::<ConfigMap>().list(&of("chat")).await.unwrap().items).name_any();
    scene.ours(KIND).delete("chat", &DeleteParams::default()).await.unwrap();
    let gone = scene.wait("all of it to go", async || {
        let (services, maps): (Api<Service>, Api<ConfigMap>) = (scene.all(), scene.all());
        let left = services.get_opt("chat").await?.is_some() || maps.get_opt(&map).await?.is_some();
        anyhow::ensure!(!left, "something is left");
        Ok(())
    });
    let (gone, went) = tokio::join!(gone, node.lets_go(&pod));
    gone.and(went).unwrap();

    // Nothing of these says that they are ours, and none contradicts what we would write.
    let service: Service = make(
        &scene,
        json!({ "metadata": { "name": "chat" }, "spec": { "ports": [{ "port": 8000, "name": "http" }] } }),
    )
    .await;
    let settings: ConfigMap =
        make(&scene, json!({ "metadata": { "name": map }, "data": { "a": "b" } })).await;
    let llm = scene.apply(KIND, "chat", &spec("taken", 1)).await.unwrap();
    let (holds, words) = scene.condition(CHAT, "Stalled", "NameTaken").await.unwrap();
    println!("taken: {words}");
    assert!(holds == "True" && words.contains(&map) && words.contains("delete it"), "{words}");
    scene.settles().await.unwrap();
    let (services, maps): (Api<Service>, Api<ConfigMap>) = (scene.all(), scene.all());
    assert_eq!(maps.get(&map).await.unwrap(), settings);
    maps.delete(&map, &DeleteParams::default()).await.unwrap();
    let told = scene.wait("the service to be told of", async || {
        let (_, words) = scene.condition(CHAT, "Stalled", "NameTaken").await?;
        anyhow::ensure!(words.contains("Service chat"), "{words}");
        Ok(())
    });
    told.await.unwrap();
    assert_eq!(services.get("chat").await.unwrap(), service);
    assert!(pods(&scene, "chat", 0).await.unwrap().is_empty(), "nobody could reach it");
    services.delete("chat", &DeleteParams::default()).await.unwrap();
    pods(&scene, "chat", 1).await.unwrap();
    assert!(is_owned(&services.get("chat").await.unwrap(), &llm));

    let template =
        json!({ "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] } });
    let spec = json!({ "suspend": true, "template": template });
    let job: Job = make(&scene, json!({ "metadata": { "name": "late-fetch-1" }, "spec": spec })).await;
    let source = json!({ "source": { "persistentVolumeClaim": { "claimName": "weights" } } });
    scene.apply(MODEL, "late", &source).await.unwrap();
    let (_, words) = scene.condition((MODEL, "late"), "Stalled", "NameTaken").await.unwrap();
    assert!(words.contains("Job late-fetch-1"), "{words}");
    scene.settles().await.unwrap();
    let now: Job = scene.all().get("late-fetch-1").await.unwrap();
    assert_eq!((now.spec, now.metadata.owner_references), (job.spec, None));
    scene.all::<Job>().delete("late-fetch-1", &DeleteParams::background()).await.unwrap();
    scene.condition((MODEL, "late"), "Ready", "Starting").await.unwrap();
}
