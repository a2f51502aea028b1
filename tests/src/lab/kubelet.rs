//! The kubelet: its configuration and its process.

use serde_json::json;

use super::containerd;
use super::site::{ConfigFile, Site, identity};
use crate::addresses::{CLUSTER_DOMAIN, DNS_SERVICE, NODE, NODE_NAME};
use crate::supervisor::namespaces::KUBELET;
use crate::supervisor::protocol::Spec;

/// The process's name.
pub const NAME: &str = "kubelet";

/// Its configuration and the name resolution it gives to pods that use the node's.
pub fn files(site: &Site<'_>) -> Vec<ConfigFile> {
    vec![
        (site.config("kubelet.yaml"), config(site).to_string()),
        (site.config("resolv.conf"), format!("nameserver {NODE}\n")),
    ]
}

/// Its process.
pub fn process(site: &Site<'_>) -> Spec {
    let kubeconfig = site.paths.inside_kubeconfig(identity::KUBELET);
    let arguments = vec![
        format!("--config={}", site.config("kubelet.yaml").display()),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--root-dir={}", KUBELET),
        format!("--hostname-override={NODE_NAME}"),
        format!("--node-ip={NODE}"),
    ];
    site.tool(NAME, arguments)
}

fn config(site: &Site<'_>) -> serde_json::Value {
    let Site { paths, pki, .. } = site;
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE,
        "tlsCertFile": pki.certificate(identity::KUBELET),
        "tlsPrivateKeyFile": pki.key(identity::KUBELET),
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": pki.authority() },
        },
        "authorization": { "mode": "Webhook" },
        "containerRuntimeEndpoint": format!("unix://{}", containerd::socket(paths).display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", paths.cgroup()),
        "failCgroupV1": false,
        "failSwapOn": false,
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": site.config("resolv.conf"),
        "volumePluginDir": format!("{KUBELET}/volume-plugins"),
        "maxPods": 110,
        // The disk is the machine's, and full for reasons of its own; images come from nowhere else, so none is dropped.
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": false,
        "eventRecordQPS": 0,
        "makeIPTablesUtilChains": false,
    })
}
