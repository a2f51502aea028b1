//! Installs llm-fleet into a cluster as a user would: images, then both charts with Helm.
//!
//! In: `target/images` and `charts/`. Shared by the demo and the behaviour tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::paths::repository;
use crate::process::output;

/// Registry of the names that the images are built under.
pub const REGISTRY: &str = "localhost";
/// Where the operator runs.
pub const NAMESPACE: &str = "llm-fleet-system";
/// Helm's patience, for images are there already.
const PATIENCE: &str = "120s";
/// The charts in the order of their installation.
pub const CHARTS: [&str; 2] = ["llm-fleet-crds", "llm-fleet"];

/// An image archive on this machine.
#[derive(Clone, Debug)]
pub struct Archive {
    /// `operator` or `runtime`.
    pub name: &'static str,
    /// Its full name with a tag.
    pub reference: String,
    /// Where it lies.
    pub file: PathBuf,
}

/// The archives that `make images` builds.
pub fn archives() -> Result<Vec<Archive>> {
    let archive = |name| {
        let file = repository().join("target/images").join(format!("{name}.tar"));
        ensure!(file.is_file(), "{} is missing: run `make images`", file.display());
        let reference = format!("{REGISTRY}/llm-fleet/{name}:{}", env!("CARGO_PKG_VERSION"));
        Ok(Archive { name, reference, file })
    };
    ["operator", "runtime"].into_iter().map(archive).collect()
}

/// Both charts, as folders or as packages, in the order of their installation.
#[derive(Clone, Debug)]
pub struct Charts(pub [PathBuf; 2]);

impl Charts {
    /// The charts of a working copy.
    #[must_use]
    pub fn of(repository: &Path) -> Self {
        Self(CHARTS.map(|chart| repository.join("charts").join(chart)))
    }
}

/// Installs or upgrades both charts and waits until the operator is available.
///
/// `command` gives a Helm command for the cluster; `values` are `--set` arguments for the operator's chart.
pub fn charts(command: impl Fn() -> Command, values: &[String]) -> Result<()> {
    charts_with(command, &[], values)
}

/// The same, with `--set` arguments for the chart of the kinds too.
pub fn charts_with(command: impl Fn() -> Command, of_kinds: &[String], values: &[String]) -> Result<()> {
    charts_from(&Charts::of(&repository()), command, of_kinds, values)
}

/// The same, from charts that lie elsewhere.
pub fn charts_from(
    charts: &Charts,
    command: impl Fn() -> Command,
    of_kinds: &[String],
    values: &[String],
) -> Result<()> {
    for ((name, chart), values) in CHARTS.into_iter().zip(&charts.0).zip([of_kinds, values]) {
        let mut helm = command();
        helm.args(["upgrade", "--install", name]).arg(chart);
        helm.args(["--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", PATIENCE]);
        helm.args(values.iter().flat_map(|value| ["--set", value]));
        output(&mut helm)?;
    }
    Ok(())
}
