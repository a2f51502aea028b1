//! Images on disk and their mounts.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};

use super::plan::DATA;
use crate::process::output;

/// The ending of an image that is whole.
const IMAGE: &str = "img";

/// Makes and mounts an image of `bytes`. What is there already is kept.
pub fn create(folder: &Path, name: &str, bytes: u64) -> Result<()> {
    let image = image(folder, name);
    if !image.exists() {
        let aside = image.with_extension("new");
        let file = File::create(&aside)?;
        file.set_len(bytes).with_context(|| format!("cannot make an image of {bytes} bytes"))?;
        // Without journal, reserve and room to grow, and with few inodes, nearly all bytes are the claimant's.
        let options =
            ["-q", "-F", "-m", "0", "-i", "65536", "-O", "^has_journal,^resize_inode", "-E", "nodiscard"];
        output(Command::new("mkfs.ext4").args(options).arg(&aside))?;
        fs::rename(&aside, &image)?;
    }
    mount(folder, name)
}

/// Mounts an image that exists. Any user may write, since pods run as any user.
pub fn mount(folder: &Path, name: &str) -> Result<()> {
    let target = folder.join(name);
    fs::create_dir_all(&target)?;
    if !mounted(folder)?.contains(name) {
        output(
            Command::new("mount")
                .args(["-t", "ext4", "-o", "loop,noatime,discard"])
                .arg(image(folder, name))
                .arg(&target),
        )?;
    }
    let data = target.join(DATA);
    if !data.exists() {
        fs::create_dir(&data)?;
        fs::set_permissions(&data, fs::Permissions::from_mode(0o777))?;
    }
    Ok(())
}

/// Unmounts and removes an image. A pod that still ends keeps the file system until it has ended.
pub fn remove(folder: &Path, name: &str) -> Result<()> {
    let target = folder.join(name);
    if mounted(folder)?.contains(name) {
        umount2(&target, MntFlags::MNT_DETACH)?;
    }
    gone(fs::remove_dir(target))?;
    gone(fs::remove_file(image(folder, name)))
}

/// The volumes that have an image.
pub fn images(folder: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == IMAGE) {
            found.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    Ok(found)
}

/// The volumes that are mounted.
pub fn mounted(folder: &Path) -> Result<BTreeSet<String>> {
    let info = fs::read_to_string("/proc/self/mountinfo")?;
    let targets = info.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    let below = targets.filter(|target| target.parent() == Some(folder));
    Ok(below
        .filter_map(|target| target.file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect())
}

fn image(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.{IMAGE}"))
}

fn gone(removed: io::Result<()>) -> Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
