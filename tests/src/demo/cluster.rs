//! The cluster that the demo runs on: the lab, or one that the user has and names.
//!
//! In: `DEMO_CLUSTER`. Out: programs to talk to it, a way to bring images and a way to reach services.
//! A kubeconfig that merely lies around is never used: the user says so, or the lab is made.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::forward::Forward;
use crate::kubeconfig;
use crate::lab::Lab;
use crate::process::{self, Bound, wait_for};

/// Which cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The local cluster of this repository.
    Lab,
    /// A kind cluster; its name is in `DEMO_CLUSTER_NAME`, or `kind`.
    Kind,
    /// A k3d cluster; its name is in `DEMO_CLUSTER_NAME`, or `k3s-default`.
    K3d,
    /// What `KUBECONFIG` says; images come from `DEMO_REGISTRY`, or are on the nodes already.
    Kubeconfig,
}

impl Kind {
    /// Reads `DEMO_CLUSTER`.
    pub fn parse(text: Option<&str>) -> Result<Self> {
        Ok(match text {
            None | Some("" | "lab") => Self::Lab,
            Some("kind") => Self::Kind,
            Some("k3d") => Self::K3d,
            Some("kubeconfig") => Self::Kubeconfig,
            Some(other) => bail!("DEMO_CLUSTER is {other:?}; it may be lab, kind, k3d or kubeconfig"),
        })
    }
}

/// A cluster that is up.
#[derive(Debug)]
pub enum Cluster {
    /// The lab of this repository.
    Lab(Lab),
    /// The user's own.
    Foreign(Foreign),
}

/// A way to something in the cluster; it closes when this is dropped.
#[derive(Debug)]
pub struct Way {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    _open: Open,
}

#[derive(Debug)]
#[allow(dead_code, reason = "held for what they do when dropped")]
enum Open {
    Forward(Forward),
    Kubectl(Bound),
}

impl Cluster {
    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        match self {
            Self::Lab(lab) => lab.kubeconfig(),
            Self::Foreign(foreign) => foreign.kubeconfig.clone(),
        }
    }

    /// A client with the kubeconfig's rights.
    pub async fn client(&self) -> Result<kube::Client> {
        kubeconfig::client(&self.kubeconfig()).await
    }

    /// Brings an image archive to the nodes; gives the name under which pods find it.
    pub fn load_image(&self, archive: &Path, reference: &str) -> Result<String> {
        match self {
            Self::Lab(lab) => lab.load_image(archive).map(|()| reference.to_owned()),
            Self::Foreign(foreign) => foreign.load_image(archive, reference),
        }
    }

    /// Opens a way to a service: through its cluster address in the lab, through the API server elsewhere.
    pub async fn reach(&self, kubectl: &Path, target: Target<'_>) -> Result<Way> {
        match self {
            Self::Lab(lab) => {
                let Target { namespace, service, port } = target;
                let listen = (Ipv4Addr::LOCALHOST, 0).into();
                let forward = lab.forward(&format!("{namespace}/{service}:{port}"), listen).await?;
                Ok(Way { url: format!("http://{}", forward.local()), _open: Open::Forward(forward) })
            }
            Self::Foreign(foreign) => foreign.reach(kubectl, target).await,
        }
    }
}

/// A service's port.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Namespace of the service.
    pub namespace: &'a str,
    /// Name of the service.
    pub service: &'a str,
    /// Its port.
    pub port: u16,
}

/// A user's own cluster.
#[derive(Debug)]
pub struct Foreign {
    kind: Kind,
    name: String,
    kubeconfig: PathBuf,
    registry: Option<String>,
    folder: PathBuf,
}

impl Foreign {
    /// Finds it; `folder` takes the kubeconfig that kind or k3d print.
    pub fn find(kind: Kind, folder: &Path) -> Result<Self> {
        let default = if kind == Kind::K3d { "k3s-default" } else { "kind" };
        let name = std::env::var("DEMO_CLUSTER_NAME").unwrap_or_else(|_| default.to_owned());
        let registry = std::env::var("DEMO_REGISTRY").ok();
        let printed = |command: &mut Command| -> Result<PathBuf> {
            std::fs::create_dir_all(folder)?;
            let path = folder.join("demo.kubeconfig");
            std::fs::write(&path, process::output(command)?)?;
            Ok(path)
        };
        let kubeconfig = match kind {
            Kind::Kind => printed(Command::new("kind").args(["get", "kubeconfig", "--name", &name]))?,
            Kind::K3d => printed(Command::new("k3d").args(["kubeconfig", "get", &name]))?,
            Kind::Lab | Kind::Kubeconfig => std::env::var_os("KUBECONFIG")
                .map(PathBuf::from)
                .context("set KUBECONFIG to the cluster's file")?,
        };
        ensure!(kubeconfig.exists(), "{} does not exist", kubeconfig.display());
        Ok(Self { kind, name, kubeconfig, registry, folder: folder.to_owned() })
    }

    fn load_image(&self, archive: &Path, reference: &str) -> Result<String> {
        let archive = archive.display().to_string();
        match self.kind {
            Kind::Kind => {
                process::output(Command::new("kind").args([
                    "load",
                    "image-archive",
                    &archive,
                    "--name",
                    &self.name,
                ]))?;
            }
            Kind::K3d => {
                process::output(Command::new("k3d").args(["image", "import", &archive, "-c", &self.name]))?;
            }
            Kind::Lab | Kind::Kubeconfig => {
                let Some(registry) = &self.registry else { return Ok(reference.to_owned()) };
                let pushed = reference.replacen("localhost", registry, 1);
                process::output(
                    Command::new("buildah").args(["pull", &format!("docker-archive:{archive}")]),
                )?;
                process::output(Command::new("buildah").args([
                    "push",
                    reference,
                    &format!("docker://{pushed}"),
                ]))?;
                return Ok(pushed);
            }
        }
        Ok(reference.to_owned())
    }

    async fn reach(&self, kubectl: &Path, target: Target<'_>) -> Result<Way> {
        let Target { namespace, service, port } = target;
        let log = self.folder.join(format!("port-forward-{service}.log"));
        // What an earlier run wrote there must not be taken for this one's.
        std::fs::write(&log, "")?;
        let mut command = Command::new(kubectl);
        command.env("KUBECONFIG", &self.kubeconfig);
        command.args(["-n", namespace, "port-forward", &format!("svc/{service}"), &format!(":{port}")]);
        let mut child = Bound::spawn("kubectl", command, log.clone())?;
        let local = wait_for("kubectl port-forward", Duration::from_secs(30), async || {
            child.check()?;
            local_port(&std::fs::read_to_string(&log)?).context("no port yet")
        })
        .await?;
        Ok(Way { url: format!("http://127.0.0.1:{local}"), _open: Open::Kubectl(child) })
    }
}

/// Reads the port from kubectl's line `Forwarding from 127.0.0.1:40000 -> 8000`.
fn local_port(text: &str) -> Option<u16> {
    let rest = text.lines().rev().find_map(|line| line.strip_prefix("Forwarding from 127.0.0.1:"))?;
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_clusters_are_used() {
        assert_eq!(Kind::parse(None).unwrap(), Kind::Lab);
        assert_eq!(Kind::parse(Some("k3d")).unwrap(), Kind::K3d);
        assert!(Kind::parse(Some("prod")).is_err());
    }

    #[test]
    fn the_port_that_kubectl_chose_is_read() {
        let text = "Forwarding from 127.0.0.1:40123 -> 8000\nForwarding from [::1]:40123 -> 8000\n";
        assert_eq!(local_port(text), Some(40123));
        assert_eq!(local_port("error: no pods"), None);
    }
}
