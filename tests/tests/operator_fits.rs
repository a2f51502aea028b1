//! An operator on clusters that are somebody's: with quotas, queues, priorities, users of their own and old drivers.
//!
//! The API server, its admission and the controllers are real. Nodes are played. All scenes run at once, each in a
//! namespace and on nodes of its own.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

mod operator_fits {
    pub(crate) mod refusals;
}

use std::time::Instant;

use anyhow::{Context, ensure};
use contract::labels;
use e2e::operator::scene::Scene;
use e2e::operator::stage::{KIND, change, pods, run, says, scene, spec, status};
use e2e::operator::{CUDA_IMAGE, Operator, Site};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use operator_fits::refusals;
use serde_json::{Value, json};

const CHAT: (&str, &str) = (KIND, "chat");
/// A priority class of the cluster.
const HIGH: &str = "high";
/// The label of pods that a queue admits, as Kueue has it, and the gate that it holds them back with.
const QUEUE: &str = "kueue.x-k8s.io/queue-name";
const GATE: &str = "kueue.x-k8s.io/admission";

/// The first user of a range, which is given to pods that name none, as OpenShift gives one to each namespace.
const USER: i64 = 1_000_730_000;
const GROUP: &str = "admissionregistration.k8s.io/v1";

/// What webhooks of such clusters do to pods, by the API server's own means: a queue holds back those that it admits,
/// and users are assigned from a range, outside of which none may be named.
fn webhooks() -> String {
    let pods = json!({ "resourceRules": [
        { "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] },
    ] });
    let mutates = |name: &str, condition: &str, change: &str| {
        let change =
            json!({ "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": change } });
        json!({
            "apiVersion": GROUP, "kind": "MutatingAdmissionPolicy", "metadata": { "name": name },
            "spec": {
                "failurePolicy": "Fail", "reinvocationPolicy": "Never", "matchConstraints": pods,
                "matchConditions": [{ "name": name, "expression": condition }], "mutations": [change],
            },
        })
    };
    let queued = format!("has(object.metadata.labels) && '{QUEUE}' in object.metadata.labels");
    let gate = format!(
        "Object{{spec: Object.spec{{schedulingGates: [Object.spec.schedulingGates{{name: '{GATE}'}}]}}}}"
    );
    let unnamed = "!has(object.spec.securityContext.runAsUser)";
    let user = format!(
        "Object{{spec: Object.spec{{securityContext: Object.spec.securityContext{{runAsUser: {USER}, fsGroup: {USER}}}}}}}"
    );
    let range = json!({
        "apiVersion": GROUP, "kind": "ValidatingAdmissionPolicy", "metadata": { "name": "range" },
        "spec": { "matchConstraints": pods, "validations": [{
            "expression": format!("object.spec.securityContext.runAsUser == {USER}"), "message": "not in the range",
        }] },
    });
    let bind = |kind: &str, name: &str, spec: Value| {
        let mut spec = spec;
        spec["policyName"] = name.into();
        json!({ "apiVersion": GROUP, "kind": format!("{kind}Binding"), "metadata": { "name": name }, "spec": spec })
    };
    let items = [
        mutates("queue", &queued, &gate),
        bind("MutatingAdmissionPolicy", "queue", json!({})),
        mutates("user", unnamed, &user),
        bind("MutatingAdmissionPolicy", "user", json!({})),
        range,
        bind("ValidatingAdmissionPolicy", "range", json!({ "validationActions": ["Deny"] })),
    ];
    json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()
}

/// What the API server would make of a pod with these labels, which names a user or does not.
async fn would_be(scene: &Scene<'_>, labels: &Value, user: Option<i64>) -> kube::Result<Pod> {
    let pod = json!({
        "metadata": { "name": "would-be", "labels": labels },
        "spec": {
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": user, "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": "c", "image": "i",
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    });
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    scene.all().create(&dry_run, &serde_json::from_value(pod).unwrap()).await
}

/// A node whose labels tell of a driver that is too old gets no pod, until they tell of another.
async fn an_old_driver(site: &Site, operator: &Operator) {
    let (scene, _node) = scene(site, operator, "old-driver", 1).await;
    let nodes: Api<Node> = Api::all(scene.client.clone());
    let driver = async |major: &str, minor: &str| {
        let labels = json!({
            "nvidia.com/cuda.driver-version.major": major, "nvidia.com/cuda.driver-version.minor": minor,
            "nvidia.com/gpu.compute.major": "8", "nvidia.com/gpu.compute.minor": "9",
        });
        let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
        nodes.patch("old-driver", &PatchParams::default(), &patch).await.unwrap();
    };
    driver("470", "57").await;
    scene.apply(KIND, "chat", &spec("old-driver", 1)).await.unwrap();
    let (holds, words) = scene.condition(CHAT, "Placed", "DoesNotFit").await.unwrap();
    println!("old-driver: {words}");
    let expected = "old-driver: has driver 470.57, the runtime needs 580.65 or newer";
    assert!(holds == "False" && words.contains(expected), "{words}");
    scene.settles().await.unwrap();
    assert!(pods(&scene, "chat", 0).await.unwrap().is_empty());

    let since = Instant::now();
    driver("580", "95").await;
    let pod = pods(&scene, "chat", 1).await.unwrap().remove(0);
    println!("old-driver: a pod {:?} after the driver was new enough", since.elapsed());
    assert_eq!(pod.spec.unwrap().containers[0].image.as_deref(), Some(CUDA_IMAGE));
}

/// What pods carry beside the model reaches new pods, and restarts none that runs.
async fn what_is_passed_on(site: &Site, operator: &Operator) {
    let (scene, node) = scene(site, operator, "passed", 2).await;
    scene.apply(KIND, "chat", &spec("passed", 1)).await.unwrap();
    let first = pods(&scene, "chat", 1).await.unwrap().remove(0);
    run(&node, &first).await;
    scene.condition(CHAT, "Ready", "Ready").await.unwrap();
    let revision = status(&scene, "chat").await["revision"]["current"].clone();

    let toleration =
        json!({ "key": "dedicated", "operator": "Equal", "value": "models", "effect": "NoSchedule" });
    let more = json!({
        "placement": { "tolerations": [toleration], "priorityClassName": HIGH },
        "serving": {
            "podLabels": { "team": "search", "app.kubernetes.io/part-of": "search" },
            "podAnnotations": { "note": "kept" }, "imagePullSecrets": [{ "name": "registry" }],
            "resources": { "requests": { "cpu": "1500m", "memory": "3Gi" }, "limits": { "cpu": "4" } },
        },
    });
    change(&scene, &more).await;
    says(&scene, "chat", "/observedGeneration", &json!(2)).await;
    scene.settles().await.unwrap();
    let still = pods(&scene, "chat", 1).await.unwrap().remove(0);
    assert_eq!(
        (still.uid(), &still.spec),
        (first.uid(), &scene.all::<Pod>().get(&first.name_any()).await.unwrap().spec)
    );
    assert!(!still.labels().contains_key("team"));
    scene.condition(CHAT, "Ready", "Ready").await.unwrap();

    change(&scene, &json!({ "replicas": 2 })).await;
    let both = pods(&scene, "chat", 2).await.unwrap();
    assert_eq!(both[0].uid(), first.uid());
    let second = serde_json::to_value(&both[1]).unwrap();
    let at = |path: &str| second.pointer(path).cloned().unwrap_or_default();
    assert_eq!(at("/metadata/labels/team"), "search");
    assert_eq!(at("/metadata/labels/app.kubernetes.io~1part-of"), "search");
    assert_eq!(at("/metadata/annotations/note"), "kept");
    assert_eq!((at("/spec/priorityClassName"), at("/spec/priority")), (json!(HIGH), json!(1000)));
    assert_eq!(at("/spec/imagePullSecrets"), json!([{ "name": "registry" }]));
    assert!(at("/spec/tolerations").as_array().unwrap().contains(&toleration), "{}", at("/spec/tolerations"));
    let resources = at("/spec/containers/0/resources");
    assert_eq!((&resources["requests"]["cpu"], &resources["limits"]["cpu"]), (&json!("1500m"), &json!("4")));
    assert_eq!(status(&scene, "chat").await["revision"]["target"], revision, "nothing of that is a revision");
    run(&node, &both[1]).await;
    says(&scene, "chat", "/readyReplicas", &json!(2)).await;
}

/// A queue holds a pod back and lets it go; the operator waits, says so, and does not look for another node.
async fn a_queue(site: &Site, operator: &Operator) {
    let (scene, node) = scene(site, operator, "queued", 2).await;
    let mut queued = spec("queued", 1);
    queued["serving"] = json!({ "podLabels": { QUEUE: "models" } });
    scene.apply(KIND, "chat", &queued).await.unwrap();
    let (holds, words) = scene.condition(CHAT, "Ready", "SchedulingGated").await.unwrap();
    println!("queued: {words}");
    assert!(holds == "False" && words.contains("scheduling gates"), "{words}");
    let held = pods(&scene, "chat", 1).await.unwrap().remove(0);
    assert_eq!(held.spec.as_ref().unwrap().scheduling_gates.as_ref().unwrap()[0].name, GATE);
    scene.settles().await.unwrap();
    let opened: Patch<Value> = Patch::Merge(json!({ "spec": { "schedulingGates": null } }));
    scene.all::<Pod>().patch(&held.name_any(), &PatchParams::default(), &opened).await.unwrap();
    run(&node, &held).await;
    scene.condition(CHAT, "Ready", "Ready").await.unwrap();
    let served = pods(&scene, "chat", 1).await.unwrap().remove(0);
    assert_eq!((served.uid(), served.labels()[labels::SERVING].as_str()), (held.uid(), "true"));
}

/// Waits until what [`webhooks`] says is in force.
async fn webhooks_work(scene: &Scene<'_>) {
    let work = scene.wait("the webhooks", async || {
        let spec =
            would_be(scene, &json!({ QUEUE: "models" }), None).await?.spec.context("a pod has a spec")?;
        ensure!(spec.scheduling_gates.is_some(), "none is held back");
        ensure!(spec.security_context.is_some_and(|c| c.run_as_user == Some(USER)), "no user is assigned");
        let error = would_be(scene, &json!({}), Some(65532)).await.err().context("any user may be named")?;
        ensure!(error.to_string().contains("not in the range"), "{error}");
        Ok(())
    });
    work.await.unwrap();
}

/// Pods and jobs run as the users that the cluster assigns.
async fn users_are_assigned(scene: &Scene<'_>) {
    for namespace in ["passed", "queued", "named-limits"] {
        let pods: Api<Pod> = Api::namespaced(scene.client.clone(), namespace);
        let pods = pods.list(&ListParams::default()).await.unwrap().items;
        assert!(!pods.is_empty());
        for pod in pods {
            let context = pod.spec.unwrap().security_context.unwrap();
            assert_eq!((context.run_as_user, context.fs_group), (Some(USER), Some(USER)), "{namespace}");
            assert_eq!((context.run_as_group, context.run_as_non_root), (None, Some(true)), "{namespace}");
        }
    }
}

#[tokio::test]
async fn the_clusters_of_others_are_fitted_in() {
    let site = Site::start("llm-fleet.yaml").await.unwrap();
    let client = site.plane.client().await.unwrap();
    let high: PriorityClass =
        serde_json::from_value(json!({ "metadata": { "name": HIGH }, "value": 1000 })).unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &high).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("webhooks.json");
    std::fs::write(&file, webhooks()).unwrap();
    site.plane.run_kubectl(&["apply", "-f", file.to_str().unwrap()]).unwrap();
    let operator = site.operator("operator", &["--pod-identity=assigned"]).await.unwrap();
    println!("{}", operator.first_line().unwrap());
    let anywhere = site.scene(&operator, "default").await.unwrap();
    webhooks_work(&anywhere).await;
    tokio::join!(
        an_old_driver(&site, &operator),
        what_is_passed_on(&site, &operator),
        a_queue(&site, &operator),
        refusals::of_pods(&site, &operator),
        refusals::of_models(&site, &operator),
    );
    users_are_assigned(&anywhere).await;
    let failed = operator.metric("llmfleet_reconcile_errors_total").await.unwrap();
    println!("{failed} passes failed");
    site.check_rights().unwrap();
}
