//! The kubelet: its configuration and its cgroups.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use super::containerd;
use super::site::{ConfigFile, Site, identity};
use crate::addresses::{CLUSTER_DOMAIN, DNS_SERVICE, NODE, NODE_NAME};
use crate::paths::LabPaths;
use crate::supervisor::namespaces::KUBELET;
use crate::supervisor::protocol::Spec;

/// The process's name.
pub const NAME: &str = "kubelet";
/// Where control groups are mounted.
pub const CGROUPS: &str = "/sys/fs/cgroup";

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

/// Makes the cgroup below which the kubelet puts all pods, in every hierarchy.
pub fn make_cgroups(paths: &LabPaths) -> Result<()> {
    for hierarchy in hierarchies(Path::new(CGROUPS))? {
        let group = hierarchy.join(paths.cgroup());
        if group.exists() {
            continue;
        }
        fs::create_dir(&group).with_context(|| format!("cannot create the cgroup {}", group.display()))?;
        for set in ["cpuset.cpus", "cpuset.mems"] {
            // A v1 cpuset starts empty and admits nobody until it has its parent's.
            if hierarchy.join("cpuset.sched_load_balance").exists() {
                fs::write(group.join(set), fs::read(hierarchy.join(set))?)?;
            }
        }
    }
    Ok(())
}

/// The hierarchies: one with cgroup v2, one per controller with v1.
pub fn hierarchies(mounted: &Path) -> Result<Vec<PathBuf>> {
    if mounted.join("cgroup.controllers").exists() {
        return Ok(vec![mounted.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(mounted)? {
        let entry = entry?;
        // Symbolic links name the same hierarchy a second time.
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
