//! A lab does what a cluster does, does not touch the machine's network or settings, and leaves nothing behind, however it ends.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e::addresses::DNS_SERVICE;
use e2e::image::Image;
use e2e::lab::up::Options;
use e2e::lab::{Lab, device_plugin, down, packets, up};
use e2e::paths::{Cache, LabPaths};
use e2e::process::{output, wait_for};
use e2e::supervisor::client::Supervisor;
use e2e::supervisor::namespaces::TUNABLES;
use e2e::tools::Tools;
use e2e::traces::{Host, Namespaces, left};
use e2e::{packages, web};
use nix::sys::signal::{Signal, kill};

const PROGRAM: &str = env!("CARGO_BIN_EXE_lab");
const PATIENCE: Duration = Duration::from_secs(120);
const TIMEOUT: &str = "--timeout=120s";

/// Ends the lab also when the test fails.
struct Ended(LabPaths);

impl Drop for Ended {
    fn drop(&mut self) {
        output(Command::new(PROGRAM).args(["down", "--name", self.0.name()])).unwrap();
    }
}

fn paths(name: &str) -> LabPaths {
    Cache::from_env().unwrap().lab(name).unwrap()
}

/// What is installed and built once, so that no test measures or waits for it.
async fn prepare() {
    packages::ensure(&packages::of_a_node(), |what| println!("{what}")).await.unwrap();
    Tools::locate(&Cache::from_env().unwrap()).unwrap().ensure_for_lab().await.unwrap();
}

async fn start(name: &str) -> Lab {
    up::up(&Options { name: name.to_owned(), card: None, program: PathBuf::from(PROGRAM) }).await.unwrap()
}

#[tokio::test]
async fn a_lab_is_a_cluster_and_leaves_nothing() {
    prepare().await;
    let before = Host::now().unwrap();
    let guard = Ended(paths("test-leaves"));
    let lab = start("test-leaves").await;
    e2e::versions::print(&lab).await.unwrap();
    packets::count(&lab.supervisor().network()).unwrap();
    let archive = lab.paths().join("busybox.tar");
    Image::busybox("test.llmfleet.dev/busybox:1").unwrap().write(&archive).unwrap();
    lab.load_image(&archive).unwrap();
    let manifests = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/lab.yaml");
    lab.run_kubectl(&["apply", "-f", manifests]).unwrap();
    lab.run_kubectl(&["wait", "-n", "lab-test", "--for=condition=Ready", "pod/server", TIMEOUT]).unwrap();
    lab.run_kubectl(&["wait", "-n", "lab-test", "--for=condition=Ready", "pod/client", TIMEOUT]).unwrap();

    pods_see_their_card(&lab);
    services_have_names(&lab).await;
    attempts_are_counted(&lab);
    claims_have_their_size(&lab);
    privilege_is_refused(&lab);
    metrics_are_scraped(&lab).await;
    nothing_outside_is_touched(&lab, &before);

    let namespaces = Namespaces::of(lab.supervisor().pid()).unwrap();
    assert!(
        namespaces.members().unwrap().len() > 15,
        "components, shims and pods are in the lab's namespaces"
    );
    down::down(&guard.0).await.unwrap();
    // The machine's init reaps the lab's in its own time; until then it is listed, though it has ended.
    wait_for("the last zombie", PATIENCE, async || {
        let members = namespaces.members()?;
        anyhow::ensure!(members.is_empty(), "{members:?} are left");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(left(&guard.0).unwrap(), Vec::<String>::new());
    assert_eq!(Host::now().unwrap(), before);
}

fn pods_see_their_card(lab: &Lab) {
    let seen = lab.run_kubectl(&["logs", "-n", "lab-test", "server"]).unwrap();
    let cards = [0, 1].map(|index| device_plugin::uuid(lab.paths().name(), index));
    assert!(cards.contains(&seen.trim().to_owned()), "{seen:?} is none of {cards:?}");
}

async fn services_have_names(lab: &Lab) {
    let in_client =
        |command: &[&str]| lab.run_kubectl(&[&["exec", "-n", "lab-test", "client", "--"], command].concat());
    // A ready pod becomes reachable through its service, and by its name, a moment later.
    let fetched = wait_for("the service by its name", PATIENCE, async || {
        in_client(&["wget", "-qO-", "http://server.lab-test.svc.cluster.local/who"])
    });
    assert_eq!(fetched.await.unwrap(), "4711\n", "the server's own user, through a service");
    let forward = lab.forward("lab-test/server:80", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let answer = web::get(&format!("http://{}/who", forward.local())).await.unwrap().text().await.unwrap();
    assert_eq!(answer, "4711\n", "the same from this machine");
    // The resolver is asked and says no; that it cannot be reached would be another answer.
    let refused = in_client(&["sh", "-c", "nslookup example.com 2>&1 || true"]).unwrap();
    assert!(refused.contains("NXDOMAIN"), "{refused}");
}

/// The client asked for names and for the server; the server answered, and tried nothing.
fn attempts_are_counted(lab: &Lab) {
    let jsonpath = "-o=jsonpath={.status.podIP}";
    let address = |pod: &str| lab.run_kubectl(&["get", "pod", "-n", "lab-test", pod, jsonpath]).unwrap();
    let service = ["get", "service", "-n", "lab-test", "server", "-o=jsonpath={.spec.clusterIP}"];
    let service = lab.run_kubectl(&service).unwrap();
    // What goes nowhere is counted too.
    let script = "nc -w 1 203.0.113.9 7 < /dev/null || true";
    lab.run_kubectl(&["exec", "-n", "lab-test", "client", "--", "sh", "-c", script]).unwrap();
    let attempts = packets::attempts(&lab.supervisor().network()).unwrap();
    let of = |pod: &str| -> Vec<String> {
        let address: std::net::Ipv4Addr = address(pod).parse().unwrap();
        attempts.keys().filter(|(from, _)| *from == address).map(|(_, target)| target.to_string()).collect()
    };
    let nowhere = "tcp 203.0.113.9:7".to_owned();
    let expected = [format!("tcp {service}:80"), nowhere, format!("udp {DNS_SERVICE}:53")];
    assert_eq!(of("client"), expected);
    assert_eq!(of("server"), Vec::<String>::new());
}

fn claims_have_their_size(lab: &Lab) {
    let write = |mebibytes: u32| {
        let script = format!(
            "dd if=/dev/zero of=/data/big bs=1M count={mebibytes} 2>&1; wc -c < /data/big; rm /data/big"
        );
        lab.run_kubectl(&["exec", "-n", "lab-test", "server", "--", "sh", "-c", &script]).unwrap()
    };
    let fits = write(28);
    assert!(!fits.contains("No space left") && fits.contains(&(28 << 20).to_string()), "{fits}");
    let past = write(33);
    assert!(past.contains("No space left"), "{past}");
}

fn privilege_is_refused(lab: &Lab) {
    let overrides =
        r#"{"spec":{"containers":[{"name":"p","image":"x","securityContext":{"privileged":true}}]}}"#;
    let run = ["run", "p", "-n", "lab-test", "--image=x", "--restart=Never"];
    let arguments = [&run[..], &["--overrides", overrides]].concat();
    let refused = lab.run_kubectl(&arguments).unwrap_err().to_string();
    assert!(refused.contains("violates PodSecurity \"restricted"), "{refused}");
}

async fn metrics_are_scraped(lab: &Lab) {
    let url = format!("{}/api/v1/query?query=lab_test_metric", lab.prometheus_url());
    let labels = wait_for("a scrape", PATIENCE, async || {
        let found: serde_json::Value = web::get(&url).await?.json().await?;
        let labels = found["data"]["result"][0]["metric"].clone();
        anyhow::ensure!(!labels.is_null(), "{found}");
        Ok(labels)
    })
    .await
    .unwrap();
    assert_eq!(
        (&labels["namespace"], &labels["pod"], &labels["container"]),
        (&"lab-test".into(), &"server".into(), &"main".into())
    );
}

fn nothing_outside_is_touched(lab: &Lab, before: &Host) {
    assert_eq!(&Host::now().unwrap(), before, "while the lab runs");
    // Where the machine's settings are what a kubelet wants by chance, this shows that it could not have changed them.
    let inside = std::fs::read_to_string(format!("/proc/{}/mountinfo", lab.supervisor().pid())).unwrap();
    for (setting, _) in TUNABLES {
        assert!(inside.contains(&format!(" {setting} ")), "{setting} is not the lab's own");
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&lab.paths().root().to_string_lossy().into_owned()), "{mounts}");
}

/// `lab up` is killed at several moments: before there is a supervisor, and with more and more that is set up. With
/// every second one, the first process of the lab is killed too, and with it all others.
#[tokio::test]
async fn a_start_that_was_killed_leaves_nothing() {
    prepare().await;
    let before = Host::now().unwrap();
    let guard = Ended(paths("test-killed"));
    let moments: [fn(&LabPaths) -> bool; 5] = [
        |paths| paths.root().exists(),
        |paths| runs(paths, "etcd"),
        |paths| runs(paths, "kube-controller-manager"),
        |paths| runs(paths, "kubelet"),
        |paths| runs(paths, "provisioner"),
    ];
    for (index, moment) in moments.into_iter().enumerate() {
        let mut starting = spawn(&guard.0, "up");
        wait_for("the moment", PATIENCE, async || {
            anyhow::ensure!(moment(&guard.0), "it has not come");
            Ok(())
        })
        .await
        .unwrap();
        starting.kill().unwrap();
        starting.wait().unwrap();
        if let (1, Some(supervisor)) = (index % 2, Supervisor::find(&guard.0)) {
            kill(supervisor.pid(), Signal::SIGKILL).unwrap();
        }
        down::down(&guard.0).await.unwrap();
        assert_eq!(left(&guard.0).unwrap(), Vec::<String>::new());
        assert_eq!(Host::now().unwrap(), before);
    }
    // Down is fine with a lab that is not there.
    down::down(&guard.0).await.unwrap();
}

fn spawn(paths: &LabPaths, order: &str) -> Child {
    let mut command = Command::new(PROGRAM);
    command.args([order, "--name", paths.name()]).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn runs(paths: &LabPaths, name: &str) -> bool {
    Supervisor::find(paths).is_some_and(|supervisor| supervisor.check(paths, name).is_ok())
}

/// The first process is killed, which ends all; the next `up` brings the same cluster back, with pods and data.
#[tokio::test]
async fn a_lab_that_was_killed_is_healed() {
    prepare().await;
    let before = Host::now().unwrap();
    let guard = Ended(paths("test-heals"));
    let lab = start("test-heals").await;
    e2e::versions::print(&lab).await.unwrap();
    let archive = lab.paths().join("busybox.tar");
    Image::busybox("test.llmfleet.dev/busybox:1").unwrap().write(&archive).unwrap();
    lab.load_image(&archive).unwrap();
    let manifests = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/lab.yaml");
    lab.run_kubectl(&["apply", "-f", manifests]).unwrap();
    let ready = ["wait", "-n", "lab-test", "--for=condition=Ready", "pod/server", TIMEOUT];
    lab.run_kubectl(&ready).unwrap();
    let in_server = |lab: &Lab, script: &str| {
        lab.run_kubectl(&["exec", "-n", "lab-test", "server", "--", "sh", "-c", script])
    };
    in_server(&lab, "echo kept > /data/note").unwrap();

    kill(lab.supervisor().pid(), Signal::SIGKILL).unwrap();
    let lab = start("test-heals").await;
    let read =
        wait_for("the pod to run again", PATIENCE, async || in_server(&lab, "cat /data/note")).await.unwrap();
    assert_eq!(read, "kept\n");

    // A kubelet that ends takes nothing with it; a new one gets the cards offered again.
    lab.supervisor().signal("kubelet", Signal::SIGKILL).unwrap();
    let ended = wait_for("the kubelet to end", PATIENCE, async || {
        let runs = lab.supervisor().check(lab.paths(), "kubelet").is_ok();
        anyhow::ensure!(!runs, "it still runs");
        Ok(())
    });
    ended.await.unwrap();
    let lab = start("test-heals").await;
    lab.run_kubectl(&["delete", "pod", "-n", "lab-test", "server", "--now"]).unwrap();
    lab.run_kubectl(&["apply", "-f", manifests]).unwrap();
    lab.run_kubectl(&ready).unwrap();
    pods_see_their_card(&lab);
    assert_eq!(in_server(&lab, "cat /data/note").unwrap(), "kept\n");

    // Killed with pods, volumes and services; and what takes it down is killed too.
    kill(lab.supervisor().pid(), Signal::SIGKILL).unwrap();
    let mut stopping = spawn(&guard.0, "down");
    tokio::time::sleep(Duration::from_millis(100)).await;
    stopping.kill().unwrap();
    stopping.wait().unwrap();
    down::down(&guard.0).await.unwrap();
    assert_eq!(left(&guard.0).unwrap(), Vec::<String>::new());
    assert_eq!(Host::now().unwrap(), before);
}
