//! Brings a lab up, heals one that lost processes, and checks one that runs: the same steps in every case, each of
//! which does nothing where nothing is to be done.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::Api;

use super::settings::{Card, Settings};
use super::site::{self, ConfigFile, Site, identity};
use super::{Lab, cgroups, containerd, device_plugin, dns, down, kubelet, monitoring, network, node};
use crate::addresses::{
    API_SERVER, CONTROLLER_MANAGER, DNS_READY, ETCD_METRICS, NODE_NAME, PROMETHEUS, SCHEDULER,
};
use crate::control_plane::{self, ADMIN, arguments, configuration, free_ports};
use crate::image::Image;
use crate::paths::{Cache, LabPaths, ensure_visible};
use crate::process::{ensure_root, output, wait_for};
use crate::progress::Progress;
use crate::supervisor::client::Supervisor;
use crate::supervisor::protocol::{Network, Spec};
use crate::tools::Tools;
use crate::{certs, discovery, kubeconfig, packages, provisioner, web};

/// Every step is done within seconds on an idle machine; on one that compiles, later.
const PATIENCE: Duration = Duration::from_secs(120);
/// Who applies the manifests.
const FIELD_MANAGER: &str = "--field-manager=lab";
/// The forwarders' process and subcommand.
pub const FORWARDER: &str = "forwarder";

/// What a person may choose.
#[derive(Clone, Debug)]
pub struct Options {
    /// The lab's name.
    pub name: String,
    /// The card to simulate; if none is given, the lab's own or the default.
    pub card: Option<Card>,
    /// The program `lab`, which the lab's own processes are started from.
    pub program: std::path::PathBuf,
}

/// Brings it up and says what it does.
pub async fn up(options: &Options) -> Result<Lab> {
    let cache = Cache::from_env()?;
    let paths = cache.lab(&options.name)?;
    check(&options.program)?;
    let tools = Tools::locate(&cache)?;
    let progress = Progress::start(&format!("Starting the lab {:?}", paths.name()));
    packages::ensure(&packages::of_a_node(), |what| progress.note(what)).await?;
    tools.ensure_for_lab().await?;

    let _lock = down::lock(&paths).await?;
    let supervisor =
        progress.step("namespaces and network", None, supervisor(&paths, &options.program)).await?;
    let settings = choose(&paths, &supervisor, options.card.clone())?;
    let pki = certs::publish(&paths.pki(), &site::identities())?;
    let site = Site { paths: &paths, tools: &tools, pki };
    configure(&site, &settings)?;

    let start =
        Start { site: &site, supervisor: &supervisor, settings: &settings, program: &options.program };
    start.launch(containerd::process(&site)?)?;
    start.launch(site.tool("etcd", arguments::etcd(&site.plan(), Some(ETCD_METRICS))))?;
    start.launch(site.tool("kube-apiserver", arguments::api_server(&site.plan())))?;
    start.launch(start.forwarder())?;
    progress.step("etcd, API server", None, start.api_server()).await?;
    start.launch_controllers()?;
    progress.step("containerd", None, start.containerd()).await?;
    start.launch(kubelet::process(&site))?;
    start.launch(device_plugin::process(&site, settings.card.count))?;
    progress.step("objects of the cluster", None, start.objects()).await?;
    start.launch(network::process(&site))?;
    start.launch(dns::process(&site))?;
    start.launch(provisioner::process(&site, &options.program))?;
    start.launch(discovery::process(&site, &options.program))?;
    start.launch(monitoring::process(&site)?)?;
    progress.step("node with its cards", None, start.node()).await?;
    progress.step("names, volumes, metrics", None, start.services()).await?;

    progress.finish("The lab is up");
    Ok(Lab { paths, tools, settings, supervisor })
}

/// What prevents every lab on this machine is said before anything is built for one.
pub fn check(program: &Path) -> Result<()> {
    ensure_visible(program, "clone the repository elsewhere, or set CARGO_TARGET_DIR")?;
    ensure_root("a lab makes network namespaces, mounts and control groups")
}

async fn supervisor(paths: &LabPaths, program: &Path) -> Result<Supervisor> {
    if let Some(supervisor) = Supervisor::find(paths) {
        return Ok(supervisor);
    }
    // One that does not answer is of no use, and must not get a sibling.
    crate::supervisor::client::kill_all(paths).await?;
    let volatile = containerd::volatile(paths);
    if volatile.exists() {
        fs::remove_dir_all(volatile)?;
    }
    Supervisor::start(paths, program).await
}

/// The lab's own settings, or new ones. A port that was taken while the lab was dead is chosen anew.
fn choose(paths: &LabPaths, supervisor: &Supervisor, card: Option<Card>) -> Result<Settings> {
    let known = Settings::read(paths)?;
    let forwarding = supervisor.check(paths, FORWARDER).is_ok();
    if let (Some(known), true) = (&known, forwarding) {
        ensure!(
            card.as_ref().is_none_or(|card| *card == known.card),
            "the lab runs with {} × {}: take it down to have another card",
            known.card.count,
            known.card.product
        );
        return Ok(known.clone());
    }
    let [api_server, prometheus] = free_ports()?;
    let kept = |port: u16| {
        std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).is_ok().then_some(port)
    };
    let settings = Settings {
        card: card.or(known.as_ref().map(|known| known.card.clone())).unwrap_or_default(),
        api_server_port: known
            .as_ref()
            .and_then(|known| kept(known.api_server_port))
            .unwrap_or(api_server.port()),
        prometheus_port: known
            .as_ref()
            .and_then(|known| kept(known.prometheus_port))
            .unwrap_or(prometheus.port()),
    };
    settings.write(paths)?;
    Ok(settings)
}

fn configure(site: &Site<'_>, settings: &Settings) -> Result<()> {
    configuration::write(&site.plan())?;
    let inside = format!("https://{API_SERVER}");
    let users = [
        ADMIN,
        "controller-manager",
        "scheduler",
        identity::KUBELET,
        identity::KUBE_PROXY,
        identity::DNS,
        identity::PROVISIONER,
        identity::DISCOVERY,
    ];
    for user in users {
        kubeconfig::write(&site.paths.inside_kubeconfig(user), &inside, &site.pki, user)?;
    }
    let outside = format!("https://{}", settings.api_server());
    kubeconfig::write(&site.paths.kubeconfig(), &outside, &site.pki, ADMIN)?;
    let files: [Vec<ConfigFile>; 5] = [
        containerd::files(site),
        kubelet::files(site),
        network::files(site),
        dns::files(site),
        monitoring::files(site),
    ];
    for (path, text) in files.into_iter().flatten() {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    cgroups::make(Path::new(cgroups::MOUNTED), &site.paths.cgroup())
}

struct Start<'a> {
    site: &'a Site<'a>,
    supervisor: &'a Supervisor,
    settings: &'a Settings,
    program: &'a Path,
}

impl Start<'_> {
    fn launch(&self, spec: Spec) -> Result<()> {
        self.supervisor.launch(spec)
    }

    fn forwarder(&self) -> Spec {
        let pairs =
            Lab::standing_forwards(self.settings).map(|(listen, target)| format!("{listen}={target}"));
        let arguments = [vec![FORWARDER.to_owned()], pairs.to_vec()].concat();
        Spec { network: Network::Host, ..self.site.process(FORWARDER, self.program, arguments) }
    }

    fn launch_controllers(&self) -> Result<()> {
        let plan = self.site.plan();
        let config = |user: &str| self.site.paths.inside_kubeconfig(user);
        let manager =
            arguments::controller_manager(&plan, &config("controller-manager"), Some(CONTROLLER_MANAGER));
        self.launch(self.site.tool("kube-controller-manager", manager))?;
        let scheduler = arguments::scheduler(&plan, &config("scheduler"), SCHEDULER);
        self.launch(self.site.tool("kube-scheduler", scheduler))
    }

    /// Waits, but not for what can no longer come because one of `processes` has ended.
    async fn wait(
        &self,
        what: &str,
        processes: &[&str],
        mut done: impl AsyncFnMut() -> Result<()>,
    ) -> Result<()> {
        let mut ended = Ok(());
        wait_for(what, PATIENCE, async || {
            ended = processes.iter().try_for_each(|name| self.supervisor.check(self.site.paths, name));
            if ended.is_err() { Ok(()) } else { done().await }
        })
        .await?;
        ended
    }

    async fn client(&self) -> Result<kube::Client> {
        kubeconfig::client(&self.site.paths.kubeconfig()).await
    }

    async fn api_server(&self) -> Result<()> {
        let client = self.client().await?;
        let processes = ["etcd", "kube-apiserver", FORWARDER];
        self.wait("the API server", &processes, async || control_plane::ready(&client).await).await
    }

    async fn containerd(&self) -> Result<()> {
        let paths = self.site.paths;
        self.wait("containerd", &[containerd::NAME], async || {
            output(containerd::ctr(paths).arg("version")).map(drop)
        })
        .await?;
        let known = output(containerd::ctr(paths).args(["images", "list", "-q"]))?;
        if known.lines().any(|image| image == containerd::PAUSE_IMAGE) {
            return Ok(());
        }
        let mut pause = Image::busybox(containerd::PAUSE_IMAGE)?;
        pause.entrypoint = ["/bin/sleep", "2147483647"].map(str::to_owned).to_vec();
        let archive = paths.join("pause.tar");
        pause.write(&archive)?;
        containerd::import(paths, &archive)
    }

    async fn objects(&self) -> Result<()> {
        self.apply(include_str!("../../lab/manifests/cluster.yaml"))
    }

    fn kubectl(&self) -> Command {
        let mut command = Command::new(self.site.tools.path("kubectl"));
        command.env("KUBECONFIG", self.site.paths.kubeconfig());
        command
    }

    fn apply(&self, manifests: &str) -> Result<()> {
        let aside = self.site.config("applied.yaml");
        fs::write(&aside, manifests)?;
        let mut command = self.kubectl();
        command.args(["apply", "--server-side", "--force-conflicts", FIELD_MANAGER, "--filename"]).arg(aside);
        output(command.stdin(Stdio::null())).map(drop)
    }

    async fn node(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client().await?);
        let processes = [kubelet::NAME, containerd::NAME, device_plugin::NAME];
        self.wait("the node to register", &processes, async || Ok(nodes.get(NODE_NAME).await.map(drop)?))
            .await?;
        self.apply(&node::labelled(&self.settings.card).to_string())?;
        let cards = self.settings.card.count.to_string();
        self.wait("the node to be ready", &processes, async || usable(&nodes.get(NODE_NAME).await?, &cards))
            .await
    }

    async fn services(&self) -> Result<()> {
        let network = self.supervisor.network();
        let processes =
            [dns::NAME, network::KUBE_PROXY, provisioner::NAME, discovery::NAME, monitoring::NAME];
        let listen = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        for (target, path) in [(DNS_READY, "/ready"), (PROMETHEUS, "/-/ready")] {
            let forward = crate::forward::Forward::start(network.clone(), listen, target)?;
            let url = format!("http://{}{path}", forward.local());
            self.wait(path, &processes, async || {
                web::get(&url).await?.error_for_status()?;
                Ok(())
            })
            .await?;
        }
        // Without it, the first pod of a person who is quick would be refused.
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, "default");
        self.wait("the first service account", &["kube-controller-manager"], async || {
            Ok(accounts.get("default").await.map(drop)?)
        })
        .await
    }
}

/// Whether the node takes pods and offers all its cards.
fn usable(node: &Node, cards: &str) -> Result<()> {
    let status = node.status.as_ref().context("the node has no status")?;
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    let ready = ready.context("the node has not said whether it is ready")?;
    if ready.status != "True" {
        bail!("{}", ready.message.clone().unwrap_or_default());
    }
    let tainted =
        node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).is_some_and(|taints| !taints.is_empty());
    ensure!(!tainted, "the node is still tainted");
    let offered = status.allocatable.as_ref().and_then(|resources| resources.get(device_plugin::RESOURCE));
    let offered = offered.map_or("no", |quantity| &quantity.0);
    ensure!(offered == cards, "the node offers {offered} cards instead of {cards}");
    Ok(())
}
