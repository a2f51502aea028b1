//! An LlmDeployment on a real API server: what is made, in which order it changes, and that nothing is left.
//!
//! Nodes and their kubelets are played, so that each state lasts as long as it is looked at. All scenes run at once,
//! each in a namespace and on nodes of its own.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use contract::labels;
use e2e::operator::audit::Call;
use e2e::operator::kubelet::Node;
use e2e::operator::scene::{LIMIT, Scene, condition, only};
use e2e::operator::stage::{KIND, change, of, pods, run, says, scene, spec, status};
use e2e::operator::{Operator, Site, is_owned};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ResourceQuota, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const CHAT: (&str, &str) = (KIND, "chat");
/// How soon a person must be told why a pod does not start.
const SOON: Duration = Duration::from_secs(5);

/// What the first pass makes, before any pod runs.
async fn is_made(scene: &Scene<'_>, llm: &DynamicObject) -> Pod {
    let pod = pods(scene, "chat", 1).await.unwrap().remove(0);
    let spec = pod.spec.clone().unwrap();
    let affinity = serde_json::to_value(spec.affinity.unwrap()).unwrap();
    let required =
        "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0";
    let expected = json!({ "key": "metadata.name", "operator": "In", "values": [scene.namespace] });
    assert_eq!(affinity.pointer(required), Some(&expected), "{affinity}");
    assert_eq!(spec.runtime_class_name.as_deref(), Some("nvidia"));
    assert!(!pod.labels().contains_key(labels::SERVING), "a new pod gets no traffic");

    let service: Service = scene.all().get("chat").await.unwrap();
    let selector = service.spec.clone().unwrap().selector.unwrap();
    assert_eq!(selector[labels::DEPLOYMENT], "chat");
    assert_eq!(selector[labels::SERVING], "true");
    let map = only(scene.all::<ConfigMap>().list(&of("chat")).await.unwrap().items);
    assert_eq!(map.immutable, Some(true));
    assert!(is_owned(&pod, llm) && is_owned(&service, llm) && is_owned(&map, llm));

    let status = status(scene, "chat").await;
    let booking = only(status["placement"].as_array().unwrap().clone());
    assert_eq!(booking["node"], scene.namespace);
    assert_eq!(booking["devices"], 1);
    assert_eq!(booking["booking"], pod.labels()[labels::BOOKING]);
    assert_eq!(booking["revision"], map.labels()[labels::REVISION]);
    assert_eq!(status["memory"]["budget"], sum(&booking["memory"]));
    pod
}

fn sum(components: &Value) -> u64 {
    components.as_object().unwrap().values().map(|bytes| bytes.as_u64().unwrap()).sum()
}

/// Apply, serve, scale, change, suspend, delete.
async fn a_life(site: &Site, operator: &Operator) {
    let (scene, node) = scene(site, operator, "life", 3).await;
    let llm = scene.apply(KIND, "chat", &spec("life", 1)).await.unwrap();
    let first = is_made(&scene, &llm).await;
    scene.condition(CHAT, "Placed", "Placed").await.unwrap();
    node.bind(&first).await.unwrap();
    node.runs(&first, false).await.unwrap();
    assert_eq!(scene.condition(CHAT, "Available", "Loading").await.unwrap().0, "False");
    scene.settles().await.unwrap();
    node.runs(&first, true).await.unwrap();
    assert_eq!(scene.condition(CHAT, "Ready", "Ready").await.unwrap().0, "True");
    let serving = scene.all::<Pod>().get(&first.name_any()).await.unwrap();
    assert_eq!(serving.labels()[labels::SERVING], "true");
    let now = status(&scene, "chat").await;
    assert_eq!(now["endpoint"], "http://chat.life.svc:8000");
    assert_eq!((&now["readyReplicas"], &now["revision"]["current"]), (&json!(1), &now["revision"]["target"]));
    for type_ in ["Accepted", "ModelReady", "Placed", "Available", "Ready"] {
        assert_eq!(condition(&scene.ours(KIND).get("chat").await.unwrap(), type_).unwrap()["status"], "True");
    }
    scene.settles().await.unwrap();

    stray_pod_goes(&scene, &first).await;

    // One more and one less: the first pod stays what it was.
    let scale = Patch::Merge(json!({ "spec": { "replicas": 2 } }));
    scene.ours(KIND).patch_scale("chat", &PatchParams::default(), &scale).await.unwrap();
    let two = pods(&scene, "chat", 2).await.unwrap();
    assert_eq!(two[0].uid(), first.uid());
    run(&node, &two[1]).await;
    says(&scene, "chat", "/readyReplicas", &json!(2)).await;
    change(&scene, &json!({ "replicas": 1 })).await;
    says(&scene, "chat", "/replicas", &json!(1)).await;
    let bookings = status(&scene, "chat").await["placement"].as_array().unwrap().len();
    assert_eq!(bookings, 2, "what a pod holds stays booked until it is gone");
    node.lets_go(&two[1]).await.unwrap();
    let one = pods(&scene, "chat", 1).await.unwrap();
    assert_eq!(one[0].uid(), first.uid());
    says(&scene, "chat", "/placement/1", &Value::Null).await;
    scene.condition(CHAT, "Ready", "Ready").await.unwrap();

    changes_revision(&scene, &node, &first).await;
    goes(&scene, &node).await;
}

/// A pod of the deployment that no booking is for would hold a card that nobody counts.
async fn stray_pod_goes(scene: &Scene<'_>, booked: &Pod) {
    let mut stray = Pod { spec: booked.spec.clone(), ..Pod::default() };
    let name = format!("{}-stray", booked.name_any());
    stray.metadata.name = Some(name.clone());
    stray.metadata.labels = booked.metadata.labels.clone();
    stray.metadata.owner_references = booked.metadata.owner_references.clone();
    scene.all::<Pod>().create(&PostParams::default(), &stray).await.unwrap();
    let pods: Api<Pod> = scene.all();
    let gone = scene.wait("the stray pod to go", async || match pods.get_opt(&name).await? {
        None => Ok(()),
        Some(_) => anyhow::bail!("it is there"),
    });
    gone.await.unwrap();
    assert!(pods.get(&booked.name_any()).await.unwrap().metadata.deletion_timestamp.is_none());
}

/// A new revision takes over when it is ready, and the old one leaves nothing.
async fn changes_revision(scene: &Scene<'_>, node: &Node, old: &Pod) {
    change(scene, &json!({ "restart": "once", "model": { "servedName": "chat/new" } })).await;
    let both = pods(scene, "chat", 2).await.unwrap();
    let new = both.iter().find(|pod| pod.uid() != old.uid()).unwrap();
    assert_ne!(new.labels()[labels::REVISION], old.labels()[labels::REVISION]);
    run(node, new).await;
    node.lets_go(old).await.unwrap();
    assert_eq!(pods(scene, "chat", 1).await.unwrap()[0].uid(), new.uid());
    says(scene, "chat", "/revision/current", &json!(new.labels()[labels::REVISION])).await;
    let maps: Api<ConfigMap> = scene.all();
    let left = scene.wait("the old configuration to go", async || {
        let mut maps = maps.list(&of("chat")).await?.items;
        ensure!(maps.len() == 1, "{} are there", maps.len());
        Ok(maps.remove(0))
    });
    assert_eq!(left.await.unwrap().labels()[labels::REVISION], new.labels()[labels::REVISION]);
    scene.settles().await.unwrap();
}

/// Suspended, it runs nothing and keeps its address; deleted, nothing is left of it.
async fn goes(scene: &Scene<'_>, node: &Node) {
    change(scene, &json!({ "suspend": true })).await;
    let pod = pods(scene, "chat", 1).await.unwrap().remove(0);
    node.lets_go(&pod).await.unwrap();
    assert_eq!(scene.condition(CHAT, "Ready", "Suspended").await.unwrap().0, "False");
    says(scene, "chat", "/placement", &Value::Null).await;
    assert!(pods(scene, "chat", 0).await.unwrap().is_empty());
    assert!(scene.all::<Service>().get_opt("chat").await.unwrap().is_some());
    scene.settles().await.unwrap();

    scene.ours(KIND).delete("chat", &DeleteParams::default()).await.unwrap();
    let (services, maps) = (scene.all::<Service>(), scene.all::<ConfigMap>());
    let gone = scene.wait("everything to be gone", async || {
        let left = services.list(&of("chat")).await?.items.len() + maps.list(&of("chat")).await?.items.len();
        ensure!(left == 0 && scene.ours(KIND).get_opt("chat").await?.is_none(), "{left} objects are left");
        Ok(())
    });
    gone.await.unwrap();
}

/// Why a pod does not start stands in the status soon, in words, and goes with its cause.
async fn a_pod_that_does_not_start(site: &Site, operator: &Operator) {
    let (scene, node) = scene(site, operator, "unpulled", 1).await;
    scene.apply(KIND, "chat", &spec("unpulled", 1)).await.unwrap();
    let pod = pods(&scene, "chat", 1).await.unwrap().remove(0);
    node.bind(&pod).await.unwrap();
    let waiting = json!({ "waiting": { "reason": "ErrImagePull", "message": "no such host" } });
    let since = Instant::now();
    node.report(&pod, "Pending", false, &waiting).await.unwrap();
    let (holds, words) = scene.condition(CHAT, "Ready", "ImagePullFailed").await.unwrap();
    let took = since.elapsed();
    println!("unpulled: told after {took:?}: {words}");
    assert!(took < SOON, "{took:?}");
    assert!(
        holds == "False" && words.contains("no such host") && words.contains("registry.invalid"),
        "{words}"
    );
    assert_eq!(scene.condition(CHAT, "Stalled", "ImagePullFailed").await.unwrap().0, "True");
    scene.settles().await.unwrap();
    node.runs(&pod, true).await.unwrap();
    scene.condition(CHAT, "Ready", "Ready").await.unwrap();
    assert_eq!(scene.condition(CHAT, "Stalled", "NotStalled").await.unwrap().0, "False");
}

/// Two want one card: one gets it, the other is told, and gets it when it is free.
async fn one_card_for_two(site: &Site, operator: &Operator) {
    let (scene, _node) = scene(site, operator, "single", 1).await;
    let spec = spec("single", 1);
    let (a, b) = tokio::join!(scene.apply(KIND, "a", &spec), scene.apply(KIND, "b", &spec));
    a.and(b).unwrap();
    let all = scene.ours(KIND);
    let (winner, loser, words) = scene
        .wait("one to be placed and one to be refused", async || {
            let placed = |object: &DynamicObject| condition(object, "Placed").cloned().context("no Placed");
            let (a, b) = (placed(&all.get("a").await?)?, placed(&all.get("b").await?)?);
            let words = |refused: &Value| refused["message"].to_string();
            match (a["reason"].as_str(), b["reason"].as_str()) {
                (Some("Placed"), Some("DoesNotFit")) => Ok(("a", "b", words(&b))),
                (Some("DoesNotFit"), Some("Placed")) => Ok(("b", "a", words(&a))),
                other => anyhow::bail!("{other:?}"),
            }
        })
        .await
        .unwrap();
    println!("single: {loser} is told: {words}");
    assert!(words.contains("its only card is taken"), "{words}");
    scene.settles().await.unwrap();
    assert_eq!(pods(&scene, winner, 1).await.unwrap().len(), 1);
    assert_eq!(pods(&scene, loser, 0).await.unwrap().len(), 0);
    assert_eq!(status(&scene, loser).await["placement"], Value::Null);

    let since = Instant::now();
    all.delete(winner, &DeleteParams::default()).await.unwrap();
    scene.condition((KIND, loser), "Placed", "Placed").await.unwrap();
    pods(&scene, loser, 1).await.unwrap();
    println!("single: {loser} is placed {:?} after {winner} was deleted", since.elapsed());
}

/// What the API server refuses is told, tried again now and then, and done when it is allowed.
async fn a_quota_that_is_raised(site: &Site, operator: &Operator) {
    let (scene, _node) = scene(site, operator, "poor", 1).await;
    let quota = json!({ "metadata": { "name": "none" }, "spec": { "hard": { "pods": "0" } } });
    let quotas: Api<ResourceQuota> = scene.all();
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    let counted = scene.wait("the quota to be in force", async || {
        quotas.get("none").await?.status.and_then(|status| status.hard).map(drop).context("not yet")
    });
    counted.await.unwrap();
    scene.apply(KIND, "chat", &spec("poor", 1)).await.unwrap();
    let (holds, words) = scene.condition(CHAT, "Ready", "QuotaExceeded").await.unwrap();
    assert!(holds == "False" && words.contains("exceeded quota"), "{words}");
    scene.settles().await.unwrap();
    quotas.delete("none", &DeleteParams::default()).await.unwrap();
    let since = Instant::now();
    pods(&scene, "chat", 1).await.unwrap();
    println!("poor: a pod {:?} after the quota was lifted", since.elapsed());
}

/// A namespace that is being deleted is told of, left in peace, and goes.
async fn a_namespace_that_goes(site: &Site, operator: &Operator) {
    let (scene, node) = scene(site, operator, "doomed", 2).await;
    scene.apply(KIND, "chat", &spec("doomed", 1)).await.unwrap();
    let pod = pods(&scene, "chat", 1).await.unwrap().remove(0);
    run(&node, &pod).await;
    scene.condition(CHAT, "Ready", "Ready").await.unwrap();
    let namespaces: Api<Namespace> = Api::all(scene.client.clone());
    namespaces.delete("doomed", &DeleteParams::default()).await.unwrap();
    // Pods go first, and the deployment stays until the last of them has gone.
    change(&scene, &json!({ "replicas": 2 })).await;
    let (holds, words) = scene.condition(CHAT, "Stalled", "NamespaceTerminating").await.unwrap();
    println!("doomed: {words}");
    assert_eq!(holds, "True");
    node.is_asked_to_let_go(&pod).await.unwrap();
    scene.settles().await.unwrap();
    node.lets_go(&pod).await.unwrap();
    // The controller looks again after half of the pod's grace period, or when the namespace changes.
    let touch = Patch::Merge(json!({ "metadata": { "labels": { "touched": "" } } }));
    namespaces.patch("doomed", &PatchParams::default(), &touch).await.unwrap();
    let gone = scene.wait("the namespace to go", async || match namespaces.get_opt("doomed").await? {
        None => Ok(()),
        Some(namespace) => anyhow::bail!("{:?}", namespace.status),
    });
    gone.await.unwrap();
    println!("doomed: {} calls in all", scene.calls().unwrap().len());
}

/// An operator that follows another looks at everything and finds nothing to do.
async fn the_next_operator_writes_nothing(site: &Site, mut first: Operator) {
    let next = site.operator("operator-next", &[]).await.unwrap();
    first.signal(Signal::SIGTERM).unwrap();
    assert!(first.ended(LIMIT).await.unwrap().success(), "{}", first.last_lines());
    let [unpulled, single, poor] = ["unpulled", "single", "poor"].map(|name| site.scene(&next, name));
    let (unpulled, single, poor) = tokio::try_join!(unpulled, single, poor).unwrap();
    let looks = unpulled.wait("the next operator to look at everything", async || {
        let passes = next.metric("llmfleet_reconcile_seconds_count").await?;
        ensure!(passes >= 4.0, "{passes} passes");
        Ok(passes)
    });
    let passes = looks.await.unwrap();
    tokio::try_join!(unpulled.settles(), single.settles(), poor.settles()).unwrap();
    let writes: Vec<_> = site.calls(&next.identity).unwrap().into_iter().filter(Call::writes).collect();
    assert!(writes.is_empty(), "{writes:?}");
    println!("the next operator: {passes} passes, no write");
}

#[tokio::test]
async fn deployments_live_fail_compete_and_go() {
    let site = Site::start("llm-fleet.yaml").await.unwrap();
    let client = site.plane.client().await.unwrap();
    let class = json!({ "metadata": { "name": "nvidia" }, "handler": "runc" });
    let class: RuntimeClass = serde_json::from_value(class).unwrap();
    Api::all(client).create(&PostParams::default(), &class).await.unwrap();
    let operator = site.operator("operator", &[]).await.unwrap();
    println!("{}", operator.first_line().unwrap());
    tokio::join!(
        a_life(&site, &operator),
        a_pod_that_does_not_start(&site, &operator),
        one_card_for_two(&site, &operator),
        a_quota_that_is_raised(&site, &operator),
        a_namespace_that_goes(&site, &operator),
    );
    let failed = operator.metric("llmfleet_reconcile_errors_total").await.unwrap();
    println!("{failed} passes failed");
    the_next_operator_writes_nothing(&site, operator).await;
    site.check_rights().unwrap();
}
