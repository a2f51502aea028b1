//! What a lab could leave on this machine. For tests: compared before, during and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::lab::cgroups;
use crate::lab::down::loop_devices;
use crate::paths::{KEPT, LabPaths, VOLATILE};
use crate::process::output;
use crate::supervisor::namespaces::TUNABLES;

/// Both kinds of packet filters that old tools may fill, for both families.
const FILTERS: [&str; 4] =
    ["iptables-save", "iptables-legacy-save", "ip6tables-save", "ip6tables-legacy-save"];
/// What kubelets, proxies and CNI plug-ins switch in the network where it is not like this; missing without a module.
const NETWORK_SETTINGS: [&str; 6] = [
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv4/conf/all/forwarding",
    "/proc/sys/net/ipv4/conf/all/route_localnet",
    "/proc/sys/net/ipv6/conf/all/forwarding",
    "/proc/sys/net/bridge/bridge-nf-call-iptables",
    "/proc/sys/net/netfilter/nf_conntrack_max",
];
/// Where kubelets, containerd and CNI plug-ins keep what they make, on a machine that is a node.
const FOLDERS: [&str; 14] = [
    "/etc/cni",
    "/etc/kubernetes",
    "/opt/cni",
    "/opt/containerd",
    "/run/containerd",
    "/run/flannel",
    "/run/kubernetes",
    "/run/netns",
    "/usr/libexec/kubernetes",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
];

/// What a lab must not change even while it runs: the machine's network as it is configured, kernel settings, and the
/// places where a node keeps its files and mounts.
#[derive(Debug, Eq, PartialEq)]
pub struct Host {
    links: String,
    addresses: String,
    routes: String,
    rules: String,
    nftables: String,
    iptables: Vec<String>,
    settings: Vec<(&'static str, Option<String>)>,
    folders: Vec<(&'static str, Vec<PathBuf>)>,
    mounts: Vec<String>,
}

impl Host {
    /// As it is now.
    pub fn now() -> Result<Self> {
        let ip = |arguments: &[&str]| output(Command::new("ip").args(arguments));
        // Beside the names stand counters and states that change by themselves.
        let links = words(&ip(&["-o", "link", "show"])?, &[1]);
        let settings = TUNABLES.iter().map(|(setting, _)| *setting).chain(NETWORK_SETTINGS);
        let filters = FILTERS.iter().map(|program| Ok(lasting_rules(&output(&mut Command::new(program))?)));
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(Self {
            links,
            addresses: words(&ip(&["-o", "address", "show"])?, &[1, 3]),
            routes: lasting_routes(&ip(&["route", "show", "table", "all"])?),
            rules: ip(&["rule", "show"])? + &ip(&["-6", "rule", "show"])?,
            nftables: output(Command::new("nft").args(["--stateless", "list", "ruleset"]))?,
            iptables: filters.collect::<Result<_>>()?,
            settings: settings.map(|name| (name, fs::read_to_string(name).ok())).collect(),
            folders: FOLDERS.map(|folder| (folder, entries(Path::new(folder)))).into(),
            mounts: mounts_of_nodes(&mounts),
        })
    }
}

/// Some words of each line, by their numbers.
fn words(lines: &str, numbers: &[usize]) -> String {
    let line = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        numbers.iter().filter_map(|number| words.get(*number).copied()).collect::<Vec<_>>().join(" ")
    };
    lines.lines().map(line).collect::<Vec<_>>().join(", ")
}

/// What is in a folder, which need not be there.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.map(|entry| entry.path()).ok())
        .collect();
    found.sort();
    found
}

/// Mounts where a lab mounts something for itself or for its pods.
fn mounts_of_nodes(mountinfo: &str) -> Vec<String> {
    let covered = [VOLATILE, "/proc/sys"].into_iter().chain(KEPT).chain(FOLDERS);
    let covered: Vec<_> = covered.map(Path::new).collect();
    let targets = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let of_nodes =
        targets.filter(|target| covered.iter().any(|folder| Path::new(target).starts_with(folder)));
    of_nodes.map(str::to_owned).collect()
}

/// Routes without the seconds that learned ones have left.
fn lasting_routes(routes: &str) -> String {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let mut lasting = Vec::new();
        while let Some(word) = words.next() {
            if word == "expires" {
                words.next();
            } else {
                lasting.push(word);
            }
        }
        lasting.join(" ")
    };
    routes.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Rules of iptables without the comments, which tell the time, and without counters.
fn lasting_rules(rules: &str) -> String {
    let rules = rules.lines().filter(|line| !line.starts_with('#'));
    // A chain is `:NAME POLICY [PACKETS:BYTES]`; a rule may begin with the same brackets.
    let counter = |word: &&str| word.starts_with('[') && word.ends_with(']') && word.contains(':');
    let line = |line: &str| {
        let words: Vec<_> = line.split(' ').filter(|word| !counter(word)).collect();
        words.join(" ")
    };
    rules.map(line).collect::<Vec<_>>().join("\n")
}

/// The processes in a lab's namespaces.
#[derive(Debug)]
pub struct Namespaces {
    pid: PathBuf,
    network: PathBuf,
}

impl Namespaces {
    /// The namespaces that the process `pid` is in.
    pub fn of(pid: nix::unistd::Pid) -> Result<Self> {
        let link = |kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
        Ok(Self { pid: link("pid")?, network: link("net")? })
    }

    /// The processes that are in one of them now.
    pub fn members(&self) -> Result<BTreeSet<PathBuf>> {
        let mut members = BTreeSet::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let is = |kind: &str, namespace: &Path| {
                fs::read_link(entry.path().join("ns").join(kind)).is_ok_and(|link| link == namespace)
            };
            if is("pid", &self.pid) || is("net", &self.network) {
                members.insert(entry.path());
            }
        }
        Ok(members)
    }
}

/// Everything that names the lab: mounts, processes, control groups, loop devices, files. Empty after `down`.
pub fn left(paths: &LabPaths) -> Result<Vec<String>> {
    let folder = paths.root().to_string_lossy().into_owned();
    let mut left = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process that ends meanwhile leaves nothing.
        let command_line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if pid != std::process::id() && String::from_utf8_lossy(&command_line).contains(&folder) {
            left.push(format!("process {pid}"));
        }
        let mounts = fs::read_to_string(entry.path().join("mountinfo")).unwrap_or_default();
        left.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&folder))
                .map(|line| format!("mount of {pid}: {line}")),
        );
    }
    let groups = cgroups::hierarchies(Path::new(cgroups::MOUNTED))?
        .into_iter()
        .map(|hierarchy| hierarchy.join(paths.cgroup()));
    left.extend(
        groups.filter(|group| group.exists()).map(|group| format!("control group {}", group.display())),
    );
    left.extend(loop_devices(paths)?.iter().map(|device| format!("loop device {}", device.display())));
    if paths.root().exists() {
        left.push(format!("folder {folder}"));
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_those_of_nodes() {
        let info = "1 0 8:1 / / rw - ext4 a rw\n2 1 0:9 / /run/netns rw - tmpfs b rw\n3 1 0:9 / /runner rw - tmpfs b rw\n";
        assert_eq!(mounts_of_nodes(info), ["/run/netns"]);
        assert_eq!(words("1: lo: <UP>\n2: eth0: <UP>\n", &[1]), "lo:, eth0:");
    }

    #[test]
    fn what_changes_by_itself_is_left_out() {
        let saved = |at: &str, count: u32| {
            format!(
                "# Generated on {at}\n*nat\n:INPUT ACCEPT [{count}:99]\n[{count}:1] -A INPUT -j ACCEPT\nCOMMIT\n"
            )
        };
        assert_eq!(lasting_rules(&saved("Mon", 1)), lasting_rules(&saved("Tue", 2)));
        assert_eq!(lasting_rules(&saved("Mon", 1)), "*nat\n:INPUT ACCEPT\n-A INPUT -j ACCEPT\nCOMMIT");
        let learned = |left: u32| {
            format!("default via fe80::1 dev a expires {left}sec pref medium\nlocal ::1 dev lo\n")
        };
        assert_eq!(lasting_routes(&learned(9)), lasting_routes(&learned(8)));
        assert_eq!(lasting_routes(&learned(9)), "default via fe80::1 dev a pref medium\nlocal ::1 dev lo");
    }
}
