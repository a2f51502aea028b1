//! A real API server takes every manifest of `manifests/valid` and refuses every one of `manifests/invalid` with the
//! message that its first line names. Unknown fields are refused where a client asks for it, and else warned of.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::path::PathBuf;

use e2e::control_plane::ControlPlane;
use e2e::crds;
use e2e::paths::repository;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde::Deserialize;
use serde_json::{Value, json};

const NAMESPACE: &str = "default";

fn manifests(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = repository().join("tests/manifests").join(folder);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

fn documents(text: &str) -> Vec<Value> {
    serde_norway::Deserializer::from_str(text).map(|d| Value::deserialize(d).unwrap()).collect()
}

fn api(client: &Client, document: &Value) -> Api<DynamicObject> {
    let kind = document["kind"].as_str().unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("llmfleet.dev", "v1alpha1", kind));
    Api::namespaced_with(client.clone(), NAMESPACE, &resource)
}

fn name(document: &Value) -> &str {
    document["metadata"]["name"].as_str().unwrap()
}

/// Creates the first document of a file, applies the others over it, and gives what the last one got.
async fn send(client: &Client, text: &str) -> Result<DynamicObject, kube::Error> {
    let documents = documents(text);
    let (first, others) = documents.split_first().unwrap();
    let api = api(client, first);
    let object: DynamicObject = serde_json::from_value(first.clone()).unwrap();
    let mut result = api.create(&PostParams::default(), &object).await;
    let created = result.is_ok();
    for other in others {
        assert!(result.is_ok(), "only the last document is refused: {result:?}");
        let parameters = PatchParams::apply("e2e").validation_strict().force();
        result = api.patch(name(other), &parameters, &Patch::Apply(other)).await;
    }
    if created {
        api.delete(name(first), &DeleteParams::default()).await.unwrap();
    }
    result
}

#[tokio::test]
async fn every_manifest_gets_what_it_names() {
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client().await.unwrap();
    println!("{:#?}", plane.versions().await.unwrap());
    crds::install(&client).await.unwrap();

    let mut wrong = Vec::new();
    for (path, text) in manifests("valid") {
        if let Err(error) = send(&client, &text).await {
            wrong.push(format!("{} is refused: {error}", path.display()));
        }
    }
    for (path, text) in manifests("invalid") {
        let expected = text.lines().next().unwrap().strip_prefix("# expect: ").unwrap();
        match send(&client, &text).await {
            Ok(_) => wrong.push(format!("{} is accepted", path.display())),
            Err(kube::Error::Api(status)) if status.message.contains(expected) => {}
            Err(error) => wrong.push(format!("{}: {error}, not {expected}", path.display())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    defaults_are_filled_in(&client).await;
    printer_columns_and_scale_work(&plane, &client).await;
}

async fn defaults_are_filled_in(client: &Client) {
    let minimal = std::fs::read_to_string(repository().join("tests/manifests/valid/minimal-claim.yaml"));
    let stored = send(client, &minimal.unwrap()).await.unwrap();
    let spec = &stored.data["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(spec["capacity"], json!({ "concurrency": 4, "kvCacheType": "Auto" }));
    assert_eq!(spec["accelerator"], json!({ "class": "Nvidia" }));
    assert_eq!(spec["suspend"], false);
}

async fn printer_columns_and_scale_work(plane: &ControlPlane, client: &Client) {
    let manifest = repository().join("tests/manifests/valid/minimal-claim.yaml");
    plane.run_kubectl(&["apply", "-f", manifest.to_str().unwrap()]).unwrap();
    let status = json!({ "status": {
        "servedName": "chat", "readyReplicas": 1, "replicas": 1, "selector": "llmfleet.dev/deployment=chat",
        "memory": { "perReplica": "1.50 GiB", "budget": 1u64 << 40, "planned": {
            "weights": 1, "kvCache": 1, "activations": 1, "runtime": 1, "reserve": 1 } },
        "revision": { "current": "0123abcd" },
        "conditions": [{ "type": "Ready", "status": "True", "reason": "Serving", "message": "m",
                         "lastTransitionTime": "2026-01-01T00:00:00Z" }],
    }});
    let document = json!({ "kind": "LlmDeployment" });
    let deployments = api(client, &document);
    deployments.patch_status("chat", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    let table = plane.run_kubectl(&["get", "llm"]).unwrap();
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..7], ["chat", "chat", "True", "Serving", "1", "1.50", "GiB"], "{table}");
    assert_eq!(row[7], "0123abcd", "{table}");
    plane.run_kubectl(&["scale", "llm/chat", "--replicas=3"]).unwrap();
    assert_eq!(deployments.get("chat").await.unwrap().data["spec"]["replicas"], 3);
    let explained = plane.run_kubectl(&["explain", "llm.spec.capacity.concurrency"]).unwrap();
    assert!(explained.contains("Default: 4"), "{explained}");
    plane.run_kubectl(&["delete", "llm", "chat"]).unwrap();
}

#[tokio::test]
async fn unknown_fields_are_refused_or_warned_of() {
    let plane = ControlPlane::start().await.unwrap();
    println!("{:#?}", plane.versions().await.unwrap());
    let client = plane.client().await.unwrap();
    crds::install(&client).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("unknown.yaml");
    let text = std::fs::read_to_string(repository().join("tests/manifests/valid/minimal-claim.yaml"));
    let text = text.unwrap() + "  contextLenght: 4096\n";
    std::fs::write(&file, &text).unwrap();
    let file = file.to_str().unwrap();

    for arguments in
        [&["apply", "-f", file][..], &["create", "-f", file], &["apply", "--server-side", "-f", file]]
    {
        let error = format!("{:#}", plane.run_kubectl(arguments).unwrap_err());
        assert!(error.contains("contextLenght"), "kubectl {arguments:?}: {error}");
    }
    let document = documents(&text).pop().unwrap();
    let deployments = api(&client, &document);
    let strict = PatchParams::apply("e2e").validation_strict();
    let error = deployments.patch("chat", &strict, &Patch::Apply(&document)).await.unwrap_err().to_string();
    assert!(error.contains("contextLenght"), "{error}");

    // A client that asks for nothing gets a warning, and the field is dropped.
    let uri = format!("/apis/llmfleet.dev/v1alpha1/namespaces/{NAMESPACE}/llmdeployments");
    let body = serde_json::to_vec(&document).unwrap();
    let request =
        http::Request::post(uri).header("content-type", "application/json").body(body.into()).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.status(), http::StatusCode::CREATED);
    let warning = response.headers()["warning"].to_str().unwrap().to_owned();
    assert!(warning.contains(r#"unknown field \"spec.contextLenght\""#), "{warning}");
    let stored = deployments.get("chat").await.unwrap();
    assert_eq!(stored.data["spec"]["contextLenght"], Value::Null);
}
