//! The Debian packages that a node needs. In: what is installed. Out: what is missing, installed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Package managers ask this program whether a service may be started.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// How ours is told from one that an administrator wrote. 101 means: no.
const POLICY_TEXT: &str =
    "#!/bin/sh\n# llm-fleet lab: installing a package must not start its service.\nexit 101\n";

/// Each with a file by which its presence is seen.
const PACKAGES: &[(&str, &str)] = &[
    ("containerd", "/usr/bin/containerd"),
    ("runc", "/usr/sbin/runc"),
    ("containernetworking-plugins", "/usr/lib/cni/ptp"),
    ("nftables", "/usr/sbin/nft"),
    ("iptables", "/usr/sbin/iptables"),
    ("conntrack", "/usr/sbin/conntrack"),
    ("socat", "/usr/bin/socat"),
    ("busybox-static", "/bin/busybox"),
    ("prometheus", "/usr/bin/prometheus"),
    ("iproute2", "/usr/sbin/ip"),
    ("buildah", "/usr/bin/buildah"),
    ("e2fsprogs", "/usr/sbin/mkfs.ext4"),
];

/// The packages that are missing.
pub fn missing() -> Vec<&'static str> {
    missing_where(|file| Path::new(file).exists())
}

/// Installs packages; their output is shown. None of their services is started.
pub fn install(packages: &[&str]) -> Result<()> {
    let _policy = Policy::set()?;
    let apt = |arguments: &[&str]| -> Result<()> {
        let status = Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(arguments)
            .status()
            .with_context(|| {
                format!("cannot run apt-get; on another system than Debian install {packages:?} yourself")
            })?;
        ensure!(status.success(), "apt-get {} failed", arguments.join(" "));
        Ok(())
    };
    apt(&["update", "-q"])?;
    apt(&[&["install", "-q", "-y", "--no-install-recommends"], packages].concat())
}

fn missing_where(exists: impl Fn(&str) -> bool) -> Vec<&'static str> {
    PACKAGES.iter().filter(|(_, file)| !exists(file)).map(|(package, _)| *package).collect()
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
    fn a_package_is_missing_when_its_file_is() {
        assert_eq!(missing_where(|_| true), Vec::<&str>::new());
        assert_eq!(missing_where(|file| file != "/usr/sbin/runc"), ["runc"]);
    }
}
