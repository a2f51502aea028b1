//! Prometheus, scraping the pods that ask for it by annotation.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use super::site::{ConfigFile, Site};
use crate::addresses::PROMETHEUS;
use crate::paths::LabPaths;
use crate::supervisor::protocol::Spec;

/// The process's name.
pub const NAME: &str = "prometheus";
/// The file in which [`crate::discovery`] lists what to scrape.
pub fn targets(paths: &LabPaths) -> PathBuf {
    paths.join("config/targets.json")
}

/// Its configuration.
pub fn files(site: &Site<'_>) -> Vec<ConfigFile> {
    vec![(site.config("prometheus.yaml"), config(site).to_string())]
}

/// Its process.
pub fn process(site: &Site<'_>) -> Result<Spec> {
    let arguments = vec![
        format!("--config.file={}", site.config("prometheus.yaml").display()),
        format!("--storage.tsdb.path={}", site.paths.join("prometheus").display()),
        format!("--web.listen-address={PROMETHEUS}"),
        "--web.enable-lifecycle".to_owned(),
        "--log.level=warn".to_owned(),
    ];
    site.package(NAME, arguments)
}

/// Debian builds Prometheus without discovery by Kubernetes, so it reads a file and follows its changes.
fn config(site: &Site<'_>) -> serde_json::Value {
    json!({
        // Short enough for a demonstration to see its own requests.
        "global": { "scrape_interval": "5s", "scrape_timeout": "4s" },
        "scrape_configs": [{
            "job_name": "pods",
            "file_sd_configs": [{ "files": [targets(site.paths)] }],
            // Annotations may choose https; pods' certificates are their own.
            "tls_config": { "insecure_skip_verify": true },
        }],
    })
}
