//! `make demo`: from nothing to a model that answers, with figures from a real Prometheus.
//!
//! In: images in `target/images`, the model in the cache, the user's [`wishes`]. Out: a story on the terminal and
//! `target/reports/demo.json`. Everything on the way is what a user would do: Helm, kubectl, curl.

pub mod chat;
pub mod cluster;
mod evidence;
pub mod prometheus;
pub mod report;
mod steps;
mod story;
mod traces;
pub mod watch;
pub mod wishes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::install::Archive;
use crate::lab::up::{self, Options};
use crate::lab::{Lab, down};
use crate::packages;
use crate::paths::{Cache, LabPaths, repository};
use crate::progress::Progress;
use crate::tools::Tools;
use cluster::{Cluster, Foreign, Target};
use prometheus::Figure;
use report::Report;
use wishes::{Kind, Wishes};

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

/// Says what is wanting for [`run`], before anything is built for it.
pub fn check(program: &Path) -> Result<()> {
    let wishes = Wishes::to_run()?;
    if wishes.kind == Kind::Lab { up::check(program) } else { Ok(()) }
}

/// Runs the demo; `program` is the binary `lab` itself.
pub async fn run(program: PathBuf) -> Result<()> {
    check(&program)?;
    let wishes = Wishes::to_run()?;
    let stage = Stage::new(&wishes)?;
    let result = play(&stage, program).await;
    if result.is_err() {
        let folder = repository().join("target/reports/demo-logs");
        // The failure itself is what matters, and is told at the end.
        match stage.keep_evidence(&folder) {
            Ok(()) => story::evidence(&folder),
            Err(error) => eprintln!("\n  What it left could not be copied: {error:#}"),
        }
    }
    if wishes.exit {
        match (stage.clear().await, &result) {
            (Ok(()), _) => {}
            (Err(error), Ok(())) => return Err(error.context("it went well, but could not be removed")),
            (Err(error), Err(_)) => eprintln!("\n  It could not be removed either: {error:#}"),
        }
    }
    result
}

/// Removes what the demo made.
pub async fn remove() -> Result<()> {
    Stage::new(&Wishes::to_remove()?)?.clear().await
}

/// Where the demo plays, whether its cluster is up or not.
struct Stage<'a> {
    wishes: &'a Wishes,
    cache: Cache,
    tools: Tools,
}

impl<'a> Stage<'a> {
    fn new(wishes: &'a Wishes) -> Result<Self> {
        let cache = Cache::from_env()?;
        Ok(Self { wishes, tools: Tools::locate(&cache)?, cache })
    }

    fn lab(&self) -> Result<LabPaths> {
        self.cache.lab(LAB)
    }

    fn foreign(&self) -> Result<Cluster> {
        Ok(Cluster::Foreign(Foreign::find(self.wishes, &repository().join("target/demo"))?))
    }

    fn keep_evidence(&self, folder: &Path) -> Result<()> {
        evidence::emptied(folder)?;
        let cluster = if self.wishes.kind == Kind::Lab {
            evidence::of_lab(&self.lab()?, folder)?;
            Lab::open(LAB).map(Cluster::Lab)
        } else {
            self.foreign()
        };
        match cluster {
            Ok(cluster) => {
                evidence::of_cluster(&steps::Commands { tools: &self.tools, cluster: &cluster }, folder)
            }
            // It never came up: there is nothing to ask.
            Err(_) => Ok(()),
        }
    }

    async fn clear(&self) -> Result<()> {
        if self.wishes.kind == Kind::Lab {
            return down::down(&self.lab()?).await;
        }
        self.tools.ensure(&["kubectl", "helm"]).await?;
        let cluster = self.foreign()?;
        let progress = Progress::start("Removing what the demo made");
        let commands = steps::Commands { tools: &self.tools, cluster: &cluster };
        progress.step("namespaces and releases", None, async { traces::remove(&commands) }).await?;
        progress.finish("The demo is gone");
        Ok(())
    }
}

async fn play(stage: &Stage<'_>, program: PathBuf) -> Result<()> {
    let tools = &stage.tools;
    tools.ensure(&["kubectl", "helm"]).await?;
    packages::ensure(&[packages::BUSYBOX], |what| eprintln!("{what}")).await?;
    let images = steps::images(&stage.cache)?;

    story::chapter(1, "A Kubernetes cluster");
    let (cluster, cluster_up) = if stage.wishes.kind == Kind::Lab {
        // What is built once is no part of bringing a cluster up.
        tools.ensure_for_lab().await?;
        packages::ensure(&packages::of_a_node(), |what| eprintln!("{what}")).await?;
        let started = Instant::now();
        down::down(&stage.lab()?).await?;
        let lab = up::up(&Options { name: LAB.to_owned(), card: None, program }).await?;
        (Cluster::Lab(lab), started.elapsed())
    } else {
        (stage.foreign()?, Duration::ZERO)
    };
    let commands = steps::Commands { tools, cluster: &cluster };
    let mut keep_kinds = true;
    if let Cluster::Foreign(foreign) = &cluster {
        eprintln!("  · yours, as {} names it", foreign.kubeconfig().display());
        if !foreign.brings_images() {
            images.ensure_there(&commands)?;
        }
        traces::claim(&commands)?;
        keep_kinds = traces::kinds_stay(&commands)?;
    }

    story::chapter(2, "llm-fleet, with Helm");
    let progress = Progress::start("Bringing images and charts");
    let names = progress.step("load images", None, async { steps::load(&cluster, &images) }).await?;
    progress.step("helm install", None, async { commands.install(&names, keep_kinds) }).await?;
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
    chat::until_reached(&way.url).await?;
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
    let path = repository().join("target/reports").join(stage.wishes.kind.report());
    report.write(&path)?;
    report.verify(QUESTIONS[0].1, streamed)?;
    story::summary(&report, &path);
    story::next(&cluster, tools);
    Ok(())
}

fn sizes(images: &steps::Images) -> Result<BTreeMap<String, u64>> {
    let size = |image: &Archive| Ok((image.name.to_owned(), image.file.metadata()?.len()));
    images.ours.iter().map(size).collect()
}
