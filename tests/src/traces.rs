//! What a lab could leave on this machine. For tests: compared before, during and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::lab::down::loop_devices;
use crate::lab::kubelet::{CGROUPS, hierarchies};
use crate::paths::LabPaths;
use crate::process::output;

/// The machine's network as it is configured. A lab must not change it even while it runs.
#[derive(Debug, Eq, PartialEq)]
pub struct HostNetwork {
    links: String,
    routes: String,
    nftables: String,
    iptables: String,
}

impl HostNetwork {
    /// As it is now.
    pub fn now() -> Result<Self> {
        let names = ["-o", "link", "show"];
        let links = output(Command::new("ip").args(names))?;
        // Beside the names stand counters and states that change by themselves.
        let links = links.lines().filter_map(|line| line.split(' ').nth(1)).collect::<Vec<_>>().join(" ");
        Ok(Self {
            links,
            routes: output(Command::new("ip").args(["route", "show", "table", "all"]))?,
            nftables: output(Command::new("nft").args(["list", "ruleset"]))?,
            iptables: output(&mut Command::new("iptables-save"))?,
        })
    }
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
    let groups = hierarchies(Path::new(CGROUPS))?.into_iter().map(|hierarchy| hierarchy.join(paths.cgroup()));
    left.extend(
        groups.filter(|group| group.exists()).map(|group| format!("control group {}", group.display())),
    );
    left.extend(loop_devices(paths)?.iter().map(|device| format!("loop device {}", device.display())));
    if paths.root().exists() {
        left.push(format!("folder {folder}"));
    }
    Ok(left)
}
