//! Control planes side by side: etcd and an API server on free loopback ports, without a kubelet.
//!
//! For tests of schemas, permissions and controllers. Everything is real (TLS, RBAC, Pod Security) but nothing runs
//! pods. What a test starts ends with it, also when it panics or is killed.

pub mod arguments;
pub mod configuration;
mod trouble;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::certs::{self, Identity};
use crate::kubeconfig;
use crate::paths::Cache;
use crate::process::{self, Bound, wait_for};
use crate::tools::Tools;
use arguments::Plan;

/// A start takes 4 s on an idle machine; tests that compile at the same time make it slower.
const START_LIMIT: Duration = Duration::from_secs(90);
/// Another program may take a port between the moment it was found free and the moment it is used.
const ATTEMPTS: u32 = 3;

/// A running control plane. Dropping it ends its processes and removes its folder.
#[derive(Debug)]
pub struct ControlPlane {
    // Fields are dropped in this order: first the clients of the API server, then it, then etcd, then the folder.
    controller_manager: Option<Mutex<Bound>>,
    api_server: Mutex<Bound>,
    etcd: Mutex<Bound>,
    plan: Plan,
    folder: Folder,
    tools: Tools,
    url: String,
    token: String,
}

impl ControlPlane {
    /// etcd and an API server. Pods can be created, but nothing reacts to anything.
    pub async fn start() -> Result<Self> {
        Self::start_any(false).await
    }

    /// With the controller manager too: service accounts, garbage collection, namespace deletion.
    pub async fn start_with_controllers() -> Result<Self> {
        Self::start_any(true).await
    }

    async fn start_any(controllers: bool) -> Result<Self> {
        let tools = Tools::locate(&Cache::from_env()?)?;
        tools.ensure(&[ETCD, API_SERVER, "kubectl"]).await?;
        if controllers {
            tools.ensure(&[CONTROLLER_MANAGER]).await?;
        }
        let mut attempt = 1;
        loop {
            match Self::try_start(&tools, controllers).await {
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    async fn try_start(tools: &Tools, controllers: bool) -> Result<Self> {
        let folder = Folder::create()?;
        let [etcd, etcd_peer, api_server] = free_ports()?;
        let hosts = ["127.0.0.1", "localhost", "kubernetes.default.svc"];
        let pki = certs::publish(&folder.0.join("pki"), &identities(&hosts))?;
        let plan = Plan {
            pki,
            folder: folder.0.clone(),
            etcd,
            etcd_peer,
            api_server,
            advertised: None,
            controllers,
        };
        let token = configuration::write(&plan)?;
        let url = format!("https://{api_server}");
        let admin = folder.kubeconfig();
        kubeconfig::write(&admin, &url, &plan.pki, ADMIN)?;
        kubeconfig::write(&folder.etcd_kubeconfig(), &format!("https://{etcd}"), &plan.pki, "etcd-client")?;

        let mut etcd = spawn(tools, &folder.0, ETCD, arguments::etcd(&plan, None))?;
        let mut api_server = spawn(tools, &folder.0, API_SERVER, arguments::api_server(&plan))?;
        let client = kubeconfig::client(&admin).await?;
        let mut ended = Ok(());
        wait_for("the API server", START_LIMIT, async || {
            // A process that has ended will not get ready: stop waiting and say why.
            ended = etcd.check().and_then(|()| api_server.check());
            if ended.is_err() { Ok(()) } else { ready(&client).await }
        })
        .await?;
        ended?;
        let controller_manager = if controllers {
            let config = folder.0.join("config/controller-manager.kubeconfig");
            kubeconfig::write(&config, &url, &plan.pki, "controller-manager")?;
            let arguments = arguments::controller_manager(&plan, &config, None);
            Some(Mutex::new(spawn(tools, &folder.0, CONTROLLER_MANAGER, arguments)?))
        } else {
            None
        };
        Ok(Self {
            controller_manager,
            api_server: Mutex::new(api_server),
            etcd: Mutex::new(etcd),
            plan,
            folder,
            tools: tools.clone(),
            url,
            token,
        })
    }

    /// A client with all rights.
    pub async fn client(&self) -> Result<kube::Client> {
        kubeconfig::client(&self.kubeconfig()).await
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.kubeconfig()
    }

    /// A bearer token with all rights.
    pub fn admin_token(&self) -> &str {
        &self.token
    }

    /// Version by component, from the running processes.
    pub async fn versions(&self) -> Result<BTreeMap<&'static str, String>> {
        let mut versions = BTreeMap::new();
        versions.insert(API_SERVER, self.client().await?.apiserver_version().await?.git_version);
        let told = self.ask_etcd(http::Request::get("/version").body(Vec::new())?).await?;
        versions.insert(ETCD, told["etcdserver"].as_str().context("etcd tells no version")?.to_owned());
        let kubectl = self.run_kubectl(&["version", "--client", "--output=json"])?;
        let told: serde_json::Value = serde_json::from_str(&kubectl)?;
        let told = &told["clientVersion"]["gitVersion"];
        versions.insert("kubectl", told.as_str().context("kubectl tells no version")?.to_owned());
        Ok(versions)
    }

    /// Where the API server listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The authority that signed the API server's certificate.
    pub fn authority(&self) -> PathBuf {
        self.folder.0.join("pki/ca.crt")
    }

    /// The certificate and the key of a server at 127.0.0.1 that its authority signed, for a kubelet that a test plays.
    pub fn server_certificate(&self) -> (PathBuf, PathBuf) {
        let pki = self.folder.0.join("pki");
        (pki.join("scheduler-server.crt"), pki.join("scheduler-server.key"))
    }

    /// One line of JSON per request that was answered.
    pub fn audit_log(&self) -> PathBuf {
        self.folder.0.join(arguments::AUDIT_LOG)
    }

    /// A `kubectl` command for this control plane, to be given arguments.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.tools.path("kubectl"));
        command.env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// Runs `kubectl` and gives its standard output.
    pub fn run_kubectl(&self, arguments: &[&str]) -> Result<String> {
        process::output(self.kubectl().args(arguments))
    }
}

const ETCD: &str = "etcd";
const API_SERVER: &str = "kube-apiserver";
const CONTROLLER_MANAGER: &str = "kube-controller-manager";

fn spawn(tools: &Tools, folder: &Path, name: &'static str, arguments: Vec<String>) -> Result<Bound> {
    let mut command = Command::new(tools.path(name));
    command.args(arguments);
    Bound::spawn(name, command, folder.join("log").join(format!("{name}.log")))
}

/// The identity with all rights, among [`identities`].
pub const ADMIN: &str = "admin";

/// Everyone who needs a certificate in a control plane whose API server is known under `hosts`.
pub fn identities(hosts: &[&str]) -> Vec<Identity> {
    let local = ["127.0.0.1", "localhost"];
    vec![
        Identity::server("api-server", hosts),
        Identity::server("etcd", &local),
        Identity::server("controller-manager-server", &local),
        Identity::server("scheduler-server", &local),
        Identity::client("etcd-client", "api-server", &[]),
        Identity::client("api-server-kubelet", "api-server-kubelet", &["system:masters"]),
        Identity::client(ADMIN, ADMIN, &["system:masters"]),
        Identity::client("controller-manager", "system:kube-controller-manager", &[]),
        Identity::client("scheduler", "system:kube-scheduler", &[]),
    ]
}

/// Asks the API server whether all its start-up hooks are done.
pub async fn ready(client: &kube::Client) -> Result<()> {
    let request = http::Request::get("/readyz").body(Vec::new())?;
    client.request_text(request).await.map(drop).context("the API server is not ready")
}

/// Ports on loopback that nobody uses now. They are found together, so that they differ.
pub(crate) fn free_ports<const N: usize>() -> Result<[SocketAddr; N]> {
    let listeners: Vec<_> = (0..N)
        .map(|_| TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)))
        .collect::<std::io::Result<_>>()?;
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<std::io::Result<Vec<_>>>()?;
    Ok(addresses.try_into().expect("as many addresses as listeners"))
}

/// A folder in the system's temporary folder, removed on drop or by a later program.
#[derive(Debug)]
struct Folder(PathBuf);

const FOLDER_PREFIX: &str = "llm-fleet-control-plane-";

impl Folder {
    fn create() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        sweep(&std::env::temp_dir());
        let name = format!("{FOLDER_PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(folder.join("log"))?;
        Ok(Self(folder))
    }

    fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    /// etcd is asked for its version over HTTP, with the API server's certificate.
    fn etcd_kubeconfig(&self) -> PathBuf {
        self.0.join("config/etcd.kubeconfig")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next program that starts a control plane.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Removes the folders of programs that were killed.
fn sweep(temporary: &Path) {
    let Ok(entries) = std::fs::read_dir(temporary) else { return };
    for entry in entries.flatten() {
        if owner(&entry.file_name().to_string_lossy())
            .is_some_and(|pid| !Path::new("/proc").join(pid).exists())
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn owner(folder: &str) -> Option<&str> {
    folder.strip_prefix(FOLDER_PREFIX)?.split('-').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ() {
        let [a, b, c] = free_ports().unwrap();
        assert!(a != b && b != c && a != c);
    }

    #[test]
    fn only_folders_of_programs_that_ended_are_swept() {
        let temporary = tempfile::tempdir().unwrap();
        let make = |name: String| {
            let folder = temporary.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            folder
        };
        let ours = make(format!("{FOLDER_PREFIX}{}-0", std::process::id()));
        // The kernel gives no process an id above 2^22.
        let left = make(format!("{FOLDER_PREFIX}4194999-0"));
        let strange = make("something-else".to_owned());
        sweep(temporary.path());
        assert!(ours.exists() && strange.exists() && !left.exists());
    }
}
