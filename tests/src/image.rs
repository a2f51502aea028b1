//! Packs files into a container image: a docker-archive with one layer, without a container engine.
//!
//! In: paths on this machine. Out: a tar file that `ctr images import` takes. Equal input gives equal bytes.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::process::output;

/// What goes into an image.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Its name with a tag.
    pub name: String,
    /// Files: where each lies on this machine and its absolute path in the image.
    pub files: Vec<(PathBuf, String)>,
    /// Symbolic links: the absolute path in the image and what it points to.
    pub links: Vec<(String, String)>,
    /// What a container runs.
    pub entrypoint: Vec<String>,
}

impl Image {
    /// Debian's static busybox with all its applets in `/bin`.
    pub fn busybox(name: &str) -> Result<Self> {
        let busybox = "/bin/busybox";
        let applets = output(Command::new(busybox).arg("--list"))?;
        let links = applets.lines().filter(|applet| *applet != "busybox");
        Ok(Self {
            name: name.to_owned(),
            files: vec![(busybox.into(), busybox.to_owned())],
            links: links.map(|applet| (format!("/bin/{applet}"), busybox.to_owned())).collect(),
            entrypoint: vec!["/bin/sh".to_owned()],
        })
    }

    /// Names all that goes into the archive.
    pub fn fingerprint(&self) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update(format!("{:?}", (&self.name, &self.links, &self.entrypoint)));
        for (source, target) in &self.files {
            hash.update(format!("{target}\0{:o}\0", fs::metadata(source)?.permissions().mode()));
            io::copy(&mut fs::File::open(source)?, &mut hash)
                .with_context(|| format!("cannot read {}", source.display()))?;
        }
        Ok(hex::encode(&hash.finalize()[..8]))
    }

    /// Writes the archive to `to`, whole or not at all; `to` with another ending serves as scratch space.
    pub fn write(&self, to: &Path) -> Result<()> {
        let scratch = to.with_extension("scratch");
        if scratch.exists() {
            fs::remove_dir_all(&scratch)?;
        }
        let root = scratch.join("root");
        for folder in ["tmp", "etc", "proc", "sys", "dev"] {
            fs::create_dir_all(root.join(folder))?;
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        for (source, target) in &self.files {
            let target = below(&root, target)?;
            fs::copy(source, &target).with_context(|| format!("cannot copy {}", source.display()))?;
        }
        for (link, target) in &self.links {
            symlink(target, below(&root, link)?)?;
        }
        tar(&scratch.join("layer.tar"), &root, &["."])?;
        let layer = hex::encode(Sha256::digest(fs::read(scratch.join("layer.tar"))?));
        fs::write(scratch.join("config.json"), serde_json::to_vec(&self.config(&layer))?)?;
        let manifest = json!([{ "Config": "config.json", "RepoTags": [self.name], "Layers": ["layer.tar"] }]);
        fs::write(scratch.join("manifest.json"), serde_json::to_vec(&manifest)?)?;
        let whole = scratch.join("whole.tar");
        tar(&whole, &scratch, &["manifest.json", "config.json", "layer.tar"])?;
        fs::rename(whole, to)?;
        fs::remove_dir_all(&scratch)?;
        Ok(())
    }

    fn config(&self, layer: &str) -> Value {
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": { "Entrypoint": self.entrypoint, "Env": ["PATH=/bin"] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        })
    }
}

fn below(root: &Path, target: &str) -> Result<PathBuf> {
    let target = root.join(target.trim_start_matches('/'));
    fs::create_dir_all(target.parent().context("a file of an image has a folder")?)?;
    Ok(target)
}

fn tar(archive: &Path, folder: &Path, what: &[&str]) -> Result<()> {
    let same = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"];
    output(Command::new("tar").args(same).arg("-cf").arg(archive).arg("-C").arg(folder).args(what)).map(drop)
}

/// The machine's architecture in the words of container images.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_input_gives_equal_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let hello = folder.path().join("hello");
        fs::write(&hello, "hello").unwrap();
        let image = Image {
            name: "a:1".to_owned(),
            files: vec![(hello, "/usr/bin/hello".to_owned())],
            links: vec![("/bin/hi".to_owned(), "/usr/bin/hello".to_owned())],
            entrypoint: vec!["/bin/hi".to_owned()],
        };
        let (first, second) = (folder.path().join("1.tar"), folder.path().join("2.tar"));
        image.write(&first).unwrap();
        image.write(&second).unwrap();
        assert_eq!(fs::read(&first).unwrap(), fs::read(second).unwrap());
        let other = Image { name: "a:2".to_owned(), ..image.clone() };
        assert_ne!(image.fingerprint().unwrap(), other.fingerprint().unwrap());
        let listed = output(Command::new("tar").arg("-tf").arg(&first)).unwrap();
        assert_eq!(listed, "manifest.json\nconfig.json\nlayer.tar\n");
    }
}
