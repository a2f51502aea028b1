//! Pods' and services' network: the CNI configuration and kube-proxy.

use serde_json::json;

use super::site::{ConfigFile, Site, identity};
use crate::addresses::{KUBE_PROXY_METRICS, NODE, NODE_NAME, POD_CIDR};
use crate::supervisor::protocol::Spec;

/// kube-proxy's process.
pub const KUBE_PROXY: &str = "kube-proxy";

/// The configuration of CNI and kube-proxy.
pub fn files(site: &Site<'_>) -> Vec<ConfigFile> {
    vec![
        (site.config("cni/10-lab.conflist"), cni().to_string()),
        (site.config("kube-proxy.yaml"), kube_proxy(site).to_string()),
    ]
}

/// kube-proxy.
pub fn process(site: &Site<'_>) -> Spec {
    let config = site.config("kube-proxy.yaml");
    site.tool(
        KUBE_PROXY,
        vec![format!("--config={}", config.display()), format!("--hostname-override={NODE_NAME}")],
    )
}

/// Each pod has a point-to-point link to the node. On a bridge, answers to a pod of the same node would take the short
/// way and miss the translation back to the service's address wherever the kernel does not filter bridged packets.
fn cni() -> serde_json::Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "lab",
        "plugins": [
            {
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": POD_CIDR }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

fn kube_proxy(site: &Site<'_>) -> serde_json::Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "bindAddress": NODE,
        "clusterCIDR": POD_CIDR,
        "metricsBindAddress": KUBE_PROXY_METRICS,
        "healthzBindAddress": "",
        "clientConnection": { "kubeconfig": site.paths.inside_kubeconfig(identity::KUBE_PROXY) },
        // These are the machine's own limits, which are none of a lab's business.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
    })
}
