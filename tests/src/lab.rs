//! A lab: a whole Kubernetes of one node on this machine, in namespaces of its own.
//!
//! In: a name and a simulated card. Out: a handle that gives clients, forwarders and images' way in. What brings it up
//! and down is in [`up`] and [`down`]; each component's configuration is a module of its own, pure but for [`up`].

pub mod cgroups;
pub mod containerd;
pub mod device_plugin;
pub mod dns;
pub mod down;
pub mod kubelet;
pub mod monitoring;
pub mod network;
pub mod node;
pub mod packets;
pub mod settings;
pub mod site;
pub mod status;
pub mod up;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::addresses::{API_SERVER, PROMETHEUS};
use crate::control_plane::ADMIN;
use crate::control_plane::arguments::AUDIT_LOG;
use crate::forward::Forward;
use crate::kubeconfig;
use crate::paths::{Cache, LabPaths};
use crate::process::output;
use crate::supervisor::client::Supervisor;
use crate::tools::Tools;
use settings::Settings;

/// The lab that is meant when nothing is said.
pub const DEFAULT_NAME: &str = "default";

/// A lab that runs.
#[derive(Clone, Debug)]
pub struct Lab {
    paths: LabPaths,
    tools: Tools,
    settings: Settings,
    supervisor: Supervisor,
}

impl Lab {
    /// The running lab `name`.
    pub fn open(name: &str) -> Result<Self> {
        let cache = Cache::from_env()?;
        let paths = cache.lab(name)?;
        let supervisor = Supervisor::find(&paths).with_context(|| {
            format!("the lab {name:?} does not run: start it with `lab up --name {name}`")
        })?;
        let settings =
            Settings::read(&paths)?.with_context(|| format!("the lab {name:?} is still starting"))?;
        Ok(Self { tools: Tools::locate(&cache)?, paths, settings, supervisor })
    }

    /// Where its files are.
    pub fn paths(&self) -> &LabPaths {
        &self.paths
    }

    /// The programs it uses, for tests to use too.
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// What it was started with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its first process.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// The administrator's kubeconfig, for this machine.
    pub fn kubeconfig(&self) -> PathBuf {
        self.paths.kubeconfig()
    }

    /// One line of JSON per request that the API server has answered.
    pub fn audit_log(&self) -> PathBuf {
        self.paths.join(AUDIT_LOG)
    }

    /// A client with all rights.
    pub async fn client(&self) -> Result<kube::Client> {
        kubeconfig::client(&self.kubeconfig()).await
    }

    /// A `kubectl` command for this lab, to be given arguments.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.tools.path("kubectl"));
        command.env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// Runs `kubectl` and gives its standard output.
    pub fn run_kubectl(&self, arguments: &[&str]) -> Result<String> {
        output(self.kubectl().args(arguments))
    }

    /// A `helm` command for this lab, to be given arguments.
    pub fn helm(&self) -> Command {
        let mut command = Command::new(self.tools.path("helm"));
        command.env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// Prometheus, as this machine reaches it.
    pub fn prometheus_url(&self) -> String {
        format!("http://{}", self.settings.prometheus())
    }

    /// The API server, as this machine reaches it.
    pub fn api_server_url(&self) -> String {
        format!("https://{}", self.settings.api_server())
    }

    /// What is forwarded from this machine's loopback as long as the lab runs.
    pub fn standing_forwards(settings: &Settings) -> [(SocketAddr, SocketAddr); 2] {
        [(settings.api_server(), API_SERVER), (settings.prometheus(), PROMETHEUS)]
    }

    /// Imports a docker-archive, as `buildah push IMAGE docker-archive:FILE:NAME` and [`crate::image`] write it.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        ensure!(archive.is_file(), "there is no file {}", archive.display());
        containerd::import(&self.paths, archive)
    }

    /// Gives an image another name; both stay.
    pub fn tag_image(&self, name: &str, other: &str) -> Result<()> {
        containerd::tag(&self.paths, name, other)
    }

    /// Starts a process of the lab's own, such as a file server for its pods, which reach it at
    /// [`crate::addresses::NODE`]. It ends with the lab at the latest; [`Supervisor::signal`] ends it earlier.
    pub fn launch(&self, name: &str, program: &Path, arguments: Vec<String>) -> Result<()> {
        self.supervisor.launch(site::process(&self.paths, &self.tools, (name, program, arguments)))
    }

    /// A command that runs `program` in the lab's network, with its kubeconfig and the tools in its `PATH`.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let mut network = std::ffi::OsString::from("--net=");
        network.push(self.supervisor.network());
        command.arg(network).arg("--").arg(program);
        command.env("KUBECONFIG", self.paths.inside_kubeconfig(ADMIN)).env("PATH", self.tools.search_path());
        command
    }

    /// Listens on `listen` of this machine (port 0: any free one) and forwards to `target` inside the lab, until the
    /// handle is dropped. `target` is `ADDRESS:PORT` or `NAMESPACE/SERVICE:PORT`.
    pub async fn forward(&self, target: &str, listen: SocketAddr) -> Result<Forward> {
        Forward::start(self.supervisor.network(), listen, self.resolve(target).await?)
    }

    async fn resolve(&self, target: &str) -> Result<SocketAddr> {
        if let Ok(address) = target.parse() {
            return Ok(address);
        }
        let (namespace, name, port) = service(target)
            .with_context(|| format!("{target:?} is neither ADDRESS:PORT nor NAMESPACE/SERVICE:PORT"))?;
        let services: kube::Api<k8s_openapi::api::core::v1::Service> =
            kube::Api::namespaced(self.client().await?, namespace);
        let spec = services.get(name).await?.spec.unwrap_or_default();
        let Some(Ok(address)) = spec.cluster_ip.as_deref().map(str::parse) else {
            bail!("the service {namespace}/{name} has no cluster address");
        };
        Ok(SocketAddr::new(address, port))
    }
}

fn service(target: &str) -> Option<(&str, &str, u16)> {
    let (namespace, rest) = target.split_once('/')?;
    let (name, port) = rest.split_once(':')?;
    Some((namespace, name, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_with_namespace_and_port() {
        assert_eq!(service("demo/llm:8000"), Some(("demo", "llm", 8000)));
        assert_eq!(service("llm:8000"), None);
        assert_eq!(service("demo/llm:http"), None);
    }
}
