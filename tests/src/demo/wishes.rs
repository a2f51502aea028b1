//! What the environment asks of the demo, checked as a whole before anything is done.
//!
//! In: `DEMO_*` and `KUBECONFIG`. Out: wishes that can be met, or one message with all that is wanting.
//! A kubeconfig that merely lies around is never used: the user says so, or the lab is made.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::packages;

/// The variables, with what `lab demo --help` says of them.
pub const HELP: &str = "\
Environment:
  DEMO_CLUSTER       where it runs: lab (default: one of its own), kind, k3d, or kubeconfig (what KUBECONFIG names)
  DEMO_CLUSTER_NAME  name of the kind or k3d cluster [default: kind or k3s-default]
  DEMO_REGISTRY      with kubeconfig: where images are pushed to; without it those of target/images must be there already
  DEMO_PROMETHEUS    URL of the Prometheus that scrapes the cluster; wanted with kind, k3d and kubeconfig
  DEMO_EXIT          1: remove all of it at the end; succeeds only if everything held";

/// Which cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The local cluster of this repository.
    Lab,
    /// A kind cluster.
    Kind,
    /// A k3d cluster.
    K3d,
    /// What `KUBECONFIG` says.
    Kubeconfig,
}

impl Kind {
    /// The file of a run's figures: one run does not hide another's.
    #[must_use]
    pub fn report(self) -> &'static str {
        match self {
            Self::Lab => "demo.json",
            Self::Kind => "demo-kind.json",
            Self::K3d => "demo-k3d.json",
            Self::Kubeconfig => "demo-kubeconfig.json",
        }
    }
}

/// What the demo is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// Which cluster.
    pub kind: Kind,
    /// The name of a kind or k3d cluster.
    pub name: String,
    /// The user's own kubeconfig, where it is to be used.
    pub kubeconfig: Option<PathBuf>,
    /// Where images are pushed to.
    pub registry: Option<String>,
    /// The Prometheus of a user's cluster.
    pub prometheus: Option<String>,
    /// Whether to remove everything at the end.
    pub exit: bool,
}

impl Wishes {
    /// All that a run needs.
    pub fn to_run() -> Result<Self> {
        Self::read(true, |name| std::env::var(name).ok(), |program| packages::find(program).is_some())
    }

    /// All that removing needs.
    pub fn to_remove() -> Result<Self> {
        Self::read(false, |name| std::env::var(name).ok(), |program| packages::find(program).is_some())
    }

    fn read(
        run: bool,
        variable: impl Fn(&str) -> Option<String>,
        exists: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut wanting = Vec::new();
        let kind = match variable("DEMO_CLUSTER").as_deref() {
            None | Some("lab") => Kind::Lab,
            Some("kind") => Kind::Kind,
            Some("k3d") => Kind::K3d,
            Some("kubeconfig") => Kind::Kubeconfig,
            Some(other) => {
                wanting.push(format!("DEMO_CLUSTER is {other:?}; it may be lab, kind, k3d or kubeconfig"));
                Kind::Lab
            }
        };
        let kubeconfig = variable("KUBECONFIG").filter(|_| kind == Kind::Kubeconfig);
        match (kind, &kubeconfig) {
            (Kind::Kind, _) if !exists("kind") => wanting.push("there is no program kind".to_owned()),
            (Kind::K3d, _) if !exists("k3d") => wanting.push("there is no program k3d".to_owned()),
            (Kind::Kubeconfig, None) => wanting.push("set KUBECONFIG to the cluster's file".to_owned()),
            (Kind::Kubeconfig, Some(file)) if !exists(file) => {
                wanting.push(format!("KUBECONFIG is {file}, which is no file"));
            }
            _ => {}
        }
        let prometheus = variable("DEMO_PROMETHEUS").filter(|_| kind != Kind::Lab);
        if run && kind != Kind::Lab && prometheus.is_none() {
            let why = "set DEMO_PROMETHEUS to the URL of the Prometheus that scrapes the cluster's pods";
            wanting.push(why.to_owned());
        }
        ensure!(wanting.is_empty(), "{}", wanting.join("; "));
        let usual = if kind == Kind::K3d { "k3s-default" } else { "kind" };
        Ok(Self {
            kind,
            name: variable("DEMO_CLUSTER_NAME").unwrap_or_else(|| usual.to_owned()),
            kubeconfig: kubeconfig.map(PathBuf::from),
            registry: variable("DEMO_REGISTRY"),
            prometheus: prometheus.map(|url| url.trim_end_matches('/').to_owned()),
            exit: variable("DEMO_EXIT").as_deref() == Some("1"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(run: bool, variables: &[(&str, &str)], there: &[&str]) -> Result<Wishes> {
        let value = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Wishes::read(run, value, |program| there.contains(&program))
    }

    #[test]
    fn only_named_clusters_are_used() {
        let found = read(true, &[("KUBECONFIG", "/k"), ("DEMO_CLUSTER", "")], &["/k"]).unwrap();
        assert_eq!((found.kind, found.kubeconfig, found.exit), (Kind::Lab, None, false));
        assert!(read(true, &[("DEMO_CLUSTER", "prod")], &[]).is_err());
    }

    #[test]
    fn all_that_is_wanting_is_said_at_once() {
        let error = read(true, &[("DEMO_CLUSTER", "kubeconfig")], &[]).unwrap_err().to_string();
        assert!(error.contains("KUBECONFIG") && error.contains("DEMO_PROMETHEUS"), "{error}");
        let error = read(true, &[("DEMO_CLUSTER", "k3d")], &[]).unwrap_err().to_string();
        assert!(error.contains("no program k3d") && error.contains("DEMO_PROMETHEUS"), "{error}");
        let file = [("DEMO_CLUSTER", "kubeconfig"), ("KUBECONFIG", "/gone")];
        assert!(read(false, &file, &[]).unwrap_err().to_string().contains("/gone"));
    }

    #[test]
    fn removing_needs_no_prometheus() {
        let wishes = read(false, &[("DEMO_CLUSTER", "k3d")], &["k3d"]).unwrap();
        assert_eq!((wishes.kind, wishes.name.as_str()), (Kind::K3d, "k3s-default"));
    }

    #[test]
    fn every_variable_is_explained() {
        for name in ["DEMO_CLUSTER ", "DEMO_CLUSTER_NAME", "DEMO_REGISTRY", "DEMO_PROMETHEUS", "DEMO_EXIT"] {
            assert!(HELP.contains(name), "{name}");
        }
    }
}
