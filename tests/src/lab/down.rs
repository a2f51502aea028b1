//! Ends a lab, also one that was started by half or killed, and removes what it left on disk.
//!
//! The kernel does the larger part when the supervisor dies (see [`crate::supervisor`]). What it does not remove by
//! itself is removed here: control groups, loop devices that outlived their mount, and files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};

use super::cgroups;
use crate::paths::LabPaths;
use crate::process::{self, ensure_root, output, wait_for};
use crate::progress::Progress;
use crate::supervisor::client;

/// How long the kernel may take to let go.
const PATIENCE: Duration = Duration::from_secs(20);

/// Held by whoever brings this lab up or down.
pub async fn lock(paths: &LabPaths) -> Result<Flock<fs::File>> {
    let folder = paths.lock().parent().context("the lock lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let file = fs::File::create(paths.lock())?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((file, _)) => {
            eprintln!("Waiting: another program brings the lab {:?} up or down", paths.name());
            process::lock(file).await
        }
    }
}

/// Ends the lab and removes everything of it.
pub async fn down(paths: &LabPaths) -> Result<()> {
    ensure_root("a lab's processes, mounts and control groups are root's")?;
    let progress = Progress::start(&format!("Stopping the lab {:?}", paths.name()));
    let _lock = lock(paths).await?;
    progress.step("processes, with their mounts and network", None, client::kill_all(paths)).await?;
    progress.step("loop devices", None, release_loop_devices(paths)).await?;
    progress.step("control groups", None, remove_cgroups(paths)).await?;
    progress.step("files", None, async { remove_files(paths) }).await?;
    progress.finish("The lab is gone");
    Ok(())
}

/// A loop device lets go of its file when its last mount is gone, a moment later.
async fn release_loop_devices(paths: &LabPaths) -> Result<()> {
    let released = wait_for("loop devices", Duration::from_secs(2), async || {
        let left = loop_devices(paths)?;
        ensure!(left.is_empty(), "{left:?} are still attached");
        Ok(())
    });
    if released.await.is_err() {
        for device in loop_devices(paths)? {
            output(Command::new("losetup").arg("--detach").arg(device))?;
        }
    }
    Ok(())
}

/// The loop devices whose files are the lab's.
pub fn loop_devices(paths: &LabPaths) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block")?.flatten() {
        let Ok(file) = fs::read_to_string(entry.path().join("loop/backing_file")) else { continue };
        if Path::new(file.trim()).starts_with(paths.root()) {
            found.push(Path::new("/dev").join(entry.file_name()));
        }
    }
    Ok(found)
}

async fn remove_cgroups(paths: &LabPaths) -> Result<()> {
    wait_for("control groups to be empty", PATIENCE, async || {
        cgroups::remove(Path::new(cgroups::MOUNTED), &paths.cgroup())
    })
    .await
}

fn remove_files(paths: &LabPaths) -> Result<()> {
    let mounts = mounts_below(&fs::read_to_string("/proc/self/mountinfo")?, paths.root());
    // A lab's mounts are in its own namespace. What is mounted here is someone else's, and would be emptied too.
    ensure!(mounts.is_empty(), "unmount these first, they are not the lab's: {mounts:?}");
    match fs::remove_dir_all(paths.root()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", paths.root().display()))
        }
        _ => Ok(()),
    }
}

fn mounts_below(mountinfo: &str, folder: &Path) -> Vec<PathBuf> {
    let targets = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    targets.filter(|target| target.starts_with(folder)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_the_folder_are_found_and_neighbours_are_not() {
        let info = "1 0 8:1 / / rw - ext4 a rw\n2 1 7:0 / /c/labs/a/v rw - ext4 b rw\n3 1 7:1 / /c/labs/ab rw - ext4 c rw\n";
        assert_eq!(mounts_below(info, Path::new("/c/labs/a")), [Path::new("/c/labs/a/v")]);
    }
}
