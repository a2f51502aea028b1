//! Two control planes run side by side, know nothing of each other, and leave nothing behind.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::collections::BTreeMap;

use e2e::control_plane::ControlPlane;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

fn namespace(name: &str, enforce: &str) -> Namespace {
    serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { "pod-security.kubernetes.io/enforce": enforce } },
    }))
    .unwrap()
}

fn print_versions(versions: &BTreeMap<&str, String>) {
    for (component, version) in versions {
        println!("{component} {version}");
    }
}

#[tokio::test]
async fn two_control_planes_side_by_side() {
    let (first, second) =
        tokio::try_join!(ControlPlane::start(), ControlPlane::start_with_controllers()).unwrap();
    let (a, b) = (first.client().await.unwrap(), second.client().await.unwrap());
    let versions = first.versions().await.unwrap();
    print_versions(&versions);
    assert_eq!(versions["kube-apiserver"], "v1.36.3");

    let created: Namespace = Api::all(a.clone())
        .create(&PostParams::default(), &namespace("only-here", "restricted"))
        .await
        .unwrap();
    assert_eq!(created.metadata.name.as_deref(), Some("only-here"));
    assert!(Api::<Namespace>::all(b.clone()).get_opt("only-here").await.unwrap().is_none());

    // The second has controllers: a deleted namespace goes, with what is in it.
    let namespaces: Api<Namespace> = Api::all(b.clone());
    namespaces.create(&PostParams::default(), &namespace("short-lived", "restricted")).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(b.clone(), "short-lived");
    let map = serde_json::from_value(json!({ "metadata": { "name": "content" } })).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    namespaces.delete("short-lived", &DeleteParams::default()).await.unwrap();
    e2e::process::wait_for("the namespace to go", std::time::Duration::from_secs(60), async || {
        match namespaces.get_opt("short-lived").await? {
            None => Ok(()),
            Some(_) => anyhow::bail!("it is still there"),
        }
    })
    .await
    .unwrap();

    let folder = first.kubeconfig().parent().unwrap().to_owned();
    let audit = std::fs::read_to_string(first.audit_log()).unwrap();
    assert!(audit.contains("only-here"), "the audit log names what was made");
    drop(first);
    assert!(!folder.exists());
    assert!(a.apiserver_version().await.is_err(), "its API server has ended");
    assert!(b.apiserver_version().await.is_ok(), "the other one has not");
}

#[tokio::test]
async fn admission_and_rights_are_real() {
    let control_plane = ControlPlane::start().await.unwrap();
    print_versions(&control_plane.versions().await.unwrap());
    let client = control_plane.client().await.unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &namespace("safe", "restricted")).await.unwrap();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "privileged" },
        "spec": { "automountServiceAccountToken": false, "containers": [
            { "name": "main", "image": "none", "securityContext": { "privileged": true } },
        ] },
    }))
    .unwrap();
    let refused = Api::namespaced(client, "safe").create(&PostParams::default(), &pod).await.unwrap_err();
    assert!(refused.to_string().contains("restricted"), "{refused}");

    // kubectl works with the kubeconfig; a request with the token has all rights, one without has none.
    assert!(
        control_plane.run_kubectl(&["get", "namespaces", "-o", "name"]).unwrap().contains("namespace/safe")
    );
    let with = |token: &str| {
        let server = format!("--server={}", control_plane.url());
        let authority = format!("--certificate-authority={}", control_plane.authority().display());
        let mut command = control_plane.kubectl();
        command.env("KUBECONFIG", "/dev/null").args([server, authority, format!("--token={token}")]);
        e2e::process::output(command.args(["get", "secrets", "--all-namespaces"]))
    };
    assert!(with(control_plane.admin_token()).is_ok());
    assert!(with("wrong").is_err());
}

/// Applies this value to a map; its resourceVersion afterwards.
async fn write(maps: &Api<ConfigMap>, value: &str) -> kube::Result<String> {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "content" }, "data": { "a": value },
    });
    let written = maps.patch("content", &PatchParams::apply("test").force(), &Patch::Apply(&map)).await?;
    Ok(written.resource_version().unwrap())
}

#[tokio::test]
async fn a_control_plane_that_is_killed_frozen_full_or_forgets_goes_on() {
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client().await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let first = write(&maps, "1").await.unwrap();
    write(&maps, "2").await.unwrap();

    plane.kill_api_server().await.unwrap();
    assert!(maps.get("content").await.is_err(), "nobody answers");
    plane.compact().await.unwrap();
    plane.start_api_server().await.unwrap();
    let events: Vec<_> =
        maps.watch(&WatchParams::default().timeout(5), &first).await.unwrap().try_collect().await.unwrap();
    let [WatchEvent::Error(gone)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(gone.code, 410, "{gone:?}");

    plane.restart_etcd().await.unwrap();
    let data = maps.get("content").await.unwrap().data.unwrap();
    assert_eq!(data["a"], "2");

    plane.freeze_api_server().unwrap();
    let frozen = tokio::time::timeout(std::time::Duration::from_secs(1), maps.get("content")).await;
    assert!(frozen.is_err(), "{frozen:?}");
    plane.thaw_api_server().unwrap();
    maps.get("content").await.unwrap();

    plane.alarm_no_space(true).await.unwrap();
    let full = write(&maps, "3").await.unwrap_err();
    println!("a full etcd: {full}");
    assert!(full.to_string().contains("database space exceeded"), "{full}");
    plane.alarm_no_space(false).await.unwrap();
    write(&maps, "3").await.unwrap();
}
