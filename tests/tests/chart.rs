//! The charts: linted, unit-tested, and installed by a real Helm into a real API server, whose own judgement counts.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use contract::http::{ADMIN_PORT, ADMIN_PORT_NAME, HEALTHZ, METRICS, READYZ};
use contract::labels;
use e2e::control_plane::ControlPlane;
use e2e::paths::{Cache, repository};
use e2e::process::output;
use e2e::tools::Tools;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};

const SYSTEM: &str = "llm-fleet-system";
const CHARTS: [&str; 2] = ["llm-fleet", "llm-fleet-crds"];

fn chart(name: &str) -> PathBuf {
    repository().join("charts").join(name)
}

async fn tool(name: &str) -> Command {
    let tools = Tools::locate(&Cache::from_env().unwrap()).unwrap();
    tools.ensure(&[name]).await.unwrap();
    Command::new(tools.path(name))
}

async fn print_helm_version() {
    println!("helm {}", output(tool("helm").await.args(["version", "--short"])).unwrap().trim());
}

fn yaml_of(path: &Path) -> Value {
    serde_norway::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[tokio::test]
async fn charts_are_without_fault() {
    print_helm_version().await;
    for name in CHARTS {
        let lint = ["lint", "--strict", "--kube-version", "1.36.3"];
        println!("{}", output(tool("helm").await.args(lint).arg(chart(name))).unwrap());
        println!("{}", output(tool("helm-unittest").await.arg("--strict").arg(chart(name))).unwrap());
    }
    let full = chart("llm-fleet").join("ci/full-values.yaml");
    let lint = ["lint", "--strict", "--kube-version", "1.36.3", "--values"];
    output(tool("helm").await.args(lint).arg(full).arg(chart("llm-fleet"))).unwrap();
}

#[test]
fn charts_have_the_version_of_the_programs() {
    for name in CHARTS {
        let chart = yaml_of(&chart(name).join("Chart.yaml"));
        assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"), "{name}");
        assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"), "{name}");
    }
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    assert!(
        readme.contains(concat!("/llm-fleet/$name:", env!("CARGO_PKG_VERSION"), "\n")),
        "images are pushed by it"
    );
}

/// Dotted names of all values that a schema describes.
fn described(schema: &Value, prefix: &str) -> BTreeSet<String> {
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties
        .flat_map(|(name, inner)| match inner.get("properties") {
            Some(_) => described(inner, &format!("{prefix}{name}.")),
            None => BTreeSet::from([format!("{prefix}{name}")]),
        })
        .filter(|name| name != "global")
        .collect()
}

#[test]
fn every_value_is_in_the_readme() {
    for name in CHARTS {
        let read = |file: &str| std::fs::read_to_string(chart(name).join(file)).unwrap();
        let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
        let table: BTreeSet<String> = read("README.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned))
            .collect();
        assert_eq!(table, described(&schema, ""), "{name}");
    }
}

/// Rules of every role of a rendered manifest, with the role's name.
fn rules(manifest: &str) -> Vec<(String, Value)> {
    serde_norway::Deserializer::from_str(manifest)
        .map(|document| serde::Deserialize::deserialize(document).unwrap())
        .flat_map(|object: Value| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let rules = object["rules"].as_array().cloned().unwrap_or_default();
            rules.into_iter().map(move |rule| (name.clone(), rule))
        })
        .collect()
}

fn excessive(rule: &Value) -> bool {
    let has = |key: &str, words: &[&str]| {
        rule[key].as_array().into_iter().flatten().any(|word| words.iter().any(|w| word == w))
    };
    has("apiGroups", &["*"])
        || has("resources", &["*", "secrets", "serviceaccounts", "pods/exec"])
        || has("verbs", &["*", "impersonate", "escalate", "bind"])
}

#[test]
fn no_rule_is_wider_than_a_list_of_words() {
    for file in ["llm-fleet.yaml", "llm-fleet-full.yaml"] {
        let manifest = std::fs::read_to_string(repository().join("deploy/rendered").join(file)).unwrap();
        let rules = rules(&manifest);
        assert!(rules.len() > 10, "{file}: only {} rules", rules.len());
        for (role, rule) in rules {
            assert!(!excessive(&rule), "{file}: {role}: {rule}");
        }
    }
    assert!(excessive(&json!({ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] })));
    assert!(excessive(&json!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["*"] })));
}

/// The chart cannot read the contract, so the numbers and paths in it are compared with it.
#[test]
fn ports_and_paths_are_the_contract() {
    let rendered = std::fs::read_to_string(repository().join("deploy/rendered/llm-fleet.yaml")).unwrap();
    let objects: Vec<Value> = serde_norway::Deserializer::from_str(&rendered)
        .map(|document| serde::Deserialize::deserialize(document).unwrap())
        .collect();
    let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
    let template = &of_kind("Deployment")["spec"]["template"];
    let container = &template["spec"]["containers"][0];
    assert_eq!(container["ports"][0], json!({ "name": ADMIN_PORT_NAME, "containerPort": ADMIN_PORT }));
    assert_eq!(container["livenessProbe"]["httpGet"], json!({ "path": HEALTHZ, "port": ADMIN_PORT_NAME }));
    assert_eq!(container["readinessProbe"]["httpGet"], json!({ "path": READYZ, "port": ADMIN_PORT_NAME }));
    let annotations = &template["metadata"]["annotations"];
    assert_eq!(annotations[labels::SCRAPE_PORT], ADMIN_PORT.to_string());
    assert_eq!(annotations[labels::SCRAPE_PATH], METRICS);
    assert_eq!(of_kind("Service")["spec"]["ports"][0]["port"], ADMIN_PORT);
    let egress = of_kind("NetworkPolicy")["spec"]["egress"].as_array().unwrap();
    assert_eq!(egress.last().unwrap()["ports"][0]["port"], ADMIN_PORT);
}

/// A cluster with namespaces that enforce Pod Security `restricted`.
struct Cluster {
    control_plane: ControlPlane,
    client: Client,
}

impl Cluster {
    async fn start() -> Self {
        let control_plane = ControlPlane::start().await.unwrap();
        let client = control_plane.client().await.unwrap();
        println!("{:#?}", control_plane.versions().await.unwrap());
        print_helm_version().await;
        for name in [SYSTEM, "team-a", "team-b", "other"] {
            let namespace = serde_json::from_value(json!({
                "metadata": { "name": name, "labels": { "pod-security.kubernetes.io/enforce": "restricted" } },
            }))
            .unwrap();
            let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
            namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        }
        Self { control_plane, client }
    }

    async fn helm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut helm = tool("helm").await;
        output(helm.env("KUBECONFIG", self.control_plane.kubeconfig()).args(arguments).args(["-n", SYSTEM]))
    }

    async fn install(&self, name: &str, more: &[&str]) -> String {
        let chart = chart(name);
        let arguments = [&["upgrade", "--install", name, chart.to_str().unwrap()], more].concat();
        self.helm(&arguments).await.unwrap()
    }

    /// Whether the operator's account may do this.
    async fn may(&self, namespace: &str, verb: &str, resource: &str) -> bool {
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (resource, name) = resource.split_once(':').unwrap_or((resource, ""));
        let review: SubjectAccessReview = serde_json::from_value(json!({ "spec": {
            "user": format!("system:serviceaccount:{SYSTEM}:llm-fleet"),
            "resourceAttributes": {
                "namespace": namespace, "verb": verb, "group": group,
                "resource": resource, "subresource": subresource, "name": name,
            },
        } }))
        .unwrap();
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
    }
}

#[tokio::test]
async fn installs_upgrades_and_goes_again() {
    let cluster = Cluster::start().await;
    let notes = cluster.install("llm-fleet", &[]).await;
    assert!(notes.contains("Its kinds are missing"), "{notes}");
    cluster.install("llm-fleet-crds", &[]).await;
    let notes = cluster.install("llm-fleet", &["--set", "imageRegistry=localhost"]).await;
    assert!(!notes.contains("Its kinds are missing"), "{notes}");

    let samples = repository().join("deploy/samples");
    let samples = ["apply", "--dry-run=server", "--validate=strict", "-f", samples.to_str().unwrap()];
    println!("{}", cluster.control_plane.run_kubectl(&samples).unwrap());

    // The pod that the Deployment asks for passes Pod Security `restricted`.
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), SYSTEM);
    let mut spec = deployments.get("llm-fleet").await.unwrap().spec.unwrap().template.spec.unwrap();
    assert_eq!(
        spec.containers[0].image.as_deref(),
        Some(concat!("localhost/llm-fleet/operator:", env!("CARGO_PKG_VERSION")))
    );
    // Without the controllers there are no accounts' tokens; the account is not what is tested here.
    spec.automount_service_account_token = Some(false);
    let mut pod = Pod { spec: Some(spec), ..Pod::default() };
    pod.metadata.name = Some("as-asked-for".to_owned());
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), SYSTEM);
    pods.create(&PostParams::default(), &pod).await.unwrap();

    let full = chart("llm-fleet").join("ci/full-values.yaml");
    cluster.install("llm-fleet", &["--values", full.to_str().unwrap()]).await;
    cluster.helm(&["rollback", "llm-fleet", "1"]).await.unwrap();

    // Nothing runs the job that would be waited for.
    cluster.helm(&["uninstall", "llm-fleet", "--no-hooks"]).await.unwrap();
    cluster.helm(&["uninstall", "llm-fleet-crds"]).await.unwrap();
    let left = ["clusterroles", "clusterrolebindings"].map(|kind| {
        let names = cluster.control_plane.run_kubectl(&["get", kind, "-o", "name"]).unwrap();
        names.lines().filter(|name| name.contains("llm-fleet")).count()
    });
    assert_eq!(left, [0, 0]);
    let kinds = cluster.control_plane.run_kubectl(&["get", "crds", "-o", "name"]).unwrap();
    assert!(kinds.contains("llmdeployments.llmfleet.dev"), "the kinds are kept: {kinds}");
}

#[tokio::test]
async fn rights_are_those_that_the_operator_needs() {
    let cluster = Cluster::start().await;
    cluster.install("llm-fleet", &[]).await;
    for (verb, resource) in [
        ("patch", "llmdeployments/status.llmfleet.dev"),
        ("create", "llmmodels.llmfleet.dev"),
        ("delete", "pods"),
        ("patch", "services"),
        ("create", "persistentvolumeclaims"),
        ("create", "jobs.batch"),
        ("get", "pods/log"),
        ("list", "events"),
        ("create", "events.events.k8s.io"),
        ("list", "nodes"),
        ("list", "runtimeclasses.node.k8s.io"),
    ] {
        assert!(cluster.may("other", verb, resource).await, "may not {verb} {resource}");
    }
    for (verb, resource) in [
        ("get", "secrets"),
        ("create", "llmdeployments.llmfleet.dev"),
        ("delete", "llmdeployments.llmfleet.dev"),
        ("patch", "llmdeployments.llmfleet.dev"),
        ("delete", "services"),
        ("patch", "nodes"),
        ("create", "pods/exec"),
        ("create", "serviceaccounts"),
        ("create", "leases.coordination.k8s.io"),
    ] {
        assert!(!cluster.may("other", verb, resource).await, "may {verb} {resource}");
    }
    assert!(cluster.may(SYSTEM, "update", "leases:llm-fleet.coordination.k8s.io").await);
    assert!(!cluster.may(SYSTEM, "update", "leases:another.coordination.k8s.io").await);

    cluster.install("llm-fleet", &["--set", "watchNamespaces={team-a}"]).await;
    assert!(cluster.may("team-a", "delete", "pods").await);
    assert!(!cluster.may("team-b", "delete", "pods").await);
    assert!(!cluster.may("team-b", "list", "llmdeployments.llmfleet.dev").await);
    // Placement counts what is used by all.
    assert!(cluster.may("team-b", "list", "pods").await);
}
