//! Asks the running components of a lab which version they are.
//!
//! In: a lab. Out: version by component, each from the process itself, none from what was meant to be built.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_json::Value;

use crate::addresses::{
    CONTROLLER_MANAGER, DNS_METRICS, ETCD_METRICS, KUBE_PROXY_METRICS, NODE_NAME, SCHEDULER,
};
use crate::control_plane::arguments::TOKENS;
use crate::control_plane::configuration;
use crate::forward::Forward;
use crate::lab::Lab;
use crate::process::wait_for;
use crate::{kubeconfig, web};

/// A lab is up before the last of its components serves metrics.
const PATIENCE: Duration = Duration::from_secs(60);
/// The metric by which Kubernetes components tell their version.
const BUILD_INFO: (&str, &str) = ("kubernetes_build_info", "git_version");

/// Version by component.
async fn versions(lab: &Lab) -> Result<BTreeMap<String, String>> {
    let client = lab.client().await?;
    let mut versions = BTreeMap::new();
    versions.insert("kube-apiserver".to_owned(), client.apiserver_version().await?.git_version);

    let node = Api::<Node>::all(client).get(NODE_NAME).await?;
    let info = node.status.and_then(|status| status.node_info).context("the node says nothing of itself")?;
    versions.insert("kubelet".to_owned(), info.kubelet_version);
    versions.insert("container runtime".to_owned(), info.container_runtime_version);
    versions.insert("kernel".to_owned(), info.kernel_version);
    versions.insert("system".to_owned(), info.os_image);

    let plain = [
        ("etcd", ETCD_METRICS, ("etcd_server_version", "server_version")),
        ("kube-proxy", KUBE_PROXY_METRICS, BUILD_INFO),
        ("coredns", DNS_METRICS, ("coredns_build_info", "version")),
    ];
    for (component, address, metric) in plain {
        let forward = forward(lab, address)?;
        let url = format!("http://{}/metrics", forward.local());
        let version = wait_for(component, PATIENCE, async || {
            label(&web::get(&url).await?.text().await?, metric).context("it tells no version")
        });
        versions.insert(component.to_owned(), version.await?);
    }
    for (component, address) in
        [("kube-controller-manager", CONTROLLER_MANAGER), ("kube-scheduler", SCHEDULER)]
    {
        let metrics = secured_metrics(lab, address).await.with_context(|| component.to_owned())?;
        versions
            .insert(component.to_owned(), label(&metrics, BUILD_INFO).with_context(|| component.to_owned())?);
    }
    let url = format!("{}/api/v1/status/buildinfo", lab.prometheus_url());
    let build: Value = web::get(&url).await?.json().await?;
    let prometheus = build["data"]["version"].as_str().context("Prometheus says no version")?;
    versions.insert("prometheus".to_owned(), prometheus.to_owned());
    Ok(versions)
}

/// Prints them, one a line.
pub async fn print(lab: &Lab) -> Result<()> {
    for (component, version) in versions(lab).await? {
        println!("{component} {version}");
    }
    Ok(())
}

fn forward(lab: &Lab, target: SocketAddr) -> Result<Forward> {
    Forward::start(lab.supervisor().network(), (Ipv4Addr::LOCALHOST, 0).into(), target)
}

/// These components ask the API server whether the caller may see their metrics, and know callers by their token.
async fn secured_metrics(lab: &Lab, target: SocketAddr) -> Result<String> {
    let forward = forward(lab, target)?;
    let mut config = kubeconfig::config(&lab.kubeconfig()).await?;
    config.cluster_url = format!("https://{}", forward.local()).parse()?;
    let tokens = fs::read_to_string(lab.paths().join(TOKENS))?;
    config.auth_info.token = configuration::token_of(&tokens).map(|token| token.to_owned().into());
    let request = http::Request::get("/metrics").body(Vec::new())?;
    Ok(kube::Client::try_from(config)?.request_text(request).await?)
}

/// The value of a label of a metric's first series, in Prometheus's text format.
fn label(metrics: &str, (metric, label): (&str, &str)) -> Option<String> {
    let labels = metrics.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix('{'))?;
    let value = labels.split(',').find_map(|pair| pair.strip_prefix(label)?.strip_prefix("=\""))?;
    value.split('"').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_found_wherever_it_stands() {
        let metrics =
            "# HELP a_info x\na_info_more{version=\"9\"} 1\na_info{go=\"1.26\",version=\"2.1\"} 1\n";
        assert_eq!(label(metrics, ("a_info", "version")).as_deref(), Some("2.1"));
        assert_eq!(label(metrics, ("a_info", "go")).as_deref(), Some("1.26"));
        assert_eq!(label(metrics, ("a_info", "commit")), None);
    }
}
