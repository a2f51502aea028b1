//! The older and the newer release: charts, and the tags of their images.
//!
//! The newer is this working copy. The older is the same program under other versions, or another state of the
//! repository that `make upgrade` has built.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use e2e::install::{self, CHARTS, Charts};
use e2e::lab::Lab;
use e2e::paths::repository;
use e2e::process::output;

/// Version under which the older release is packaged.
pub(crate) const OLDER: &str = "0.0.9";
/// Another tag of the newer runtime.
pub(crate) const NEXT: &str = "next";
/// Folder with `charts` and `target/images` of the older release, and how both are called.
const FOLDER: &str = "UPGRADE_FROM";
const FROM: &str = "UPGRADE_FROM_NAME";
const TO: &str = "UPGRADE_TO_NAME";

/// Both releases; their images are on the node.
#[derive(Debug)]
pub(crate) struct Releases {
    /// What the older one is.
    pub(crate) from: String,
    /// What the newer one is.
    pub(crate) to: String,
    /// Whether it is another state of the repository.
    pub(crate) is_real: bool,
    pub(crate) older: Charts,
    pub(crate) newer: Charts,
}

impl Releases {
    /// Packages the older charts and loads all images.
    pub(crate) fn prepare(lab: &Lab) -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let folder = variable(FOLDER).map(PathBuf::from);
        let root = folder.clone().unwrap_or_else(repository);
        for archive in install::archives()? {
            let name = |tag: &str| format!("{}/llm-fleet/{}:{tag}", install::REGISTRY, archive.name);
            // Both bring the same name: the older gets another before the newer takes it.
            lab.load_image(&root.join(format!("target/images/{}.tar", archive.name)))?;
            lab.tag_image(&archive.reference, &name(OLDER))?;
            lab.load_image(&archive.file)?;
            lab.tag_image(&archive.reference, &name(NEXT))?;
        }
        let from = variable(FROM).unwrap_or_else(|| format!("this program, packaged as {OLDER}"));
        let to = variable(TO).unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
        let older = package(lab, &Charts::of(&root), OLDER)?;
        Ok(Self { from, to, is_real: folder.is_some(), older, newer: Charts::of(&repository()) })
    }
}

/// Packages charts under a version that they do not have.
pub(crate) fn package(lab: &Lab, charts: &Charts, version: &str) -> Result<Charts> {
    let folder = lab.paths().join(format!("charts-{version}"));
    for chart in &charts.0 {
        let versions = ["--version", version, "--app-version", version, "--destination"];
        output(lab.helm().arg("package").arg(chart).args(versions).arg(&folder))?;
    }
    Ok(Charts(CHARTS.map(|name| folder.join(format!("{name}-{version}.tgz")))))
}

/// The charts with kinds that say more: another description, and a field that nobody has yet.
pub(crate) fn with_a_field(lab: &Lab, charts: &Charts) -> Result<Charts> {
    let [kinds, operator] = &charts.0;
    let copy = lab.paths().join("charts-of-kinds");
    output(std::process::Command::new("cp").arg("--recursive").arg(kinds).arg(&copy))?;
    let file = copy.join("templates/llmdeployments.llmfleet.dev.yaml");
    edit(&file)?;
    package(lab, &Charts([copy, operator.clone()]), "0.2.0")
}

/// Before the field `suspend`, whose description says more.
fn edit(file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file)?;
    let (before, rest) = text.split_once("              suspend:\n").context("there is no field suspend")?;
    let field = format!(
        "              {FIELD}:\n                description: Of tests.\n                type: string\n"
    );
    let rest = rest.replacen("Stops all pods", "Stops every single pod", 1);
    Ok(std::fs::write(file, format!("{before}{field}              suspend:\n{rest}"))?)
}

/// The field of [`with_a_field`].
pub(crate) const FIELD: &str = "laterField";
