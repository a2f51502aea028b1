//! Keeps what tells why a demo failed, before the cluster with it is removed.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::NAMESPACE;
use super::steps::Commands;
use crate::install;
use crate::paths::LabPaths;

/// Makes the folder, without what was kept of an earlier run.
pub(super) fn emptied(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    Ok(fs::create_dir_all(folder)?)
}

/// Copies the lab's logs, if it has come so far.
pub(super) fn of_lab(lab: &LabPaths, to: &Path) -> Result<()> {
    let logs = lab.join("log");
    if !logs.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(logs)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Asks a cluster what it knows; what it does not say is left out.
pub(super) fn of_cluster(commands: &Commands<'_>, to: &Path) -> Result<()> {
    let questions: [(&str, &[&str]); 4] = [
        ("deployments.txt", &["describe", "llmdeployments,llmmodels", "--namespace", NAMESPACE]),
        ("pods.txt", &["describe", "pods", "--all-namespaces"]),
        ("events.txt", &["get", "events", "--all-namespaces"]),
        ("operator.log", &["logs", "--namespace", install::NAMESPACE, "--selector", OPERATOR, "--tail=-1"]),
    ];
    for (file, question) in questions {
        let answer = commands.kubectl(question).unwrap_or_else(|error| format!("{error:#}\n"));
        fs::write(to.join(file), answer)?;
    }
    Ok(())
}

/// The operator's pods.
const OPERATOR: &str = "app.kubernetes.io/component=operator";
