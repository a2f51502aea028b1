//! What the API server refuses is told in its own words, asked for again now and then, and done when it is allowed.

use std::time::Instant;

use anyhow::{Context, ensure};
use e2e::operator::scene::{Scene, only};
use e2e::operator::{Operator, Site};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{LimitRange, PersistentVolumeClaim, Pod, ResourceQuota};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use e2e::operator::stage::{KIND, pods, scene, spec};

/// What stands in a namespace's way.
enum Limit {
    Quota(Value),
    Range(Value),
    Policy,
}

/// Namespace, what stands in the way, what it is called, and words of the API server.
type Refusal = (&'static str, Limit, &'static str, &'static [&'static str]);

/// The name of everything that stands in the way.
const LIMIT: &str = "limit";

impl Limit {
    /// Puts it in the way, and waits until it is in force.
    async fn impose(&self, scene: &Scene<'_>) {
        match self {
            Self::Quota(spec) => {
                let quotas: Api<ResourceQuota> = scene.all();
                let quota = json!({ "metadata": { "name": LIMIT }, "spec": spec });
                quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
                let counted = scene.wait("the quota to be in force", async || {
                    quotas.get(LIMIT).await?.status.and_then(|s| s.hard).map(drop).context("not yet")
                });
                counted.await.unwrap();
            }
            Self::Range(item) => {
                let range = json!({ "metadata": { "name": LIMIT }, "spec": { "limits": [item] } });
                let range: LimitRange = serde_json::from_value(range).unwrap();
                scene.all().create(&PostParams::default(), &range).await.unwrap();
            }
            Self::Policy => {
                self.policy(scene, "apply");
                let refused = scene.wait("the policy to be in force", async || {
                    let error = crate::would_be(scene, &json!({ "owner": "nobody" }), None)
                        .await
                        .err()
                        .context("a pod is taken")?;
                    ensure!(error.to_string().contains("pods need a team"), "{error}");
                    Ok(())
                });
                refused.await.unwrap();
            }
        }
    }

    async fn lift(&self, scene: &Scene<'_>) {
        let at_once = DeleteParams::default();
        match self {
            Self::Quota(_) => drop(scene.all::<ResourceQuota>().delete(LIMIT, &at_once).await.unwrap()),
            Self::Range(_) => drop(scene.all::<LimitRange>().delete(LIMIT, &at_once).await.unwrap()),
            Self::Policy => self.policy(scene, "delete"),
        }
    }

    /// A rule of the cluster's owners, as many have for all pods.
    fn policy(&self, scene: &Scene<'_>, verb: &str) {
        let selector = json!({ "matchLabels": { "kubernetes.io/metadata.name": scene.namespace } });
        let rule = json!({ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] });
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": { "name": LIMIT },
            "spec": {
                "matchConstraints": { "namespaceSelector": selector, "resourceRules": [rule] },
                "validations": [{ "expression": "has(object.metadata.labels.team)", "message": "pods need a team" }],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": { "name": LIMIT }, "spec": { "policyName": LIMIT, "validationActions": ["Deny"] },
        });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.json");
        let both = json!({ "apiVersion": "v1", "kind": "List", "items": [policy, binding] });
        std::fs::write(&file, both.to_string()).unwrap();
        scene.site.plane.run_kubectl(&[verb, "-f", file.to_str().unwrap()]).unwrap();
    }
}

/// Pods that are refused: why stands in the deployment.
pub(crate) async fn of_pods(site: &Site, operator: &Operator) {
    let high = json!({ "matchExpressions": [
        { "scopeName": "PriorityClass", "operator": "In", "values": [crate::HIGH] },
    ] });
    let refusals: [Refusal; 7] = [
        (
            "few-cards",
            Limit::Quota(json!({ "hard": { "requests.nvidia.com/gpu": "0" } })),
            "QuotaExceeded",
            &[
                "exceeded quota: limit, requested: requests.nvidia.com/gpu=1",
                "limited: requests.nvidia.com/gpu=0",
            ],
        ),
        (
            "little-memory",
            Limit::Quota(json!({ "hard": { "limits.memory": "1Gi" } })),
            "QuotaExceeded",
            &["exceeded quota: limit, requested: limits.memory="],
        ),
        (
            "named-cores",
            Limit::Quota(json!({ "hard": { "limits.cpu": "8" } })),
            "QuotaExceeded",
            &["failed quota: limit: must specify limits.cpu for: server"],
        ),
        (
            "no-priority",
            Limit::Quota(json!({ "hard": { "pods": "0" }, "scopeSelector": high })),
            "QuotaExceeded",
            &["exceeded quota: limit, requested: pods=1"],
        ),
        (
            "odd-pods",
            Limit::Range(json!({ "type": "Container", "max": { "memory": "1Gi" }, "min": { "cpu": "4" } })),
            "QuotaExceeded",
            &["maximum memory usage per Container is 1Gi", "minimum cpu usage per Container is 4"],
        ),
        (
            // The largest is the limit of who names none, and then less than the request.
            "small-pods",
            Limit::Range(json!({ "type": "Container", "max": { "cpu": "1" } })),
            "QuotaExceeded",
            &["must be less than or equal to cpu limit of 1"],
        ),
        ("owned-pods", Limit::Policy, "Invalid", &["pods need a team"]),
    ];
    futures::future::join_all(refusals.iter().map(|refusal| of_pod(site, operator, refusal))).await;
}

async fn of_pod(site: &Site, operator: &Operator, (name, limit, reason, words): &Refusal) {
    let (scene, _node) = scene(site, operator, name, 1).await;
    limit.impose(&scene).await;
    let mut asked = spec(name, 1);
    asked["placement"]["priorityClassName"] = json!(crate::HIGH);
    scene.apply(KIND, "chat", &asked).await.unwrap();
    for type_ in ["Ready", "Stalled"] {
        let (_, said) = scene.condition((KIND, "chat"), type_, reason).await.unwrap();
        assert!(words.iter().all(|words| said.contains(words)), "{name}: {type_}: {said}");
        println!("{name}: {type_}: {said}");
    }
    scene.settles().await.unwrap();
    limit.lift(&scene).await;
    let since = Instant::now();
    pods(&scene, "chat", 1).await.unwrap();
    println!("{name}: a pod {:?} after the limit was lifted", since.elapsed());
}

/// Claims, and pods of jobs, that are refused: why stands in the model and in the deployment that waits for it.
pub(crate) async fn of_models(site: &Site, operator: &Operator) {
    let refusals: [Refusal; 4] = [
        (
            "no-claims",
            Limit::Quota(json!({ "hard": { "persistentvolumeclaims": "0" } })),
            "QuotaExceeded",
            &["exceeded quota: limit, requested: persistentvolumeclaims=1"],
        ),
        (
            "small-claims",
            Limit::Range(json!({ "type": "PersistentVolumeClaim", "max": { "storage": "1Gi" } })),
            "QuotaExceeded",
            &["maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 10Gi"],
        ),
        (
            "no-pods",
            Limit::Quota(json!({ "hard": { "pods": "0" } })),
            "PodRefused",
            &[
                "the job cannot make its pod",
                "exceeded quota: limit, requested: pods=1, used: pods=0, limited: pods=0",
            ],
        ),
        (
            "small-jobs",
            Limit::Range(json!({ "type": "Container", "max": { "memory": "256Mi" } })),
            "PodRefused",
            &[
                "the job cannot make its pod",
                "maximum memory usage per Container is 256Mi, but limit is 512Mi",
            ],
        ),
    ];
    futures::future::join_all(refusals.iter().map(|refusal| of_model(site, operator, refusal))).await;
    limits_that_jobs_name(site, operator).await;
}

fn fetched() -> Value {
    let file = json!({ "url": "http://models.invalid/m.gguf", "sha256": "0f".repeat(32), "path": "m.gguf" });
    json!({ "model": { "source": { "http": { "files": [file] } } }, "accelerator": { "class": "CPU" } })
}

async fn in_namespace<'a>(site: &'a Site, operator: &'a Operator, name: &str) -> Scene<'a> {
    let scene = site.scene(operator, name).await.unwrap();
    site.namespace(&scene.client, name).await.unwrap();
    scene
}

async fn of_model(site: &Site, operator: &Operator, (name, limit, reason, words): &Refusal) {
    let scene = in_namespace(site, operator, name).await;
    limit.impose(&scene).await;
    scene.apply(KIND, "chat", &fetched()).await.unwrap();
    let (_, said) = scene.condition((KIND, "chat"), "ModelReady", reason).await.unwrap();
    assert!(words.iter().all(|words| said.contains(words)), "{name}: {said}");
    println!("{name}: {said}");
    let model = only(scene.ours("LlmModel").list(&ListParams::default()).await.unwrap().items).name_any();
    for type_ in ["Ready", "Stalled"] {
        let (_, said) = scene.condition(("LlmModel", &model), type_, reason).await.unwrap();
        assert!(words.iter().all(|words| said.contains(words)), "{name}: {type_}: {said}");
    }
    assert_eq!(scene.condition((KIND, "chat"), "Stalled", reason).await.unwrap().0, "True");
    scene.settles().await.unwrap();
    assert!(scene.all::<Job>().list(&ListParams::default()).await.unwrap().items.len() <= 1);
    limit.lift(&scene).await;
    let since = Instant::now();
    a_pod_of_a_job(&scene).await;
    println!("{name}: the pod of a job {:?} after the limit was lifted", since.elapsed());
    let claims: Api<PersistentVolumeClaim> = scene.all();
    assert_eq!(claims.list(&ListParams::default()).await.unwrap().items.len(), 1);
}

async fn a_pod_of_a_job(scene: &Scene<'_>) -> Pod {
    let pods: Api<Pod> = scene.all();
    let made = scene.wait("the pod of a job", async || {
        let mut pods = pods.list(&ListParams::default()).await?.items;
        ensure!(pods.len() == 1, "{} pods", pods.len());
        Ok(pods.remove(0))
    });
    made.await.unwrap()
}

/// A quota of limits, in a namespace without defaults, takes only pods that name them; jobs have no field for that.
async fn limits_that_jobs_name(site: &Site, operator: &Operator) {
    let scene = in_namespace(site, operator, "named-limits").await;
    let names = ["cpu", "memory", "ephemeral-storage"];
    let hard: serde_json::Map<String, Value> = names
        .iter()
        .flat_map(|n| [format!("limits.{n}"), format!("requests.{n}")])
        .map(|n| (n, json!("4Gi")))
        .collect();
    Limit::Quota(json!({ "hard": hard })).impose(&scene).await;
    let mut asked = fetched();
    asked["placement"] = json!({ "priorityClassName": crate::HIGH });
    asked["serving"] =
        json!({ "imagePullSecrets": [{ "name": "registry" }], "podLabels": { "team": "search" } });
    scene.apply(KIND, "chat", &asked).await.unwrap();
    let pod = a_pod_of_a_job(&scene).await;
    // What lets a pod be made and started is for the job too; what selects pods that serve is not.
    assert!(!pod.labels().contains_key("team"));
    let spec = pod.spec.unwrap();
    assert_eq!(spec.priority_class_name.as_deref(), Some(crate::HIGH));
    assert_eq!(spec.image_pull_secrets.unwrap()[0].name, "registry");
}
