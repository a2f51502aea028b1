//! The operator has the rights that it needs, and no others, installed for the whole cluster and for some namespaces.
//!
//! It does everything once that it ever does, with the rights that the chart gives it; the API server judges each call
//! and logs it. A right that no call needed fails the test as one that was missing does: whoever adds a right adds to
//! this story what it is for.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use anyhow::{Context, ensure};
use contract::exit::{ExitReason, ExitReport};
use e2e::operator::kubelet::{Node, serve_log};
use e2e::operator::scene::{Scene, inspection};
use e2e::operator::stage::{KIND, change, of, pods, run};
use e2e::operator::{LEASE_NAMESPACE, Site};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::json;

const CHAT: (&str, &str) = (KIND, "chat");

/// From a source to a model that serves, changes and goes, with all that goes wrong on the way.
async fn a_whole_story(site: &Site, scene: &Scene<'_>) {
    let (certificate, key) = site.plane.server_certificate();
    let log = serve_log(&certificate, &key, inspection().unwrap().to_line().unwrap() + "\n").unwrap();
    let node = Node::join(&scene.client, &scene.namespace, 2, log).await.unwrap();
    let file = json!({ "url": "http://models.invalid/m.gguf", "sha256": "0f".repeat(32), "path": "m.gguf" });
    let spec = json!({
        "model": { "source": { "http": { "files": [file] } } },
        "placement": { "nodeSelector": { "kubernetes.io/hostname": scene.namespace } },
    });
    scene.apply(KIND, "chat", &spec).await.unwrap();
    a_volume_is_provisioned(scene).await;
    becomes_known(scene, &node).await;

    scene.condition(CHAT, "Placed", "Placed").await.unwrap();
    let first = pods(scene, "chat", 1).await.unwrap().remove(0);
    node.bind(&first).await.unwrap();
    // What is told a second time is added to what was told.
    for _ in 0..2 {
        let waiting = json!({ "waiting": { "reason": "ErrImagePull", "message": "no such host" } });
        node.report(&first, "Pending", false, &waiting).await.unwrap();
        scene.condition(CHAT, "Ready", "ImagePullFailed").await.unwrap();
        node.runs(&first, true).await.unwrap();
        scene.condition(CHAT, "Ready", "Ready").await.unwrap();
    }
    a_stray_pod_goes(scene, &first).await;

    change(scene, &json!({ "restart": "once" })).await;
    let both = pods(scene, "chat", 2).await.unwrap();
    let next = both.iter().find(|pod| pod.uid() != first.uid()).unwrap();
    run(&node, next).await;
    node.lets_go(&first).await.unwrap();
    let old_map = scene.wait("the old configuration to go", async || {
        let maps = scene.all::<ConfigMap>().list(&of("chat")).await?.items;
        ensure!(maps.len() == 1, "{} are there", maps.len());
        Ok(())
    });
    old_map.await.unwrap();

    scene.ours(KIND).delete("chat", &DeleteParams::default()).await.unwrap();
    node.lets_go(next).await.unwrap();
    let gone = scene.wait("everything to go", async || {
        let claims = scene.all::<PersistentVolumeClaim>().list(&ListParams::default()).await?.items;
        let models = scene.ours("LlmModel").list(&ListParams::default()).await?.items;
        ensure!(claims.len() + models.len() == 0, "{} claims, {} models", claims.len(), models.len());
        Ok(())
    });
    gone.await.unwrap();
}

/// What a provisioner would make for the claim of the model.
async fn a_volume_is_provisioned(scene: &Scene<'_>) {
    let claims: Api<PersistentVolumeClaim> = scene.all();
    let claim = scene.wait("the claim", async || {
        claims.list(&ListParams::default()).await?.items.pop().context("there is none")
    });
    let claim = claim.await.unwrap();
    let spec = claim.spec.clone().unwrap();
    let volume = json!({
        "metadata": { "name": scene.namespace },
        "spec": {
            "accessModes": spec.access_modes, "capacity": spec.resources.unwrap().requests,
            "claimRef": { "namespace": scene.namespace, "name": claim.name_any() }, "hostPath": { "path": "/none" },
        },
    });
    let volumes: Api<PersistentVolume> = Api::all(scene.client.clone());
    volumes.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
}

/// The model is fetched in a second try.
async fn becomes_known(scene: &Scene<'_>, node: &Node) {
    let all: Api<Pod> = scene.all();
    let report = ExitReport { reason: ExitReason::DigestMismatch, message: "another file".to_owned() };
    for (attempt, phase, code, message) in
        [(1, "Failed", 1, report.to_line()), (2, "Succeeded", 0, String::new())]
    {
        let pod = scene.wait(format!("the pod of attempt {attempt}"), async || {
            let of_attempt = |pod: &Pod| pod.name_any().contains(&format!("-fetch-{attempt}-"));
            all.list(&ListParams::default())
                .await?
                .items
                .into_iter()
                .find(of_attempt)
                .context("there is none")
        });
        let pod = pod.await.unwrap();
        node.bind(&pod).await.unwrap();
        let ended = json!({ "terminated": { "exitCode": code, "reason": "Done", "message": message } });
        node.report(&pod, phase, false, &ended).await.unwrap();
    }
    scene.condition(CHAT, "ModelReady", "ModelReady").await.unwrap();
    let jobs: Api<Job> = scene.all();
    let discarded = scene.wait("the jobs to be discarded", async || {
        let left = jobs.list(&ListParams::default()).await?.items;
        ensure!(left.is_empty(), "{} are there", left.len());
        Ok(())
    });
    discarded.await.unwrap();
}

/// A pod of the deployment that no booking is for.
async fn a_stray_pod_goes(scene: &Scene<'_>, booked: &Pod) {
    let mut stray = Pod { spec: booked.spec.clone(), ..Pod::default() };
    stray.metadata.name = Some(format!("{}-stray", booked.name_any()));
    stray.metadata.labels = booked.metadata.labels.clone();
    stray.metadata.owner_references = booked.metadata.owner_references.clone();
    scene.all::<Pod>().create(&PostParams::default(), &stray).await.unwrap();
    pods(scene, "chat", 1).await.unwrap();
}

#[tokio::test]
async fn every_right_of_the_whole_cluster_is_needed() {
    let site = Site::start("llm-fleet.yaml").await.unwrap();
    let operator = site.operator("operator", &[]).await.unwrap();
    let scene = site.scene(&operator, "anywhere").await.unwrap();
    site.namespace(&scene.client, "anywhere").await.unwrap();
    a_whole_story(&site, &scene).await;
    assert_eq!(site.check_rights().unwrap(), []);
}

#[tokio::test]
async fn every_right_in_every_served_namespace_is_needed() {
    let site = Site::start("llm-fleet-full.yaml").await.unwrap();
    let operator = site.operator("operator", &["--watch-namespace=team-a,team-b"]).await.unwrap();
    let a = site.scene(&operator, "team-a").await.unwrap();
    let b = site.scene(&operator, "team-b").await.unwrap();
    tokio::join!(a_whole_story(&site, &a), a_whole_story(&site, &b));
    assert_eq!(site.check_rights().unwrap(), []);
    let calls = site.calls("operator").unwrap();
    // What is the whole cluster's is read and never changed.
    let served = |namespace: &str| ["team-a", "team-b", LEASE_NAMESPACE].contains(&namespace);
    let elsewhere: Vec<_> = calls.iter().filter(|call| call.writes() && !served(&call.namespace)).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}
