//! What a lab could leave on this machine. For tests: compared before, during and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::lab::cgroups;
use crate::lab::down::loop_devices;
use crate::paths::LabPaths;
use crate::process::output;
use crate::supervisor::namespaces::TUNABLES;

/// What a lab must not change even while it runs: the machine's network as it is configured, and kernel settings.
#[derive(Debug, Eq, PartialEq)]
pub struct Host {
    links: String,
    routes: String,
    nftables: String,
    iptables: String,
    settings: Vec<(&'static str, String)>,
}

impl Host {
    /// As it is now.
    pub fn now() -> Result<Self> {
        let links = output(Command::new("ip").args(["-o", "link", "show"]))?;
        // Beside the names stand counters and states that change by themselves.
        let links = links.lines().filter_map(|line| line.split(' ').nth(1)).collect::<Vec<_>>().join(" ");
        let settings = TUNABLES.iter().map(|(setting, _)| {
            Ok((*setting, fs::read_to_string(setting).with_context(|| (*setting).to_owned())?))
        });
        Ok(Self {
            links,
            routes: lasting_routes(&output(Command::new("ip").args(["route", "show", "table", "all"]))?),
            nftables: output(Command::new("nft").args(["--stateless", "list", "ruleset"]))?,
            iptables: lasting_rules(&output(&mut Command::new("iptables-save"))?),
            settings: settings.collect::<Result<_>>()?,
        })
    }
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
