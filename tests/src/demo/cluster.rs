//! The cluster that the demo runs on: the lab, or one that the user has and names.
//!
//! In: the user's wishes. Out: programs to talk to it, a way to bring images and a way to reach services.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::wishes::{Kind, Wishes};
use crate::forward::Forward;
use crate::kubeconfig;
use crate::lab::Lab;
use crate::process::{self, Bound, wait_for};

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
    wishes: Wishes,
    kubeconfig: PathBuf,
    folder: PathBuf,
}

impl Foreign {
    /// Finds it; `folder` takes the kubeconfig that kind or k3d print.
    pub fn find(wishes: &Wishes, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let printed = |command: &mut Command| -> Result<PathBuf> {
            let path = folder.join("demo.kubeconfig");
            let content = process::output(command)?;
            // It holds somebody's credentials.
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            file.write_all(content.as_bytes())?;
            Ok(path)
        };
        let name = &wishes.name;
        let kubeconfig = match wishes.kind {
            Kind::Kind => printed(Command::new("kind").args(["get", "kubeconfig", "--name", name]))?,
            Kind::K3d => printed(Command::new("k3d").args(["kubeconfig", "get", name]))?,
            Kind::Lab | Kind::Kubeconfig => wishes.kubeconfig.clone().context("KUBECONFIG is not set")?,
        };
        Ok(Self { wishes: wishes.clone(), kubeconfig, folder: folder.to_owned() })
    }

    /// The file by which it is reached.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The Prometheus that scrapes it.
    pub fn prometheus(&self) -> Option<String> {
        self.wishes.prometheus.clone()
    }

    /// Whether the demo can bring images to its nodes.
    pub fn brings_images(&self) -> bool {
        self.wishes.kind != Kind::Kubeconfig || self.wishes.registry.is_some()
    }

    fn load_image(&self, archive: &Path, reference: &str) -> Result<String> {
        let archive = archive.display().to_string();
        match self.wishes.kind {
            Kind::Kind => {
                process::output(Command::new("kind").args([
                    "load",
                    "image-archive",
                    &archive,
                    "--name",
                    &self.wishes.name,
                ]))?;
            }
            Kind::K3d => {
                process::output(Command::new("k3d").args([
                    "image",
                    "import",
                    &archive,
                    "-c",
                    &self.wishes.name,
                ]))?;
            }
            Kind::Lab | Kind::Kubeconfig => {
                let Some(registry) = &self.wishes.registry else { return Ok(reference.to_owned()) };
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
    fn the_port_that_kubectl_chose_is_read() {
        let text = "Forwarding from 127.0.0.1:40123 -> 8000\nForwarding from [::1]:40123 -> 8000\n";
        assert_eq!(local_port(text), Some(40123));
        assert_eq!(local_port("error: no pods"), None);
    }
}
