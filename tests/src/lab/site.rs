//! What every component's configuration is rendered from. Pure but for the folders it names and the programs it finds.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::addresses::{API_SERVER, ETCD, ETCD_PEER, KUBERNETES_SERVICE, NODE};
use crate::certs::{Identity, Pki};
use crate::control_plane;
use crate::control_plane::arguments::Plan;
use crate::packages;
use crate::paths::LabPaths;
use crate::supervisor::protocol::{Network, Spec};
use crate::tools::Tools;

/// A lab's folder, its tools, and its certificates.
#[derive(Clone, Debug)]
pub struct Site<'a> {
    /// Where its files are.
    pub paths: &'a LabPaths,
    /// Its programs.
    pub tools: &'a Tools,
    /// Its certificates.
    pub pki: Pki,
}

/// A configuration file: path and content.
pub type ConfigFile = (PathBuf, String);

impl Site<'_> {
    /// The control plane in the lab's network.
    pub fn plan(&self) -> Plan {
        Plan {
            pki: self.pki.clone(),
            folder: self.paths.root().to_owned(),
            etcd: ETCD,
            etcd_peer: ETCD_PEER,
            api_server: API_SERVER,
            advertised: Some(NODE.into()),
            controllers: true,
        }
    }

    /// A configuration file's path.
    pub fn config(&self, name: &str) -> PathBuf {
        self.paths.join("config").join(name)
    }

    /// A process in the lab's network that is one of the tools.
    pub fn tool(&self, name: &str, arguments: Vec<String>) -> Spec {
        self.process(name, &self.tools.path(name), arguments)
    }

    /// A process in the lab's network that a Debian package brought.
    pub fn package(&self, name: &str, arguments: Vec<String>) -> Result<Spec> {
        let program = packages::find(name).with_context(|| format!("there is no program {name}"))?;
        Ok(self.process(name, &program, arguments))
    }

    /// A process in the lab's network.
    pub fn process(&self, name: &str, program: &Path, arguments: Vec<String>) -> Spec {
        process(self.paths, self.tools, (name, program, arguments))
    }
}

/// A process of a lab, in its network: its name, its program and its arguments.
pub fn process(
    paths: &LabPaths,
    tools: &Tools,
    (name, program, arguments): (&str, &Path, Vec<String>),
) -> Spec {
    let path = tools.search_path().to_string_lossy().into_owned();
    let home = paths.root().to_string_lossy().into_owned();
    Spec {
        name: name.to_owned(),
        program: program.to_owned(),
        arguments,
        environment: [("PATH".to_owned(), path), ("HOME".to_owned(), home)].into(),
        log: paths.log(name),
        network: Network::Lab,
    }
}

/// The files' names of the certificates that only a whole lab needs.
pub mod identity {
    /// The kubelet, as client and as server.
    pub const KUBELET: &str = "kubelet";
    /// kube-proxy.
    pub const KUBE_PROXY: &str = "kube-proxy";
    /// CoreDNS.
    pub const DNS: &str = "coredns";
    /// The volume provisioner.
    pub const PROVISIONER: &str = "provisioner";
    /// What tells Prometheus of pods.
    pub const DISCOVERY: &str = "discovery";
}

/// Everyone who needs a certificate in a lab.
pub fn identities() -> Vec<Identity> {
    let (node, service) = (NODE.to_string(), KUBERNETES_SERVICE.to_string());
    let hosts = [
        "127.0.0.1",
        "localhost",
        &node,
        &service,
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let mut identities = control_plane::identities(&hosts);
    identities.extend([
        Identity {
            file: identity::KUBELET,
            common_name: format!("system:node:{}", crate::addresses::NODE_NAME),
            groups: vec!["system:nodes"],
            hosts: vec![node],
        },
        Identity::client(identity::KUBE_PROXY, "system:kube-proxy", &[]),
        // The manifests bind rights to these users.
        Identity::client(identity::DNS, "lab:coredns", &[]),
        Identity::client(identity::PROVISIONER, "lab:provisioner", &[]),
        Identity::client(identity::DISCOVERY, "lab:discovery", &[]),
    ]);
    identities
}
