//! What is done to a release while models answer.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use anyhow::{Result, ensure};
use contract::labels::PAUSED;
use e2e::bench::{Bench, Case, LIMIT};
use e2e::install::{CHARTS, NAMESPACE};
use e2e::process::{output, wait_for};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::client::Client;
use super::live::{self, Pods};
use super::releases::{FIELD, NEXT, OLDER, Releases, with_a_field};

/// Tag of the newer release's images.
pub(crate) const NEWER: &str = env!("CARGO_PKG_VERSION");

/// A cluster with live models, how their pods were at the start, and what has been seen since.
pub(crate) struct Walk<'a> {
    pub(crate) bench: &'a Bench,
    pub(crate) client: kube::Client,
    since: Instant,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    before: Pods,
    pods: usize,
    restarted: BTreeSet<String>,
    requests: usize,
    failures: Vec<String>,
}

impl<'a> Walk<'a> {
    pub(crate) async fn start(bench: &'a Bench, client: &kube::Client) -> Result<Self> {
        let before = live::pods(client).await?;
        ensure!(before.values().all(|pod| pod.image.ends_with(OLDER)), "{before:?}");
        let seen = Mutex::new(Seen { pods: before.len(), before, ..Seen::default() });
        Ok(Self { bench, client: client.clone(), since: Instant::now(), seen })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("who holds it does not panic")
    }

    /// Waits until the operator of this tag has looked at everything, and notes which pods have changed.
    pub(crate) async fn settled(&self, what: &str, tag: &str) -> Result<()> {
        live::has_looked(self.bench, &self.client, tag).await?;
        self.note(what).await
    }

    /// Notes which pods have changed.
    pub(crate) async fn note(&self, what: &str) -> Result<()> {
        let now = live::pods(&self.client).await?;
        let mut seen = self.seen();
        let changed = live::changed(&seen.before, &now);
        let (seconds, pods) = (self.since.elapsed().as_secs_f64(), seen.before.len());
        println!("  {seconds:5.1} s {what}: {pods} pods, changed: {changed:?}");
        seen.restarted.extend(changed);
        Ok(())
    }

    /// From now on the pods of this namespace may change.
    pub(crate) fn lets_change(&self, case: &Case<'_>) {
        let namespace = format!("{}/", case.namespace);
        self.seen().before.retain(|name, _| !name.starts_with(&namespace));
    }

    /// Ends a client and keeps its count.
    pub(crate) fn end(&self, client: Client) {
        let (requests, failures) = client.end();
        failures.iter().for_each(|failure| println!("  failed: {failure}"));
        let mut seen = self.seen();
        seen.requests += requests;
        seen.failures.extend(failures);
    }

    /// All that was seen.
    pub(crate) fn report(&self, releases: &Releases) -> Value {
        let (seen, Releases { from, to, .. }) = (self.seen(), releases);
        json!({
            "from": from, "to": to, "pods": seen.pods, "restarted": seen.restarted.len(),
            "requests": seen.requests, "failed": seen.failures.len(),
        })
    }

    pub(crate) fn helm(&self, arguments: &[&str]) -> Result<String> {
        output(self.bench.lab.helm().args(arguments).args(["--namespace", NAMESPACE]))
    }

    /// The release's own test.
    pub(crate) fn test(&self) -> Result<()> {
        let told = self.helm(&["test", CHARTS[1]])?;
        ensure!(told.contains("Phase:          Succeeded"), "{told}");
        println!("  helm test succeeded");
        Ok(())
    }

    /// Newer, older, newer with other values, with an object that is paused and edited; then the release's own test,
    /// and the end of the pause.
    pub(crate) async fn up_and_down(&self, releases: &Releases, paused: &Case<'_>) -> Result<()> {
        self.settled("installed", OLDER).await?;
        self.bench.install_from(&releases.newer, &[])?;
        self.settled("upgraded", NEWER).await?;
        self.helm(&["rollback", CHARTS[1], "1", "--wait"])?;
        self.settled("rolled back", OLDER).await?;
        annotate(paused, json!("true")).await?;
        let edit = json!({ "spec": { "restart": "now", "replicas": 2 } });
        paused.deployments().patch("paused", &PatchParams::default(), &Patch::Merge(edit)).await?;
        let values = ["logLevel=debug", "replicas=2", "extraArgs={--no-scrape-annotations}"];
        let image = format!("runtime.image.tag={NEXT}");
        self.bench.install_from(&releases.newer, &[&values[..], &[&image]].concat())?;
        self.settled("upgraded with other values", NEWER).await?;
        ensure!(live::operators(&self.client).await?.len() == 2, "two operators were asked for");
        self.test()?;
        self.note("tested").await?;
        self.lets_change(paused);
        the_pause_ends(self, paused).await
    }

    /// Kinds that say more; then their release goes, and comes again, and what is of them stays.
    pub(crate) async fn kinds(&self, releases: &Releases) -> Result<()> {
        let has_field = || {
            let path = "jsonpath={.spec.versions[0].schema.openAPIV3Schema.properties.spec.properties}";
            let fields =
                self.bench.lab.run_kubectl(&["get", "crd", "llmdeployments.llmfleet.dev", "-o", path])?;
            anyhow::Ok(fields.contains(FIELD))
        };
        let [kinds, _] = with_a_field(&self.bench.lab, &releases.newer)?.0;
        let kinds = kinds.to_string_lossy().into_owned();
        self.helm(&["upgrade", CHARTS[0], &kinds, "--wait"])?;
        ensure!(has_field()?, "the kind has not got the field");
        self.note("kinds upgraded").await?;
        let objects = || self.bench.lab.run_kubectl(&["get", "llm,llmm", "-A", "-o", UIDS]);
        let before = objects()?;
        let told = self.helm(&["uninstall", CHARTS[0]])?;
        ensure!(told.contains("llmdeployments.llmfleet.dev"), "what is kept is told: {told}");
        ensure!(objects()? == before, "objects went with the release of their kinds");
        let [newer, _] = &releases.newer.0;
        let newer = newer.to_string_lossy().into_owned();
        self.helm(&["upgrade", "--install", CHARTS[0], &newer, "--wait"])?;
        ensure!(objects()? == before && !has_field()?, "the kinds that were kept are not the release's");
        self.note("kinds uninstalled and installed again").await
    }
}

/// UIDs of objects.
const UIDS: &str = "jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}{\"\\n\"}{end}";

async fn annotate(case: &Case<'_>, value: Value) -> Result<()> {
    let patch = json!({ "metadata": { "annotations": { PAUSED: value } } });
    case.deployments().patch("paused", &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// A paused object was left alone by edits and by another operator, and is caught up with after the pause.
async fn the_pause_ends(walk: &Walk<'_>, case: &Case<'_>) -> Result<()> {
    let before = case.pod_uids("paused").await?;
    ensure!(before.len() == 1, "a pause was not kept: {before:?}");
    annotate(case, Value::Null).await?;
    wait_for("what was missed to be done", LIMIT, async || {
        let status = case.status("paused").await?;
        ensure!(status["readyReplicas"] == 2, "{}", status["conditions"]);
        let now = case.pod_uids("paused").await?;
        ensure!(now.len() == 2 && !now.contains(&before[0]), "{before:?} became {now:?}");
        Ok(())
    })
    .await?;
    let pods = live::pods(&walk.client).await?;
    let of_case = pods.iter().filter(|(name, _)| name.starts_with(&format!("{}/", case.namespace)));
    let images: BTreeSet<&String> = of_case.map(|(_, pod)| &pod.image).collect();
    ensure!(images.iter().all(|image| image.ends_with(NEXT)), "a new pod has the new default: {images:?}");
    walk.note("the pause ended").await
}
