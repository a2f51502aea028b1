//! What the demo does to a cluster, step by step, with the programs that a user has.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::cluster::Cluster;
use super::prometheus::{self, Figure};
use crate::image::Image;
use crate::install::{self, Archive, REGISTRY};
use crate::paths::{Cache, MODEL, repository};
use crate::process::{output, wait_for};
use crate::tools::Tools;

/// The web server's image; the manifest names it too.
const SOURCE_IMAGE: &str = "localhost/llm-fleet/model-source:demo";
/// How its archives are called, before the fingerprint.
const SOURCE_ARCHIVE: &str = "model-source-";
/// Most images that a kubelet tells of.
const NODE_IMAGES: usize = 50;
/// kubectl's patience.
const PATIENCE: &str = "120s";

/// All that the demo brings.
#[derive(Debug)]
pub(super) struct Images {
    pub(super) ours: Vec<Archive>,
    source: Archive,
}

/// Finds our images and packs the model into a web server's.
pub(super) fn images(cache: &Cache) -> Result<Images> {
    let ours = install::archives()?;
    let model = cache.model();
    ensure!(model.is_file(), "{} is missing: run `make model`", model.display());
    let source = Image {
        name: SOURCE_IMAGE.to_owned(),
        files: vec![("/bin/busybox".into(), "/bin/busybox".to_owned()), (model, format!("/models/{MODEL}"))],
        links: Vec::new(),
        entrypoint: ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/models"]
            .map(str::to_owned)
            .to_vec(),
    };
    // Named after what is in it, and written whole: one that is there is right.
    let folder = repository().join("target/images");
    let file = folder.join(format!("{SOURCE_ARCHIVE}{}.tar", source.fingerprint()?));
    if !file.is_file() {
        for old in fs::read_dir(&folder)?.flatten() {
            if old.file_name().to_string_lossy().starts_with(SOURCE_ARCHIVE) && old.path().is_file() {
                fs::remove_file(old.path())?;
            }
        }
        source.write(&file)?;
    }
    let source = Archive { name: "model-source", reference: SOURCE_IMAGE.to_owned(), file };
    Ok(Images { ours, source })
}

impl Images {
    /// Fails where nobody brings the images to the nodes and they are not there, and says which to load.
    pub(super) fn ensure_there(&self, commands: &Commands<'_>) -> Result<()> {
        let nodes = serde_json::from_str(&commands.kubectl(&["get", "nodes", "--output=json"])?)?;
        let all = self.ours.iter().chain([&self.source]);
        let missing = all.filter(|image| !is_there(&nodes, &image.reference));
        let files: String = missing.map(|image| format!("\n  {}", image.file.display())).collect();
        ensure!(
            files.is_empty(),
            "no node has these images: load them there, or name a registry in DEMO_REGISTRY{files}\n\
             (a node tells of images up to a minute after it got them)"
        );
        Ok(())
    }
}

/// Whether some node has an image, as far as nodes tell: they name no more than so many.
fn is_there(nodes: &Value, reference: &str) -> bool {
    let items = nodes["items"].as_array().into_iter().flatten();
    items.filter_map(|node| node["status"]["images"].as_array()).any(|images| {
        let named =
            |image: &Value| image["names"].as_array().into_iter().flatten().any(|name| name == reference);
        images.len() >= NODE_IMAGES || images.iter().any(named)
    })
}

/// The names under which the cluster finds the images.
pub(super) struct Names {
    registry: String,
    source: String,
}

/// Brings all images to the cluster.
pub(super) fn load(cluster: &Cluster, images: &Images) -> Result<Names> {
    let mut registry = REGISTRY.to_owned();
    for image in &images.ours {
        let loaded = cluster.load_image(&image.file, &image.reference)?;
        registry = loaded.split("/llm-fleet/").next().context("an image has a registry")?.to_owned();
    }
    let source = cluster.load_image(&images.source.file, &images.source.reference)?;
    Ok(Names { registry, source })
}

/// The manifest that the user would write. The lab has cards, if simulated ones; a user's test cluster may not.
pub(super) fn manifest(cluster: &Cluster) -> String {
    let manifest = include_str!("../../demo/smollm2.yaml");
    match cluster {
        Cluster::Lab(_) => manifest.to_owned(),
        Cluster::Foreign(_) => manifest.replace("class: Nvidia", "class: CPU"),
    }
}

/// Programs on this cluster.
pub(super) struct Commands<'a> {
    pub(super) tools: &'a Tools,
    pub(super) cluster: &'a Cluster,
}

impl Commands<'_> {
    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(self.tools.path(name));
        command.env("KUBECONFIG", self.cluster.kubeconfig());
        command
    }

    pub(super) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        output(self.tool("kubectl").args(arguments))
    }

    pub(super) fn helm(&self, arguments: &[&str]) -> Result<String> {
        output(self.tool("helm").args(arguments))
    }

    /// Installs both charts.
    pub(super) fn install(&self, names: &Names, keep_kinds: bool) -> Result<()> {
        let simulated = matches!(self.cluster, Cluster::Lab(_));
        let values = [format!("imageRegistry={}", names.registry), format!("simulatedDevices={simulated}")];
        install::charts_with(|| self.tool("helm"), &[format!("keep={keep_kinds}")], &values)
    }

    /// Starts the web server that has the model.
    pub(super) fn model_source(&self, names: &Names) -> Result<()> {
        self.apply(&include_str!("../../demo/model-source.yaml").replace(SOURCE_IMAGE, &names.source))?;
        let namespace = ["--namespace", super::NAMESPACE];
        let rollout = ["rollout", "status", "deployment/model-source", "--timeout", PATIENCE];
        output(self.tool("kubectl").args(namespace).args(rollout)).map(drop)
    }

    /// `kubectl apply`.
    pub(super) fn apply(&self, manifest: &str) -> Result<()> {
        let file = std::env::temp_dir().join(format!("llm-fleet-demo-{}.yaml", std::process::id()));
        std::fs::write(&file, manifest)?;
        let result = output(self.tool("kubectl").args(["apply", "--filename"]).arg(&file));
        std::fs::remove_file(&file)?;
        result.map(drop)
    }
}

/// The Prometheus that scrapes the cluster.
pub(super) struct Metrics {
    base: String,
}

impl Metrics {
    /// The lab's own, or the one that the user names.
    pub(super) fn find(cluster: &Cluster) -> Result<Self> {
        let base = match cluster {
            Cluster::Lab(lab) => Some(lab.prometheus_url()),
            Cluster::Foreign(foreign) => foreign.prometheus(),
        };
        Ok(Self { base: base.context("DEMO_PROMETHEUS is not set")? })
    }

    pub(super) async fn read(&self, figure: Figure) -> Result<f64> {
        prometheus::read(&self.base, figure).await
    }

    /// A whole number of at most 2^53, as Prometheus counts.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
    pub(super) async fn bytes(&self, figure: Figure) -> Result<u64> {
        let value = self.read(figure).await?;
        ensure!((0.0..9e15).contains(&value), "{figure:?} is {value}");
        Ok(value as u64)
    }

    /// Waits until a scrape has brought at least `least`.
    pub(super) async fn at_least(&self, figure: Figure, least: u64, limit: Duration) -> Result<u64> {
        wait_for("a scrape", limit, async || {
            let value = self.bytes(figure).await?;
            if value < least {
                bail!("Prometheus has {value} of {least} so far");
            }
            Ok(value)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_image_is_there_if_a_node_names_it_or_names_no_more() {
        let node = |names: &[String]| {
            let images: Vec<_> = names.iter().map(|name| json!({ "names": [name] })).collect();
            json!({ "status": { "images": images } })
        };
        let cluster = |nodes: &[Value]| json!({ "items": nodes });
        let (empty, has) = (node(&[]), node(&["localhost/a:1".to_owned()]));
        assert!(is_there(&cluster(&[empty.clone(), has]), "localhost/a:1"));
        assert!(!is_there(&cluster(&[empty.clone(), node(&["localhost/a:2".to_owned()])]), "localhost/a:1"));
        let full: Vec<String> = (0..NODE_IMAGES).map(|n| n.to_string()).collect();
        assert!(is_there(&cluster(&[empty, node(&full)]), "localhost/a:1"));
    }
}
