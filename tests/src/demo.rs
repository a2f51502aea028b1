//! `make demo`: from nothing to a model that answers, with figures from a real Prometheus.
//!
//! In: images in `target/images`, the model in the cache, `DEMO_CLUSTER` and `DEMO_EXIT`. Out: a story on the
//! terminal and `target/reports/demo.json`. Everything on the way is what a user would do: Helm, kubectl, curl.

pub mod chat;
pub mod cluster;
pub mod prometheus;
pub mod report;
mod steps;
mod story;
pub mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::install::{Archive, repository};
use crate::lab::down;
use crate::lab::up::{self, Options};
use crate::paths::Cache;
use crate::progress::Progress;
use crate::tools::Tools;
use cluster::{Cluster, Foreign, Kind, Target};
use prometheus::Figure;
use report::Report;

/// The lab that the demo makes, apart from a developer's own.
const LAB: &str = "demo";
/// Where the demo's objects live; the manifests say the same.
const NAMESPACE: &str = "llm-demo";
/// The demo's LlmDeployment.
const DEPLOYMENT: &str = "smollm2";
const QUESTIONS: [(&str, &str); 2] = [
    ("What does HTTP stand for?", "HTTP stands for Hypertext Transfer Protocol"),
    ("Write one sentence about the sea.", ""),
];
/// A cold node must fetch the model first.
const READY_LIMIT: Duration = Duration::from_secs(300);
/// Two scrapes of the lab's Prometheus and some.
const SCRAPE_LIMIT: Duration = Duration::from_secs(45);

/// Runs the demo; `program` is the binary `lab` itself.
pub async fn run(program: PathBuf) -> Result<()> {
    let kind = Kind::parse(std::env::var("DEMO_CLUSTER").ok().as_deref())?;
    let exit = std::env::var("DEMO_EXIT").is_ok_and(|value| value == "1");
    let cache = Cache::from_env()?;
    let result = play(kind, &cache, program).await;
    if kind == Kind::Lab && (exit || result.is_err()) {
        if result.is_err() {
            story::evidence(&cache.lab(LAB)?);
        }
        if exit {
            down::down(&cache.lab(LAB)?).await?;
        }
    }
    result
}

async fn play(kind: Kind, cache: &Cache, program: PathBuf) -> Result<()> {
    let tools = Tools::locate(cache)?;
    tools.ensure(&["kubectl", "helm"]).await?;
    let images = steps::images(cache)?;

    story::chapter(1, "A Kubernetes cluster");
    let started = Instant::now();
    let (cluster, cluster_up) = match kind {
        Kind::Lab => {
            down::down(&cache.lab(LAB)?).await?;
            let lab = up::up(&Options { name: LAB.to_owned(), card: None, program }).await?;
            (Cluster::Lab(lab), started.elapsed())
        }
        other => (Cluster::Foreign(Foreign::find(other, &repository().join("target/demo"))?), Duration::ZERO),
    };
    let commands = steps::Commands { tools: &tools, cluster: &cluster };

    story::chapter(2, "llm-fleet, with Helm");
    let progress = Progress::start("Bringing images and charts");
    let names = progress.step("load images", None, async { steps::load(&cluster, &images) }).await?;
    progress.step("helm install", None, async { commands.install(&names) }).await?;
    progress
        .step("a place to download the model from", None, async { commands.model_source(&names) })
        .await?;
    progress.finish("Installed");

    story::chapter(3, "One kubectl apply");
    let manifest = steps::manifest(&cluster);
    story::quote(&manifest);
    let api = watch::deployments(cluster.client().await?, NAMESPACE);
    let applied = Instant::now();
    commands.apply(&manifest)?;
    let followed = watch::until_ready(api, DEPLOYMENT, READY_LIMIT, story::condition).await?;
    let apply_to_ready = applied.elapsed();
    story::placed(&followed);

    story::chapter(4, "Questions through the cluster's service");
    let target = Target { namespace: NAMESPACE, service: DEPLOYMENT, port: contract::http::API_PORT };
    let way = cluster.reach(&tools.path("kubectl"), target).await?;
    let mut streamed = 0;
    let mut first = None;
    for (question, _) in QUESTIONS {
        let answer = story::ask(&way.url, DEPLOYMENT, question).await?;
        streamed += answer.tokens;
        first.get_or_insert(answer);
    }
    let answer = first.context("there is a first question")?;

    story::chapter(5, "What Prometheus saw");
    let metrics = steps::Metrics::find(&cluster)?;
    let tokens = metrics.at_least(Figure::TokensTotal, streamed, SCRAPE_LIMIT).await?;
    let report = Report {
        cluster_up_seconds: cluster_up.as_secs_f64(),
        apply_to_ready_seconds: apply_to_ready.as_secs_f64(),
        phases: followed.phases.iter().map(|(name, took)| (*name, took.as_secs_f64())).collect(),
        question: QUESTIONS[0].0.to_owned(),
        answer: answer.text,
        ttft_seconds: metrics.read(Figure::TimeToFirstToken).await?,
        tokens_per_second: metrics.read(Figure::TokensPerSecond).await?,
        prometheus_tokens_total: tokens,
        operator_rss_bytes: metrics.bytes(Figure::OperatorRss).await?,
        runtime_rss_bytes: metrics.bytes(Figure::RuntimeRss).await?,
        image_bytes: sizes(&images)?,
    };
    let path = repository().join("target/reports/demo.json");
    report.write(&path)?;
    report.verify(QUESTIONS[0].1, streamed)?;
    story::summary(&report, &path);
    story::next(&cluster, &tools);
    Ok(())
}

fn sizes(images: &steps::Images) -> Result<BTreeMap<String, u64>> {
    let size = |image: &Archive| Ok((image.name.to_owned(), image.file.metadata()?.len()));
    images.ours.iter().map(size).collect()
}
