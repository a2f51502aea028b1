//! Tells Prometheus which pods ask to be scraped, by the annotations that are common in many clusters.
//!
//! In: pods. Out: a file of targets, replaced whole whenever it changes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::kubeconfig;
use crate::lab::monitoring;
use crate::lab::site::{Site, identity};
use crate::supervisor::protocol::Spec;

/// The process's name and the subcommand.
pub const NAME: &str = "discovery";
/// What failed is tried again after this long, even if nothing is heard.
const RETRY: Duration = Duration::from_secs(5);
/// As many changes as are answered by one pass.
const BATCH: usize = 100;

/// Its process.
pub fn process(site: &Site<'_>, program: &Path) -> Spec {
    let paths = [site.paths.inside_kubeconfig(identity::DISCOVERY), monitoring::targets(site.paths)];
    let arguments =
        [NAME.to_owned()].into_iter().chain(paths.map(|path| path.to_string_lossy().into_owned()));
    site.process(NAME, program, arguments.collect())
}

/// Keeps `file` up to date until it is killed.
pub async fn run(kubeconfig: &Path, file: &Path) -> Result<()> {
    let pods: Api<Pod> = Api::all(kubeconfig::client(kubeconfig).await?);
    let changes = watcher(pods.clone(), watcher::Config::default()).default_backoff().ready_chunks(BATCH);
    let mut changes = std::pin::pin!(changes);
    loop {
        if let Err(error) = pass(&pods, file).await {
            tracing::warn!("{error:#}");
        }
        // Elapsed or not, the next pass sees everything.
        let _ = tokio::time::timeout(RETRY, changes.next()).await;
    }
}

async fn pass(pods: &Api<Pod>, file: &Path) -> Result<()> {
    let pods = pods.list(&ListParams::default()).await?.items;
    let text = serde_json::to_string_pretty(&pods.iter().filter_map(target).collect::<Vec<_>>())?;
    if fs::read_to_string(file).ok().as_ref() != Some(&text) {
        let aside = file.with_extension("new");
        fs::write(&aside, text)?;
        fs::rename(aside, file)?;
    }
    Ok(())
}

/// What Prometheus is to scrape of a pod, if anything.
fn target(pod: &Pod) -> Option<Value> {
    let annotation = |name: &str| pod.annotations().get(&format!("prometheus.io/{name}")).map(String::as_str);
    let status = pod.status.as_ref()?;
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if annotation("scrape") != Some("true") || ended {
        return None;
    }
    let address = status.pod_ip.as_ref()?;
    let port: i32 = annotation("port")?.parse().ok()?;
    let containers = &pod.spec.as_ref()?.containers;
    let serves =
        |container: &&Container| container.ports.iter().flatten().any(|open| open.container_port == port);
    let container = containers.iter().find(serves).or(containers.first())?;
    Some(json!({
        "targets": [format!("{address}:{port}")],
        "labels": {
            "__scheme__": annotation("scheme").unwrap_or("http"),
            "__metrics_path__": annotation("path").unwrap_or("/metrics"),
            "namespace": pod.namespace().unwrap_or_default(),
            "pod": pod.name_any(),
            "container": container.name,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(annotations: &Value, phase: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "n", "annotations": annotations },
            "spec": { "containers": [
                { "name": "first" },
                { "name": "second", "ports": [{ "containerPort": 8001 }] },
            ] },
            "status": { "phase": phase, "podIP": "10.244.0.7" },
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_that_asks_is_scraped_where_it_says() {
        let asks = json!({ "prometheus.io/scrape": "true", "prometheus.io/port": "8001" });
        let found = target(&pod(&asks, "Running")).unwrap();
        assert_eq!(found["targets"], json!(["10.244.0.7:8001"]));
        assert_eq!(found["labels"]["container"], "second");
        assert_eq!(found["labels"]["__metrics_path__"], "/metrics");
    }

    #[test]
    fn others_are_not() {
        let asks = json!({ "prometheus.io/scrape": "true", "prometheus.io/port": "8001" });
        assert_eq!(target(&pod(&asks, "Failed")), None);
        assert_eq!(target(&pod(&json!({ "prometheus.io/port": "8001" }), "Running")), None);
        assert_eq!(target(&pod(&json!({ "prometheus.io/scrape": "true" }), "Running")), None);
    }
}
