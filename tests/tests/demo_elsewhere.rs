//! `DEMO_CLUSTER=kubeconfig make demo` on a cluster that the demo did not make: another lab, as a user would go about it.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::lab::up::Options;
use e2e::lab::{Lab, down, up};
use e2e::paths::{Cache, repository};
use e2e::process::{output, wait_for};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_lab");
const NAME: &str = "second";
/// Longest wait for what the cluster does by itself.
const PATIENCE: Duration = Duration::from_secs(120);
/// Without a new object for this long, a cluster is taken to have made all of its own.
const STILL: Duration = Duration::from_secs(3);
/// Kinds whose objects come and go by themselves.
const RESTLESS: [&str; 3] = ["events", "events.events.k8s.io", "leases.coordination.k8s.io"];

/// Ends the lab also when the test fails.
struct Ended;

impl Drop for Ended {
    fn drop(&mut self) {
        output(Command::new(PROGRAM).args(["down", "--name", NAME])).unwrap();
    }
}

fn demo(lab: &Lab, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("demo").args(arguments);
    command.env("DEMO_CLUSTER", "kubeconfig").env("KUBECONFIG", lab.kubeconfig());
    command.env("DEMO_PROMETHEUS", lab.prometheus_url()).env_remove("DEMO_EXIT").env_remove("DEMO_REGISTRY");
    command.output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every object of the cluster.
fn objects(lab: &Lab) -> Result<BTreeSet<String>> {
    let kinds = lab.run_kubectl(&["api-resources", "--verbs=list", "--output=name"])?;
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !RESTLESS.contains(kind)).collect();
    let path = "jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name}{\"\\n\"}{end}";
    let all = lab.run_kubectl(&["get", &kinds.join(","), "--all-namespaces", "-o", path])?;
    Ok(all.lines().map(str::to_owned).collect())
}

/// Every object of a cluster that makes no more of its own.
async fn settled(lab: &Lab) -> BTreeSet<String> {
    let settled = wait_for("the cluster to make nothing more", PATIENCE, async || {
        let before = objects(lab)?;
        tokio::time::sleep(STILL).await;
        let after = objects(lab)?;
        ensure!(before == after, "{:?}", after.symmetric_difference(&before));
        Ok(after)
    });
    settled.await.unwrap()
}

#[tokio::test]
async fn the_demo_runs_on_a_cluster_of_somebody_else_and_leaves_it_as_it_was() {
    let paths = Cache::from_env().unwrap().lab(NAME).unwrap();
    down::down(&paths).await.unwrap();
    let options = Options { name: NAME.to_owned(), card: None, program: PathBuf::from(PROGRAM) };
    let _ended = Ended;
    let lab = up::up(&options).await.unwrap();
    let before = settled(&lab).await;

    // Nobody brings images there, and that is said before anything is made.
    let refused = demo(&lab, &[]);
    let words = told(&refused);
    assert!(!refused.status.success() && words.contains("no node has these images"), "{words}");
    let images = repository().join("target/images").display().to_string();
    let archives: Vec<&str> = words.lines().map(str::trim).filter(|line| line.starts_with(&images)).collect();
    assert_eq!(archives.len(), 3, "{words}");
    assert_eq!(objects(&lab).unwrap(), before);
    archives.iter().for_each(|archive| lab.load_image(archive.as_ref()).unwrap());

    wait_for("the node to tell of its images", PATIENCE, async || {
        let names =
            lab.run_kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].status.images[*].names}"])?;
        let told = ["operator:", "runtime:", "model-source:"].iter().all(|name| names.contains(name));
        ensure!(told, "{names}");
        Ok(())
    })
    .await
    .unwrap();

    let shown = demo(&lab, &[]);
    assert!(shown.status.success(), "{}", told(&shown));
    let report = std::fs::read(repository().join("target/reports/demo-kubeconfig.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    for figure in ["apply_to_ready_seconds", "tokens_per_second", "ttft_seconds", "answer"] {
        println!("{figure}: {}", report[figure]);
    }
    assert!(objects(&lab).unwrap().len() > before.len());

    let removed = demo(&lab, &["--down"]);
    assert!(removed.status.success(), "{}", told(&removed));
    // A volume goes when its provisioner has seen that its claim has gone.
    let as_before = wait_for("nothing to be left or lost", PATIENCE, async || {
        let after = objects(&lab)?;
        let (left, lost): (Vec<_>, Vec<_>) =
            (after.difference(&before).collect(), before.difference(&after).collect());
        ensure!(left.is_empty() && lost.is_empty(), "left: {left:?}, lost: {lost:?}");
        Ok(())
    });
    as_before.await.unwrap();
    e2e::versions::print(&lab).await.unwrap();
}
