//! The operator goes: with its models live, before their namespace, and in order.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use contract::labels::FINALIZER;
use e2e::bench::{Case, LIMIT};
use e2e::install::CHARTS;
use e2e::process::wait_for;

use super::client::Client;
use super::live;
use super::steps::Walk;

/// For how long models answer alone.
const ALONE: Duration = Duration::from_secs(5);
/// Finalizers of all models.
const FINALIZERS: &str = "jsonpath={range .items[*]}{.metadata.name} {.metadata.finalizers}{\"\\n\"}{end}";

impl Walk<'_> {
    /// Uninstalls the operator; no model is held afterwards.
    fn uninstall(&self) -> Result<()> {
        self.helm(&["uninstall", CHARTS[1], "--wait"])?;
        let held = self.held()?;
        ensure!(held.is_empty(), "nobody can delete these now: {held:?}");
        Ok(())
    }

    /// Models with our finalizer.
    fn held(&self) -> Result<Vec<String>> {
        let models = self.bench.lab.run_kubectl(&["get", "llmmodels", "-A", "-o", FINALIZERS])?;
        Ok(models.lines().filter(|line| line.contains(FINALIZER)).map(str::to_owned).collect())
    }
}

/// The operator goes while models are live: they answer without it, and nothing hangs that is deleted now. One that
/// comes again adopts what runs; that is for whoever is next to see.
pub(crate) async fn with_live_models(walk: &Walk<'_>, other: &Case<'_>, asks_other: Client) -> Result<()> {
    walk.uninstall()?;
    tokio::time::sleep(ALONE).await;
    ensure!(live::operators(&walk.client).await?.is_empty(), "there is an operator");
    walk.note("uninstalled").await?;
    walk.end(asks_other);
    walk.lets_change(other);
    let since = Instant::now();
    let timeout = format!("--timeout={}s", LIMIT.as_secs());
    walk.bench.lab.run_kubectl(&["delete", "namespace", &other.namespace, &timeout]).context("it hangs")?;
    println!("  {}: gone without an operator after {:.1} s", other.namespace, since.elapsed().as_secs_f64());
    walk.note("a namespace with a live model deleted").await
}

/// The documented order: objects, operator, kinds. Nothing is left, and the kinds stay.
pub(crate) async fn in_order(walk: &Walk<'_>, case: &Case<'_>) -> Result<()> {
    let held = walk.held()?;
    ensure!(held.len() == 2, "the operator that came again holds {held:?}");
    let timeout = format!("--timeout={}s", LIMIT.as_secs());
    let all = ["delete", "llmdeployments,llmmodels", "--all", "--all-namespaces", &timeout];
    walk.bench.lab.run_kubectl(&all)?;
    wait_for("what they made to go", LIMIT, async || {
        let left = case.leftovers()?;
        // The claim is a user's own.
        ensure!(left == ["persistentvolumeclaim/weights"], "left: {left:?}");
        Ok(())
    })
    .await?;
    walk.uninstall()?;
    walk.helm(&["uninstall", CHARTS[0]])?;
    let left = walk.bench.lab.run_kubectl(&["get", "all", "-n", e2e::install::NAMESPACE, "-o", "name"])?;
    ensure!(left.is_empty(), "left: {left}");
    let kinds = walk.bench.lab.run_kubectl(&["get", "crds", "-o", "name"])?;
    ensure!(kinds.contains("llmdeployments.llmfleet.dev"), "the kinds are kept: {kinds}");
    Ok(())
}
