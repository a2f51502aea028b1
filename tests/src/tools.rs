//! Builds the Go programs of a cluster from their modules and keeps them in the cache.
//!
//! In: the modules in `lab/` (only their `go.mod` and `go.sum` are committed, plus our own device plug-in). Out: paths
//! of programs. A program is built aside and renamed into place, so one that is there is whole.

pub mod catalogue;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::paths::{Cache, repository};
use crate::process;
use crate::progress::Progress;
use catalogue::{CHECKERS, MODULES, Module, Tool};

/// Where the system's own programs are, also for processes that get no environment.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The folders in which the tools are, or will be.
#[derive(Clone, Debug)]
pub struct Tools {
    folders: BTreeMap<&'static str, PathBuf>,
}

impl Tools {
    /// Computes the folders; builds nothing.
    pub fn locate(cache: &Cache) -> Result<Self> {
        let folders = MODULES.iter().map(|module| {
            let folder = format!("{}-{}", module.name, fingerprint(module, &sources(module)?));
            Ok((module.name, cache.tools().join(folder)))
        });
        Ok(Self { folders: folders.collect::<Result<_>>()? })
    }

    /// Builds what is missing of `names` (the catalogue's names), showing progress.
    pub async fn ensure(&self, names: &[&str]) -> Result<()> {
        for name in names {
            ensure!(
                MODULES.iter().any(|m| m.tools.iter().any(|t| t.name == *name)),
                "there is no tool named {name}"
            );
        }
        let missing = |tool: &&Tool| names.contains(&tool.name) && !self.path(tool.name).exists();
        if !MODULES.iter().any(|module| module.tools.iter().any(|tool| missing(&tool))) {
            return Ok(());
        }
        let progress = Progress::start("Building tools (once; the times are for an empty Go cache)");
        for module in MODULES {
            if !module.tools.iter().any(|tool| missing(&tool)) {
                continue;
            }
            // Two may come here at once: the second waits, then finds the tools there.
            let folder = &self.folders[module.name];
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
            let _lock = process::lock(File::create(folder.join(".lock"))?).await?;
            for tool in module.tools.iter().filter(missing) {
                progress.step(tool.name, Some(tool.cold_seconds), self.build(module, tool)).await?;
            }
        }
        progress.finish("Tools are built");
        Ok(())
    }

    /// Builds what a lab and those who use it need: all but what only checks.
    pub async fn ensure_for_lab(&self) -> Result<()> {
        let tools = MODULES.iter().flat_map(|module| module.tools.iter());
        let names: Vec<_> = tools.map(|tool| tool.name).filter(|name| !CHECKERS.contains(name)).collect();
        self.ensure(&names).await
    }

    /// Builds all tools.
    pub async fn ensure_all(&self) -> Result<()> {
        let names: Vec<_> =
            MODULES.iter().flat_map(|module| module.tools.iter().map(|tool| tool.name)).collect();
        self.ensure(&names).await
    }

    /// The path of the tool `name`, built or not.
    pub fn path(&self, name: &str) -> PathBuf {
        let module = MODULES.iter().find(|module| module.tools.iter().any(|tool| tool.name == name));
        self.folders[module.expect("callers use the catalogue's names").name].join(name)
    }

    /// A `PATH` with all tools before the system's programs.
    pub fn search_path(&self) -> OsString {
        let mut path = OsString::new();
        for folder in self.folders.values() {
            path.push(folder);
            path.push(":");
        }
        path.push(SYSTEM_PATH);
        path
    }

    async fn build(&self, module: &Module, tool: &Tool) -> Result<()> {
        let folder = &self.folders[module.name];
        let aside = folder.join(format!(".building-{}", tool.name));
        let output = tokio::process::Command::new("go")
            .current_dir(module_folder(module))
            .envs([("CGO_ENABLED", "0"), ("GOWORK", "off"), ("GOFLAGS", "-mod=readonly")])
            .args(["build", "-ldflags", module.ldflags, "-o"])
            .arg(&aside)
            .arg(tool.package)
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot run go: Go 1.26 must be installed and in PATH")?;
        ensure!(
            output.status.success(),
            "cannot build {}: {}",
            tool.package,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        fs::rename(&aside, folder.join(tool.name))?;
        Ok(())
    }
}

fn module_folder(module: &Module) -> PathBuf {
    repository().join("tests/lab").join(module.name)
}

/// All that a build depends on, by file name; the tests of our own sources do not matter.
fn sources(module: &Module) -> Result<BTreeMap<String, Vec<u8>>> {
    let folder = module_folder(module);
    let mut sources = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let counts = ["go.mod", "go.sum"].contains(&name.as_str()) || name.ends_with(".go");
        if counts && !name.ends_with("_test.go") {
            sources.insert(name, fs::read(entry.path())?);
        }
    }
    Ok(sources)
}

fn fingerprint(module: &Module, sources: &BTreeMap<String, Vec<u8>>) -> String {
    let mut hash = Sha256::new_with_prefix(module.ldflags);
    for (name, content) in sources {
        hash.update(format!("\0{name}\0{}\0", content.len()));
        hash.update(content);
    }
    hex::encode(&hash.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_dependency_or_flag_means_another_folder() {
        let module = &MODULES[0];
        let sources = |sum: &str| BTreeMap::from([("go.sum".to_owned(), sum.as_bytes().to_vec())]);
        let first = fingerprint(module, &sources("a v1"));
        assert_eq!(first, fingerprint(module, &sources("a v1")));
        assert_ne!(first, fingerprint(module, &sources("a v2")));
        let flagged = Module { ldflags: "-s", ..*module };
        assert_ne!(first, fingerprint(&flagged, &sources("a v1")));
    }

    #[test]
    fn every_module_of_the_catalogue_is_committed() {
        for module in MODULES {
            assert!(sources(module).unwrap().contains_key("go.sum"), "{}", module.name);
        }
    }

    #[test]
    fn versions_that_are_linked_in_are_those_of_the_sources() {
        for module in MODULES {
            let go_mod = fs::read_to_string(module_folder(module).join("go.mod")).unwrap();
            for version in module.ldflags.split_whitespace().filter_map(|flag| flag.split_once("=v")) {
                assert!(go_mod.contains(&format!(" v{} ", version.1)), "{}: {version:?}", module.name);
            }
        }
    }

    #[tokio::test]
    async fn an_unknown_tool_is_an_error() {
        let tools = Tools { folders: BTreeMap::new() };
        assert!(tools.ensure(&["kube-nothing"]).await.unwrap_err().to_string().contains("kube-nothing"));
    }
}
