//! containerd: its configuration, and images' way into it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};

use super::site::{ConfigFile, Site};
use crate::paths::LabPaths;
use crate::process::output;
use crate::supervisor::protocol::Spec;

/// The process's name.
pub const NAME: &str = "containerd";
/// The image of the process that holds a pod's namespaces.
pub const PAUSE_IMAGE: &str = "lab.llmfleet.dev/pause:1";
/// Where Debian installs CNI plug-ins.
const CNI_PLUGINS: &str = "/usr/lib/cni";

/// State that a reboot would clear; a new supervisor is a reboot.
pub fn volatile(paths: &LabPaths) -> PathBuf {
    paths.join("containerd/state")
}

/// Its socket.
pub fn socket(paths: &LabPaths) -> PathBuf {
    paths.join("containerd.sock")
}

/// Its configuration.
pub fn files(site: &Site<'_>) -> Vec<ConfigFile> {
    let text = config(site.paths, snapshotter(site.paths), &site.config("cni"));
    vec![(site.config("containerd.toml"), text)]
}

/// Its process.
pub fn process(site: &Site<'_>) -> Result<Spec> {
    let config = site.config("containerd.toml").to_string_lossy().into_owned();
    site.package(NAME, vec!["--config".to_owned(), config])
}

/// Imports a docker-archive for the kubelet to use.
pub fn import(paths: &LabPaths, archive: &Path) -> Result<()> {
    let mut command = ctr(paths);
    command.args(["images", "import", "--snapshotter", snapshotter(paths)]).arg(archive);
    output(&mut command).map(drop)
}

/// Gives an image another name.
pub fn tag(paths: &LabPaths, name: &str, other: &str) -> Result<()> {
    output(ctr(paths).args(["images", "tag", "--force", name, other])).map(drop)
}

/// A `ctr` command in the kubelet's namespace of containerd.
pub fn ctr(paths: &LabPaths) -> Command {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(socket(paths)).args(["--namespace", "k8s.io"]);
    command
}

/// Overlays cannot be stacked on overlays: in a container, layers are copied instead.
fn snapshotter(paths: &LabPaths) -> &'static str {
    match statfs(paths.root()) {
        Ok(info) if info.filesystem_type() == OVERLAYFS_SUPER_MAGIC => "native",
        _ => "overlayfs",
    }
}

fn config(paths: &LabPaths, snapshotter: &str, cni: &Path) -> String {
    let (root, state, socket) = (paths.join("containerd/root"), volatile(paths), socket(paths));
    let (root, state, socket, cni) = (root.display(), state.display(), socket.display(), cni.display());
    format!(
        r#"version = 2
root = "{root}"
state = "{state}"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without CAP_SYS_RESOURCE no score may be lowered, and every sandbox would fail.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  # A profile would be loaded into the machine's kernel and stay there.
  disable_apparmor = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{cni}"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

    # The runtime class `nvidia` exists so that pods may ask for it; there is no GPU to hand over.
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]
      runtime_type = "io.containerd.runc.v2"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Cache;

    #[test]
    fn everything_it_writes_lies_in_the_labs_folder() {
        let paths = Cache::from_env().unwrap().lab("a").unwrap();
        let text = config(&paths, "overlayfs", Path::new("/c/cni"));
        let root = paths.root().to_string_lossy().into_owned();
        for key in ["root = ", "state = ", "address = "] {
            let line = text.lines().find(|line| line.trim_start().starts_with(key)).unwrap();
            assert!(line.contains(&root), "{line}");
        }
    }
}
