//! Where everything lies: the cache of built tools and the folder of each lab. Pure but for reading the environment.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Unix sockets may have 108 bytes; the longest path below a lab's folder takes 44 of them.
const LONGEST_LAB_FOLDER: usize = 64;
/// File of the model of demo and tests.
pub(crate) const MODEL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
/// Inside a lab this is in memory, so that its processes leave nothing in the machine's.
pub const VOLATILE: &str = "/run";
/// Inside a lab these are folders below its own, for the same reason.
pub const KEPT: [&str; 2] = ["/var/lib", "/var/log"];

/// The root of this repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the repository").to_owned()
}

/// Fails where processes of a lab would not see `path`, and says what to do.
pub fn ensure_visible(path: &Path, what_to_do: &str) -> Result<()> {
    ensure!(
        !path.starts_with(VOLATILE) && !KEPT.iter().any(|covered| path.starts_with(covered)),
        "{} lies under {VOLATILE} or one of {KEPT:?}, which a lab covers: {what_to_do}",
        path.display()
    );
    Ok(())
}

/// The folder that outlives labs and builds.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `$LLMFLEET_CACHE`, else `~/.cache/llm-fleet`.
    pub fn from_env() -> Result<Self> {
        let root = match std::env::var_os("LLMFLEET_CACHE") {
            Some(root) => std::path::absolute(root)?,
            None => {
                PathBuf::from(std::env::var_os("HOME").context("neither LLMFLEET_CACHE nor HOME is set")?)
                    .join(".cache/llm-fleet")
            }
        };
        Ok(Self { root })
    }

    /// The cache's own folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The model of demo and tests, as `make model` puts it there.
    pub fn model(&self) -> PathBuf {
        self.root.join("models").join(MODEL)
    }

    /// The built tools of all Go modules.
    pub fn tools(&self) -> PathBuf {
        self.root.join("tools")
    }

    /// The folder of the lab `name`.
    pub fn lab(&self, name: &str) -> Result<LabPaths> {
        LabPaths::new(&self.root.join("labs"), name)
    }
}

/// The folder of one lab.
#[derive(Clone, Debug)]
pub struct LabPaths {
    name: String,
    root: PathBuf,
    lock: PathBuf,
}

impl LabPaths {
    /// The supervisor's socket in the lab's folder.
    pub const SUPERVISOR_SOCKET: &str = "supervisor.sock";

    fn new(labs: &Path, name: &str) -> Result<Self> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(
            !name.is_empty() && name.len() <= 20 && name.chars().all(plain),
            "a lab's name has 1 to 20 lower-case letters, digits and dashes, unlike {name:?}"
        );
        let root = labs.join(name);
        ensure!(
            root.as_os_str().len() <= LONGEST_LAB_FOLDER,
            "{} is longer than {LONGEST_LAB_FOLDER} bytes, too long for the sockets in it: set LLMFLEET_CACHE to a shorter path",
            root.display()
        );
        ensure_visible(&root, "set LLMFLEET_CACHE to another path")?;
        Ok(Self { name: name.to_owned(), lock: labs.join(format!("{name}.lock")), root })
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The lab's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Held while a lab is brought up or down; outside its folder, which `down` removes.
    pub fn lock(&self) -> &Path {
        &self.lock
    }

    /// Something in the lab's folder.
    pub fn join(&self, what: impl AsRef<Path>) -> PathBuf {
        self.root.join(what)
    }

    /// The supervisor's socket: who answers on it is the lab.
    pub fn supervisor_socket(&self) -> PathBuf {
        self.join(Self::SUPERVISOR_SOCKET)
    }

    /// The log of one process.
    pub fn log(&self, process: &str) -> PathBuf {
        self.join("log").join(format!("{process}.log"))
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.join("pki")
    }

    /// The administrator's kubeconfig for the machine outside.
    pub fn kubeconfig(&self) -> PathBuf {
        self.join("kubeconfig")
    }

    /// The kubeconfig of `user` inside the lab's network.
    pub fn inside_kubeconfig(&self, user: &str) -> PathBuf {
        self.join("config").join(format!("{user}.kubeconfig"))
    }

    /// The cgroup below which all pods of the lab run, in every hierarchy.
    pub fn cgroup(&self) -> String {
        format!("llmfleet-{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        for name in ["", "..", "a/b", "A", "a name", &"a".repeat(21)] {
            assert!(LabPaths::new(Path::new("/c/labs"), name).is_err(), "{name:?}");
        }
        assert_eq!(LabPaths::new(Path::new("/c/labs"), "b-2").unwrap().root(), Path::new("/c/labs/b-2"));
    }

    #[test]
    fn folders_where_a_lab_could_not_work_are_refused() {
        assert!(LabPaths::new(Path::new("/run/c/labs"), "a").is_err());
        assert!(LabPaths::new(&Path::new("/").join("c".repeat(70)), "a").is_err());
    }
}
