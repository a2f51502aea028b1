//! Users and groups that the cluster names, as OpenShift does: any user, group 0, and a group for volumes.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use e2e::bench::{Case, File, LIMIT, cpu};
use e2e::install::NAMESPACE;
use e2e::process::wait_for;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;

use super::client;
use super::steps::{NEWER, Walk};

/// The user and the volumes' group that the manifest names.
const USER: i64 = 1_000_680_000;
const POLICY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/assigned-users.yaml");
/// The operator and the runtime; the kernel names programs by fifteen letters.
const OURS: [&str; 2] = ["llm-fleet-opera", "llm-fleet-runti"];
const NO_CAPABILITY: &str = "0000000000000000";
const LABEL: &str = "test.llmfleet.dev/users=assigned";

/// The operator, its test, a fetch and a model, each under a user that nobody but the cluster knows.
pub(crate) async fn users(walk: &Walk<'_>, file: &File) -> Result<()> {
    let case = walk.bench.case("assigned").await?;
    walk.bench.lab.run_kubectl(&["apply", "--filename", POLICY])?;
    walk.bench.lab.run_kubectl(&["label", "namespace", NAMESPACE, &case.namespace, LABEL])?;
    is_in_force(&case).await?;
    walk.bench.install(&["podSecurity.identity=assigned"])?;
    walk.settled("installed again, under users that the cluster names", NEWER).await?;
    walk.test()?;
    case.apply("llm", &cpu(file)).await?;
    case.until_ready("llm").await?;
    let (url, _way) = case.service("llm").await?;
    wait_for("an answer", LIMIT, async || client::ask(&url, "llm").await).await?;
    for namespace in [NAMESPACE, &case.namespace] {
        let pods: Api<Pod> = Api::namespaced(case.client.clone(), namespace);
        for pod in pods.list(&ListParams::default()).await? {
            ensure!(named(&pod) == (Some(USER), None, Some(USER)), "{}: {:?}", pod.name_any(), named(&pod));
        }
    }
    let programs = programs()?;
    println!("  run by user {USER} and group 0: {programs:?}");
    ensure!(OURS.iter().all(|ours| programs.contains(*ours)), "one of {OURS:?} is run by another");
    case.delete("llm").await?;
    case.until_empty().await
}

/// Waits until the policy changes pods, which begins a moment after it was made.
async fn is_in_force(case: &Case<'_>) -> Result<()> {
    let container = json!({
        "name": "probe", "image": "probe",
        "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
    });
    let security = json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } });
    let spec = json!({ "securityContext": security, "containers": [container] });
    let probe: Pod = serde_json::from_value(json!({ "metadata": { "name": "probe" }, "spec": spec }))?;
    let pods: Api<Pod> = Api::namespaced(case.client.clone(), &case.namespace);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    wait_for("the policy to be in force", LIMIT, async || {
        let pod = pods.create(&dry, &probe).await?;
        ensure!(named(&pod).0 == Some(USER), "{:?}", named(&pod));
        Ok(())
    })
    .await
}

/// User, group, and group of volumes.
fn named(pod: &Pod) -> (Option<i64>, Option<i64>, Option<i64>) {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    (context.run_as_user, context.run_as_group, context.fs_group)
}

/// Programs that run as the assigned user and group 0, as the kernel names them: ours without a capability, without a
/// way to get one, and with a root that they cannot write.
fn programs() -> Result<BTreeSet<String>> {
    let mut programs = BTreeSet::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        // Most entries are no processes, and some end meanwhile.
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let of =
            |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next());
        if of("Uid:") == Some(&USER.to_string()) && of("Gid:") == Some("0") {
            if of("Name:").is_some_and(|name| OURS.contains(&name)) {
                is_confined(&of, &std::fs::read_to_string(entry.path().join("mountinfo"))?)?;
            }
            programs.extend(of("Name:").map(str::to_owned));
        }
    }
    Ok(programs)
}

fn is_confined<'s>(of: &impl Fn(&str) -> Option<&'s str>, mounts: &str) -> Result<()> {
    for (key, value) in [("CapEff:", NO_CAPABILITY), ("CapBnd:", NO_CAPABILITY), ("NoNewPrivs:", "1")] {
        ensure!(of(key) == Some(value), "{key} {:?} of {:?}", of(key), of("Name:"));
    }
    // Mount point and options are the fifth and sixth field.
    let root = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(4) == Some(&"/"));
    let options = root.and_then(|fields| fields.get(5).copied()).unwrap_or_default();
    ensure!(options.split(',').any(|option| option == "ro"), "the root of {:?}: {options}", of("Name:"));
    Ok(())
}
