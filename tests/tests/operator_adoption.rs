//! What runs is kept: when a status is lost, when an object is made again under another uid, when a newer operator made
//! it. What is somebody else's is left alone, and so is what is paused.
//!
//! Nodes and their kubelets are played; the API server, its admission and its garbage collector are real.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

mod operator_adoption {
    pub(crate) mod names;
    pub(crate) mod pauses;
    pub(crate) mod served;
}

use std::fmt::Debug;

use anyhow::{Context, ensure};
use contract::config::CONFIG_FILE;
use contract::labels;
use e2e::operator::kubelet::serve_log;
use e2e::operator::scene::{LIMIT, Scene, condition, inspection, only};
use e2e::operator::stage::{KIND, change, of, pods, says, spec, status};
use e2e::operator::{Operator, Site, is_owned};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use nix::sys::signal::Signal;
use operator_adoption::served::{CHAT, MODEL, Served, inspects, loses_status, serving};
use operator_adoption::{names, pauses};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Both statuses are lost while a pod serves: it goes on, and everything is known again.
async fn a_status_that_is_lost(site: &Site, operator: &Operator, log: u16) {
    let Served { scene, node, pod } = serving(site, operator, "lost", 1, log).await;
    let (before, model) = (status(&scene, "chat").await, scene.ours(MODEL).get("tiny").await.unwrap());
    let service: Service = scene.all().get("chat").await.unwrap();

    // Somebody else wants the card while no status says who has it.
    pauses::set(&scene, (KIND, "chat"), true).await;
    loses_status(&scene, KIND, "chat").await;
    scene.apply(KIND, "other", &spec("lost", 1)).await.unwrap();
    let (_, words) = scene.condition((KIND, "other"), "Placed", "DoesNotFit").await.unwrap();
    assert!(words.contains("its only card is taken"), "{words}");
    scene.ours(KIND).delete("other", &DeleteParams::default()).await.unwrap();
    pauses::set(&scene, (KIND, "chat"), false).await;
    says(&scene, "chat", "/placement", &before["placement"]).await;
    scene.condition(CHAT, "Ready", "Ready").await.unwrap();

    // With the booking that a pod carries, and, as with pods of the first operator, without.
    for carried in [true, false] {
        if !carried {
            let bare = Patch::Merge(json!({ "metadata": { "annotations": { labels::BOOKED: null } } }));
            scene.all::<Pod>().patch(&pod.name_any(), &PatchParams::default(), &bare).await.unwrap();
        }
        let pod: Pod = scene.all().get(&pod.name_any()).await.unwrap();
        loses_status(&scene, MODEL, "tiny").await;
        loses_status(&scene, KIND, "chat").await;
        let (_, words) = scene.condition(CHAT, "ModelReady", "Starting").await.unwrap();
        println!("lost: meanwhile: {words}");
        let known = if carried { &before["placement"] } else { &Value::Null };
        says(&scene, "chat", "/placement", known).await;
        assert_eq!(scene.condition(CHAT, "Available", "Serving").await.unwrap().0, "True");
        scene.settles().await.unwrap();
        inspects(&scene, &node).await;
        scene.condition(CHAT, "Ready", "Ready").await.unwrap();
        let after = status(&scene, "chat").await;
        assert_eq!((&after["placement"], &after["revision"]), (&before["placement"], &before["revision"]));
        let again = scene.ours(MODEL).get("tiny").await.unwrap();
        assert_eq!(again.data["status"]["inspection"], model.data["status"]["inspection"]);
        scene.settles().await.unwrap();
        let now = only(pods(&scene, "chat", 1).await.unwrap());
        assert_eq!(now, pod, "carried {carried}: nobody wrote the pod");
    }
    assert_eq!(scene.all::<Service>().get("chat").await.unwrap(), service, "traffic goes on");
    let deleted = scene.writes().unwrap();
    let deleted: Vec<_> = deleted.iter().filter(|c| c.verb == "delete" && c.resource != "jobs").collect();
    assert!(deleted.is_empty(), "{deleted:?}");
}

/// A pod with the deployment's labels whose controller is somebody else, who is there.
async fn anothers_pod(scene: &Scene<'_>, like: &Pod) -> Pod {
    let maps: Api<ConfigMap> = scene.all();
    let mut map = ConfigMap::default();
    map.metadata.name = Some("another".to_owned());
    let another = maps.create(&PostParams::default(), &map).await.unwrap();
    let mut pod = Pod { spec: like.spec.clone(), ..Pod::default() };
    pod.metadata.name = Some("of-another".to_owned());
    pod.metadata.labels.clone_from(&like.metadata.labels);
    let owner = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "another",
        "uid": another.uid(), "controller": true }]);
    pod.metadata.owner_references = Some(serde_json::from_value(owner).unwrap());
    scene.all().create(&PostParams::default(), &pod).await.unwrap()
}

/// A service that somebody made from the deployment's, labels and all.
async fn anothers_service(scene: &Scene<'_>) -> Service {
    let mut service: Service = scene.all().get("chat").await.unwrap();
    service.metadata.name = Some("copied".to_owned());
    service.metadata.resource_version = None;
    service.metadata.owner_references = None;
    let spec = service.spec.as_mut().unwrap();
    (spec.cluster_ip, spec.cluster_ips) = (None, None);
    scene.all().create(&PostParams::default(), &service).await.unwrap()
}

/// Deletes the deployment, and nothing of what it made.
async fn goes_without_its_pods(scene: &Scene<'_>) {
    scene.ours(KIND).delete("chat", &DeleteParams::orphan()).await.unwrap();
    let gone = scene.wait("the deployment to go", async || {
        ensure!(scene.ours(KIND).get_opt("chat").await?.is_none(), "it is there");
        Ok(())
    });
    gone.await.unwrap();
}

/// Says of an object that a deployment owns it which is gone, as a backup does.
async fn of_the_former<K>(scene: &Scene<'_>, name: &str)
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let owner = json!([{ "apiVersion": "llmfleet.dev/v1alpha1", "kind": KIND, "name": "chat",
        "uid": "00000000-0000-4000-8000-000000000000", "controller": true }]);
    let patch = Patch::Merge(json!({ "metadata": { "ownerReferences": owner } }));
    let all: Api<K> = scene.all();
    all.patch(name, &PatchParams::default(), &patch).await.unwrap();
}

/// Restored with the owner references of another life, which Kubernetes would clear away at once: what is adopted
/// before that stays.
async fn objects_of_a_former_owner(site: &Site, operator: &Operator, log: u16) {
    let Served { scene, pod, .. } = serving(site, operator, "former", 1, log).await;
    goes_without_its_pods(&scene).await;
    site.plane.freeze_controllers().unwrap();
    of_the_former::<Pod>(&scene, &pod.name_any()).await;
    of_the_former::<Service>(&scene, "chat").await;
    let map = only(scene.all::<ConfigMap>().list(&of("chat")).await.unwrap().items).name_any();
    of_the_former::<ConfigMap>(&scene, &map).await;
    let llm = scene.apply(KIND, "chat", &spec("former", 1)).await.unwrap();
    scene.condition(CHAT, "Ready", "Ready").await.unwrap();
    site.plane.thaw_controllers().unwrap();
    scene.settles().await.unwrap();
    let (now, map): (Pod, ConfigMap) =
        (scene.all().get(&pod.name_any()).await.unwrap(), scene.all().get(&map).await.unwrap());
    let service: Service = scene.all().get("chat").await.unwrap();
    assert!(is_owned(&now, &llm) && is_owned(&map, &llm) && is_owned(&service, &llm));
    assert_eq!(now.owner_references().len(), 1, "{:?}", now.owner_references());
    assert_eq!((now.uid(), now.metadata.deletion_timestamp.is_none()), (pod.uid(), true));
}

/// Deleted without its pods and applied again, as when a backup is restored around what runs.
async fn an_object_that_is_made_again(site: &Site, operator: &Operator, log: u16) {
    let Served { scene, node, pod } = serving(site, operator, "again", 2, log).await;
    let before = status(&scene, "chat").await["placement"].clone();
    let foreign = anothers_pod(&scene, &pod).await;
    let copy = anothers_service(&scene).await;
    goes_without_its_pods(&scene).await;
    let left: Pod = scene.all().get(&pod.name_any()).await.unwrap();
    assert!(left.owner_references().is_empty(), "{:?}", left.owner_references());
    let llm = scene.apply(KIND, "chat", &spec("again", 1)).await.unwrap();
    scene.condition(CHAT, "Ready", "Ready").await.unwrap();
    assert_eq!(status(&scene, "chat").await["placement"], before, "the pod keeps its booking");
    scene.settles().await.unwrap();
    let kept: Pod = scene.all().get(&pod.name_any()).await.unwrap();
    assert!(kept.uid() == pod.uid() && is_owned(&kept, &llm));
    assert_eq!((&kept.spec, kept.labels()), (&left.spec, left.labels()));
    let map = only(scene.all::<ConfigMap>().list(&of("chat")).await.unwrap().items);
    let service: Service = scene.all().get("chat").await.unwrap();
    assert!(is_owned(&map, &llm) && is_owned(&service, &llm));
    assert_eq!(scene.all::<Pod>().get("of-another").await.unwrap(), foreign, "it is somebody else's");
    let copied: Service = scene.all().get("copied").await.unwrap();
    assert_eq!(copied, copy, "its labels were copied, its name is another");
    scene.all::<Pod>().delete("of-another", &DeleteParams::default().grace_period(0)).await.unwrap();

    // What follows is under bookings of the new object, which no pod ever had.
    node.report(&kept, "Failed", false, &json!({ "terminated": { "exitCode": 1 } })).await.unwrap();
    let next = scene.wait("another booking", async || {
        let placement = status(&scene, "chat").await["placement"][0].clone();
        ensure!(placement["attempt"] == 1, "{placement}");
        Ok(placement["booking"].clone())
    });
    assert_ne!(next.await.unwrap(), before[0]["booking"]);
}

/// The files that were fetched for an inline source outlive both objects, and are adopted by the next.
async fn a_model_that_is_made_again(site: &Site, operator: &Operator, log: u16) {
    let Served { scene, node, pod } = serving(site, operator, "files", 1, log).await;
    let models = scene.ours(MODEL);
    let name = status(&scene, "chat").await["model"].as_str().unwrap().to_owned();
    let spec = scene.ours(KIND).get("chat").await.unwrap().data["spec"].clone();
    let model = models.get(&name).await.unwrap();
    let claim: PersistentVolumeClaim = scene.all().get(&name).await.unwrap();
    scene.ours(KIND).delete("chat", &DeleteParams::orphan()).await.unwrap();
    scene.settles().await.unwrap();
    assert_eq!(
        models.get(&name).await.unwrap().uid(),
        model.uid(),
        "it is not retired under pods that read it"
    );

    models.delete(&name, &DeleteParams::orphan()).await.unwrap();
    let left = scene.wait("the claim to be left", async || {
        let claim: PersistentVolumeClaim = scene.all().get(&name).await?;
        ensure!(claim.owner_references().is_empty(), "{:?}", claim.owner_references());
        Ok(())
    });
    left.await.unwrap();
    let (_, words) = scene.condition((MODEL, &name), "Ready", "InUse").await.unwrap();
    println!("files: {words}");
    let release = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    models.patch(&name, &PatchParams::default(), &release).await.unwrap();

    let llm = scene.apply(KIND, "chat", &spec).await.unwrap();
    inspects(&scene, &node).await;
    scene.condition(CHAT, "Ready", "Ready").await.unwrap();
    scene.settles().await.unwrap();
    let (kept, kept_claim): (Pod, PersistentVolumeClaim) =
        (scene.all().get(&pod.name_any()).await.unwrap(), scene.all().get(&name).await.unwrap());
    assert!(kept.uid() == pod.uid() && is_owned(&kept, &llm));
    let again = models.get(&name).await.unwrap();
    assert!(again.uid() != model.uid() && is_owned(&kept_claim, &again));
    assert_eq!((kept_claim.uid(), &kept_claim.spec), (claim.uid(), &claim.spec));
}

/// What a newer operator has frozen is beyond this one: it changes nothing, and says so.
async fn what_a_newer_operator_made(site: &Site, operator: &Operator, log: u16) {
    let Served { scene, pod, .. } = serving(site, operator, "newer", 2, log).await;
    let maps: Api<ConfigMap> = scene.all();
    let map = only(maps.list(&of("chat")).await.unwrap().items);
    let replace = async |map: &ConfigMap| {
        pauses::set(&scene, (KIND, "chat"), true).await;
        // The operator sees the pause before it sees what follows.
        scene.settles().await.unwrap();
        maps.delete(&map.name_any(), &DeleteParams::default()).await.unwrap();
        let mut map = map.clone();
        map.metadata.resource_version = None;
        maps.create(&PostParams::default(), &map).await.unwrap();
        pauses::set(&scene, (KIND, "chat"), false).await;
    };
    let mut newer = map.clone();
    let data = newer.data.as_mut().unwrap();
    for (key, json) in data.iter_mut() {
        let to = if key == CONFIG_FILE { "\"version\": 1" } else { "\"version\": 2, \"meaning\": \"other\"" };
        *json = json.replace("\"version\": 1", to);
    }
    replace(&newer).await;
    let (_, words) = scene.condition(CHAT, "Placed", "NewerOperator").await.unwrap();
    println!("newer: {words}");
    assert!(words.contains("version 2") && words.contains("upgraded"), "{words}");
    assert_eq!(scene.condition(CHAT, "Available", "Serving").await.unwrap().0, "True");
    // Not even what is asked for leads to anything: this operator cannot know what that means for the pod.
    change(&scene, &json!({ "restart": "now" })).await;
    scene.settles().await.unwrap();
    let now = only(pods(&scene, "chat", 1).await.unwrap());
    assert_eq!(now, scene.all::<Pod>().get(&pod.name_any()).await.unwrap());
    assert_eq!((now.uid(), now.metadata.deletion_timestamp.is_none()), (pod.uid(), true));
    let llm = scene.ours(KIND).get("chat").await.unwrap();
    assert_eq!(condition(&llm, "Stalled").unwrap()["reason"], "NewerOperator");
    replace(&map).await;
    pods(&scene, "chat", 2).await.context("the restart").unwrap();
}

#[tokio::test]
async fn what_runs_is_adopted_and_what_is_not_ours_is_left_alone() {
    let site = Site::start("llm-fleet.yaml").await.unwrap();
    let client = site.plane.client().await.unwrap();
    let class = json!({ "metadata": { "name": "nvidia" }, "handler": "runc" });
    let class: RuntimeClass = serde_json::from_value(class).unwrap();
    Api::all(client).create(&PostParams::default(), &class).await.unwrap();
    let (certificate, key) = site.plane.server_certificate();
    let log = serve_log(&certificate, &key, inspection().unwrap().to_line().unwrap() + "\n").unwrap();
    let mut operator = site.operator("operator", &[]).await.unwrap();
    tokio::join!(
        a_status_that_is_lost(&site, &operator, log),
        an_object_that_is_made_again(&site, &operator, log),
        a_model_that_is_made_again(&site, &operator, log),
        what_a_newer_operator_made(&site, &operator, log),
        names::names_that_are_taken(&site, &operator, log),
    );
    objects_of_a_former_owner(&site, &operator, log).await;
    let paused = pauses::begins(&site, &operator, log).await;
    let next = site.operator("operator-next", &[]).await.unwrap();
    operator.signal(Signal::SIGTERM).unwrap();
    assert!(operator.ended(LIMIT).await.unwrap().success(), "{}", operator.last_lines());
    pauses::goes_on(&site, &next, paused).await;
    site.check_rights().unwrap();
    let errors = next.metric("llmfleet_reconcile_errors_total").await.unwrap();
    println!("{errors} passes of the next operator failed");
}
