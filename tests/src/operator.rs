//! The operator as a process against a control plane, without a cluster around it.
//!
//! In: the rendered chart, whose rights it gets, and a control plane. Out: processes that can be asked and signalled.
//! What each does is told apart in the audit log by a user name of its own.

pub mod audit;
pub mod kubelet;
pub mod rights;
pub mod scene;
pub mod stage;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, PostParams};
use kube::{Client, Resource};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, free_ports};
use crate::faults::proxy::Proxy;
use crate::paths::repository;
use crate::process::{Bound, last_lines, output, wait_for};
use crate::{crds, kubeconfig, web};
use audit::Call;
use contract::http::{METRICS, READYZ};
use rights::{Right, Rights};
use scene::Scene;

/// The image that jobs and pods without cards name. Nothing pulls it where there is no kubelet.
pub const RUNTIME_IMAGE: &str = "registry.invalid/llm-fleet-runtime:test";
/// The image that pods with cards name.
pub const CUDA_IMAGE: &str = "registry.invalid/llm-fleet-runtime-cuda:test";
/// Name of the lease, as the chart's rights want it.
pub const LEASE: &str = "llm-fleet";
/// Namespace of the lease, as the chart was rendered for.
pub const LEASE_NAMESPACE: &str = crate::install::NAMESPACE;
/// How long a process may take to list everything, and a namespace to get its account.
const READY: Duration = Duration::from_secs(60);
/// How much of a log is shown when a test fails.
const SHOWN_LINES: usize = 20;
/// Every operator is of this group, which has the chart's rights and no others.
const GROUP: &str = "llm-fleet-operators";

/// How an operator is started.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    /// Its user name, and its name in the lease.
    pub identity: &'a str,
    /// Where it finds the API server, if not where that is: the address of a proxy.
    pub server: Option<String>,
    /// Where it keeps its lease; see [`Site::allow_lease`].
    pub lease_namespace: &'a str,
    /// More arguments.
    pub more: &'a [&'a str],
}

impl<'a> Launch<'a> {
    /// As the chart starts it.
    #[must_use]
    pub const fn new(identity: &'a str, more: &'a [&'a str]) -> Self {
        Self { identity, server: None, lease_namespace: LEASE_NAMESPACE, more }
    }
}

/// A control plane that the chart's kinds and rights are installed in.
#[derive(Debug)]
pub struct Site {
    /// The control plane.
    pub plane: ControlPlane,
    rights: Rights,
    program: PathBuf,
}

impl Site {
    /// Starts a control plane with controllers; `rendered` is a file of `deploy/rendered`.
    pub async fn start(rendered: &str) -> Result<Self> {
        let program = program()?;
        let plane = ControlPlane::start_with_controllers().await?;
        let client = plane.client().await?;
        println!("{}: {:?}", plane.url(), plane.versions().await?);
        crds::install(&client).await?;
        let manifest = repository().join("deploy/rendered").join(rendered);
        let rights = Rights::read(&std::fs::read_to_string(manifest)?)?;
        let site = Self { plane, rights, program };
        for namespace in site.rights.namespaces() {
            site.namespace(&client, &namespace).await?;
        }
        site.apply("rights", &site.rights.bound_to(GROUP))?;
        Ok(site)
    }

    fn folder(&self) -> Result<PathBuf> {
        Ok(self.plane.kubeconfig().parent().context("a kubeconfig lies in a folder")?.to_owned())
    }

    /// Makes a namespace that enforces Pod Security `restricted`, and waits until pods can be made in it.
    pub async fn namespace(&self, client: &Client, name: &str) -> Result<()> {
        let namespace: Namespace = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "pod-security.kubernetes.io/enforce": "restricted" } },
        }))?;
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
        wait_for("the account of a namespace", READY, async || Ok(accounts.get("default").await.map(drop)?))
            .await
    }

    /// What a test does in one namespace, with an operator that looks after it.
    pub async fn scene<'a>(&'a self, operator: &'a Operator, namespace: &str) -> Result<Scene<'a>> {
        Ok(Scene {
            client: self.plane.client().await?,
            site: self,
            operator,
            namespace: namespace.to_owned(),
        })
    }

    /// Starts an operator under a user name of its own and waits until it has listed everything.
    pub async fn operator(&self, identity: &str, more: &[&str]) -> Result<Operator> {
        self.launch(&Launch::new(identity, more)).await
    }

    /// A proxy for an operator of this control plane.
    pub async fn proxy(&self) -> Result<Proxy> {
        Proxy::start(kubeconfig::config(&self.plane.kubeconfig()).await?).await
    }

    /// Lets operators keep their lease in this namespace too, with the rights that the chart gives them in its own.
    pub async fn allow_lease(&self, namespace: &str) -> Result<()> {
        let rights = self.rights.moved(LEASE_NAMESPACE, namespace).bound_to(GROUP);
        self.apply(&format!("rights-{namespace}"), &rights)
    }

    fn apply(&self, name: &str, objects: &[Value]) -> Result<()> {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        let file = self.folder()?.join(format!("{name}.json"));
        std::fs::write(&file, list.to_string())?;
        self.plane.run_kubectl(&["apply", "-f", &file.to_string_lossy()]).map(drop)
    }

    /// Starts an operator and waits until it has listed everything.
    pub async fn launch(&self, launch: &Launch<'_>) -> Result<Operator> {
        let Launch { identity, server, lease_namespace, more } = launch;
        let folder = self.folder()?;
        let kubeconfig = folder.join(format!("{identity}.kubeconfig"));
        let mut config: Value = serde_norway::from_str(&std::fs::read_to_string(self.plane.kubeconfig())?)?;
        if let Some(server) = server {
            // A proxy has rights of its own.
            config["clusters"][0]["cluster"] = json!({ "server": server });
            config["users"][0]["user"] = json!({});
        }
        let user = &mut config["users"][0]["user"];
        user["as"] = json!(identity);
        user["as-groups"] = json!([GROUP]);
        std::fs::write(&kubeconfig, serde_norway::to_string(&config)?)?;

        let [admin] = free_ports()?;
        let log = folder.join(format!("{identity}.log"));
        let mut command = Command::new(&self.program);
        command.env("KUBECONFIG", &kubeconfig).env("NO_COLOR", "1").env_remove("RUST_LOG").args([
            "run",
            "--log-format=text",
            "--admin-host=127.0.0.1",
            &format!("--leader-election-id={LEASE}"),
            &format!("--leader-election-namespace={lease_namespace}"),
            &format!("--admin-port={}", admin.port()),
            &format!("--identity={identity}"),
            &format!("--runtime-image={RUNTIME_IMAGE}"),
            &format!("--runtime-cuda-image={CUDA_IMAGE}"),
        ]);
        command.args(*more);
        let process = Bound::spawn("llm-fleet-operator", command, log.clone())?;
        let mut operator = Operator { identity: (*identity).to_owned(), process, admin, log };
        wait_for("the operator", READY, async || {
            operator.process.check()?;
            operator.get(READYZ).await.map(drop)
        })
        .await
        .with_context(|| operator.last_lines())?;
        Ok(operator)
    }

    /// The calls of all operators whose name begins so.
    pub fn calls(&self, identity: &str) -> Result<Vec<Call>> {
        audit::calls(&self.plane.audit_log(), identity)
    }

    /// Fails if an operator did what the chart gives it no right to. Gives the rights that nobody needed.
    pub fn check_rights(&self) -> Result<Vec<Right>> {
        let calls = self.calls("operator")?;
        rights::check(&self.rights, &calls)
    }
}

/// Builds the program, unless it is up to date, and says where it is.
///
/// It is built with the features that the whole workspace asks for, as tests are: another set would be compiled anew.
fn program() -> Result<PathBuf> {
    let mut build = Command::new(env!("CARGO"));
    // What Cargo tells a test of its package would look like a change to build scripts that ask for it.
    let of_package = |name: &String| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for name in std::env::vars().map(|(name, _)| name).filter(of_package) {
        build.env_remove(name);
    }
    build.current_dir(repository()).args(["build", "--quiet", "--workspace", "--bin", "llm-fleet-operator"]);
    output(&mut build)?;
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(Path::parent).context("tests lie in target/debug/deps")?;
    Ok(folder.join("llm-fleet-operator"))
}

/// A running operator. Dropping it kills it.
#[derive(Debug)]
pub struct Operator {
    /// Its name in the lease, up to a suffix of its own, and in the audit log.
    pub identity: String,
    process: Bound,
    admin: SocketAddr,
    log: PathBuf,
}

impl Operator {
    /// Body of one of its pages.
    pub async fn get(&self, path: &str) -> Result<String> {
        let response = web::get(&format!("http://{}{path}", self.admin)).await?;
        let status = response.status();
        let body = response.text().await?;
        ensure!(status.is_success(), "{path}: {status}: {body}");
        Ok(body)
    }

    /// Sum of all series of a metric.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let page = self.get(METRICS).await?;
        let of_metric =
            |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let values = page.lines().filter(of_metric).filter_map(|line| line.rsplit(' ').next());
        Ok(values.filter_map(|value| value.parse::<f64>().ok()).fold(0.0, |sum, value| sum + value))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.process.pid().try_into()?), signal)?)
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.process.exited().is_some()
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let process = &mut self.process;
        wait_for("the operator to end", limit, async || process.exited().context("it still runs")).await
    }

    /// Its first words, with its version.
    pub fn first_line(&self) -> Result<String> {
        let log = std::fs::read_to_string(&self.log)?;
        Ok(log.lines().next().unwrap_or_default().to_owned())
    }

    /// Its last words.
    #[must_use]
    pub fn last_lines(&self) -> String {
        last_lines(&self.log)
    }

    /// The last of what it said about a namespace.
    #[must_use]
    pub fn about(&self, namespace: &str) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(namespace)).collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

/// Whether an object is owned by this very owner, and goes with it.
pub fn is_owned(object: &impl Resource, owner: &impl Resource) -> bool {
    let uid = owner.meta().uid.as_ref();
    let owners = object.meta().owner_references.iter().flatten();
    uid.is_some() && owners.into_iter().any(|o| Some(&o.uid) == uid && o.controller == Some(true))
}
