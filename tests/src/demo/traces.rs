//! What the demo makes in a user's cluster, and removing exactly that.
//!
//! In: a cluster. Out: namespaces that carry the demo's label, or that are gone again. What was there before is never
//! touched: a namespace without the label is someone else's, and so are kinds that have objects elsewhere.

use anyhow::{Result, bail, ensure};

use super::NAMESPACE;
use super::steps::Commands;
use crate::install::{self, CHARTS};

/// On namespaces that the demo made; the manifests say the same.
const LABEL: &str = "llmfleet.dev/demo=true";
/// On kinds that stay when their chart is removed.
const POLICY: &str = "jsonpath={.metadata.annotations.helm\\.sh/resource-policy}";
/// Of both kinds, as kubectl knows them.
const KINDS: [&str; 2] = ["llmdeployments.llmfleet.dev", "llmmodels.llmfleet.dev"];
/// kubectl's patience with namespaces.
const PATIENCE: &str = "--timeout=180s";

/// Makes the demo's namespaces, and fails where one of that name is not the demo's.
pub(super) fn claim(commands: &Commands<'_>) -> Result<()> {
    let namespaces = [NAMESPACE, install::NAMESPACE];
    let owners = namespaces.map(|namespace| Owner::of(commands, namespace));
    let mut unclaimed = Vec::new();
    for (namespace, owner) in namespaces.into_iter().zip(owners) {
        match owner? {
            Owner::Demo => {}
            Owner::Nobody => unclaimed.push(namespace),
            Owner::Another => bail!(
                "this cluster has a namespace {namespace} that the demo did not make, and will not touch: use another \
                 cluster"
            ),
        }
    }
    for namespace in unclaimed {
        commands.kubectl(&["create", "namespace", namespace])?;
        commands.kubectl(&["label", "namespace", namespace, LABEL])?;
    }
    Ok(())
}

/// Whether the kinds have to stay: they were there before the demo and were meant to.
pub(super) fn kinds_stay(commands: &Commands<'_>) -> Result<bool> {
    let policy = commands.kubectl(&["get", "crd", KINDS[0], "--ignore-not-found", "-o", POLICY])?;
    Ok(policy.trim() == "keep")
}

/// Removes what the demo made in a user's cluster.
pub(super) fn remove(commands: &Commands<'_>) -> Result<()> {
    let installed = Owner::of(commands, install::NAMESPACE)? == Owner::Demo;
    let others = if installed { others(commands)? } else { Vec::new() };
    ensure!(
        others.is_empty(),
        "the operator still has work in other namespaces, delete it first: {}",
        others.join(" ")
    );
    // While there is an operator, it lets go of what carries its finalizer.
    if Owner::of(commands, NAMESPACE)? == Owner::Demo {
        commands.kubectl(&["delete", "namespace", NAMESPACE, PATIENCE])?;
    }
    if !installed {
        return Ok(());
    }
    for release in CHARTS.iter().rev() {
        commands.helm(&["uninstall", release, "-n", install::NAMESPACE, "--ignore-not-found", "--wait"])?;
    }
    commands.kubectl(&["delete", "namespace", install::NAMESPACE, PATIENCE]).map(drop)
}

/// `NAMESPACE/NAME` of what uses the kinds outside the demo's namespace.
fn others(commands: &Commands<'_>) -> Result<Vec<String>> {
    let mut others = Vec::new();
    for kind in KINDS {
        if commands.kubectl(&["get", "crd", kind, "--ignore-not-found", "-o", "name"])?.is_empty() {
            continue;
        }
        let names = "jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name}{\"\\n\"}{end}";
        let listed = commands.kubectl(&["get", kind, "--all-namespaces", "-o", names])?;
        others.extend(elsewhere(&listed));
    }
    Ok(others)
}

fn elsewhere(listed: &str) -> Vec<String> {
    let of_demo = |name: &&str| name.split_once('/').is_some_and(|(namespace, _)| namespace == NAMESPACE);
    listed.lines().filter(|name| !of_demo(name)).map(str::to_owned).collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Owner {
    Nobody,
    Demo,
    Another,
}

impl Owner {
    fn of(commands: &Commands<'_>, namespace: &str) -> Result<Self> {
        let find = |more: &[&str]| {
            let name = format!("metadata.name={namespace}");
            let get = ["get", "namespaces", "--field-selector", &name, "-o", "name"];
            commands.kubectl(&[&get[..], more].concat()).map(|found| !found.is_empty())
        };
        Ok(match (find(&[])?, find(&["--selector", LABEL])?) {
            (false, _) => Self::Nobody,
            (true, true) => Self::Demo,
            (true, false) => Self::Another,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_elsewhere_is_in_the_way() {
        assert_eq!(elsewhere("llm-demo/smollm2\nteam/chat\nllm-demo-2/x\n"), ["team/chat", "llm-demo-2/x"]);
        assert_eq!(elsewhere(""), Vec::<String>::new());
    }

    #[test]
    fn the_manifest_keeps_the_label() {
        let (key, value) = LABEL.split_once('=').unwrap();
        let manifest = include_str!("../../demo/model-source.yaml");
        assert!(manifest.contains(&format!("{key}: \"{value}\"")));
    }
}
