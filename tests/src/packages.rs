//! The Debian packages that a node needs. In: what is installed. Out: what is missing, installed.
//!
//! Installing changes nothing else: no package is removed for it, and none of the services that come along is started,
//! now or at the next boot.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::{self, output};

/// Package managers ask this program whether a service may be started.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// How ours is told from one that an administrator wrote. 101 means: no.
const POLICY_TEXT: &str =
    "#!/bin/sh\n# llm-fleet lab: installing a package must not start its service.\nexit 101\n";
/// Whoever installs for llm-fleet holds a lock on this file, `deploy/setup.sh` too.
const APT: &str = "/usr/bin/apt-get";
/// Tools of the administrator are not in everyone's path.
const ADMINISTRATORS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Each with a program or file by which its presence is seen: another package may bring it too.
const PACKAGES: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("containernetworking-plugins", "/usr/lib/cni/ptp"),
    ("nftables", "nft"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("socat", "socat"),
    (BUSYBOX, "/bin/busybox"),
    ("prometheus", "prometheus"),
    ("iproute2", "ip"),
    ("e2fsprogs", "mkfs.ext4"),
];
/// What images with a shell or a web server are made from.
pub const BUSYBOX: &str = "busybox-static";

/// All packages of a node.
pub fn of_a_node() -> Vec<&'static str> {
    PACKAGES.iter().map(|(package, _)| *package).collect()
}

/// Installs what is missing of `packages`, one program at a time on this machine; says so first through `tell`.
pub async fn ensure(packages: &[&'static str], tell: impl FnOnce(&str)) -> Result<()> {
    let missing = missing_where(packages, |what| find(what).is_some());
    if missing.is_empty() {
        return Ok(());
    }
    tell(&format!("Debian packages are missing, installing: {}", missing.join(" ")));
    let apt = File::open(APT)
        .with_context(|| format!("there is no {APT}: install {missing:?} in your system's own way"))?;
    let _lock = process::lock(apt).await?;
    // Whoever held the lock may have wanted the same.
    match missing_where(&missing, |what| find(what).is_some()) {
        missing if missing.is_empty() => Ok(()),
        missing => tokio::task::spawn_blocking(move || install(&missing)).await?,
    }
}

/// Where a program is, as this process and an administrator would find it; a path is looked at as it is.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(ADMINISTRATORS.map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn missing_where(packages: &[&'static str], there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let wanted = PACKAGES.iter().filter(|(package, _)| packages.contains(package));
    wanted.filter(|(_, what)| !there(what)).map(|(package, _)| *package).collect()
}

fn install(packages: &[&str]) -> Result<()> {
    let _policy = Policy::set()?;
    let before = installed()?;
    let apt = |arguments: &[&str]| -> Result<()> {
        let mut command = Command::new(APT);
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-o", "DPkg::Lock::Timeout=300"]);
        let status = command.args(arguments).status().with_context(|| format!("cannot run {APT}"))?;
        ensure!(status.success(), "apt-get {} failed", arguments.join(" "));
        Ok(())
    };
    apt(&["update"])?;
    let done = apt(&[&["install", "-y", "--no-install-recommends", "--no-remove"], packages].concat());
    // Also what was installed before a failure must not start at the next boot.
    for package in installed()?.difference(&before) {
        disable_services(package)?;
    }
    done
}

fn installed() -> Result<BTreeSet<String>> {
    let listed = output(
        Command::new("dpkg-query").args(["--show", "--showformat=${Package} ${db:Status-Status}\\n"]),
    )?;
    Ok(listed.lines().filter_map(|line| line.strip_suffix(" installed")).map(str::to_owned).collect())
}

/// Keeps a package's services from starting at the next boot. Without systemd there is none that would.
fn disable_services(package: &str) -> Result<()> {
    let files = output(Command::new("dpkg-query").args(["--listfiles", package]))?;
    let units = units(&files);
    match find("systemctl") {
        Some(systemctl) if !units.is_empty() => {
            output(Command::new(systemctl).args(["--quiet", "disable"]).args(units)).map(drop)
        }
        _ => Ok(()),
    }
}

/// The names of systemd's units among a package's files; those with an `@` are only patterns of units.
fn units(files: &str) -> Vec<&str> {
    let names = files.lines().filter_map(|file| file.split_once("/systemd/system/"));
    let unit = |name: &&str| {
        [".service", ".socket", ".timer", ".path"].iter().any(|kind| name.ends_with(kind))
            && !name.contains(['/', '@'])
    };
    names.map(|(_, name)| name).filter(unit).collect()
}

/// While it lives, no package starts a service.
struct Policy {
    ours: bool,
}

impl Policy {
    fn set() -> Result<Self> {
        let found = fs::read_to_string(POLICY).ok();
        // One of ours was left by an installation that was killed.
        let ours = found.is_none_or(|text| text == POLICY_TEXT);
        if ours {
            fs::write(POLICY, POLICY_TEXT)?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.ours {
            // If it stays, the next installation takes it for ours and removes it.
            let _ = fs::remove_file(POLICY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_missing_when_what_it_brings_is() {
        assert_eq!(missing_where(&of_a_node(), |_| true), Vec::<&str>::new());
        assert_eq!(missing_where(&of_a_node(), |what| what != "runc"), ["runc"]);
        assert_eq!(missing_where(&[BUSYBOX], |_| false), [BUSYBOX]);
    }

    #[test]
    fn programs_are_found_in_the_path_and_files_where_they_are() {
        assert!(find("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find("/proc/self/status"), Some(PathBuf::from("/proc/self/status")));
        assert_eq!(find("no-such-program"), None);
    }

    #[test]
    fn units_are_found_among_files() {
        let files = "/lib/systemd/system\n/lib/systemd/system/a.service\n/usr/lib/systemd/system/b.timer\n\
                     /lib/systemd/system/c@.service\n/lib/systemd/system/d.service.d/e.conf\n/usr/bin/a.service\n";
        assert_eq!(units(files), ["a.service", "b.timer"]);
    }
}
