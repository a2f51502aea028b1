//! Brings the files of a checkpoint onto a volume: all of them, verified, or none.
//!
//! In: a checked [`FetchSpec`] and a folder. Out: a [`Manifest`] beside the published files.
//!
//! # Flow
//! 1. Lock the folder, remove what a killed run left behind.
//! 2. A manifest that names exactly these files, all present: done, nothing is fetched.
//! 3. Each file is streamed into a hidden folder on the same volume, hashed on its way, synced.
//! 4. The caller's check sees the staged folder; only then the files are renamed into place, and the manifest
//!    last: a volume that has one is complete.
//!
//! # Errors
//! Whatever fails, the hidden folder is removed, and files that were published before stay as they were.
//!
//! # Cancel safety
//! Dropping the future removes the hidden folder too; a killed process leaves it for the next run.

mod download;
mod retry;
mod volume;

use std::path::Path;
use std::time::Duration;

use contract::bytes::Bytes;
use contract::exit::{ExitReason, ExitReport};
use contract::fetch::{FetchFile, FetchSpec};
use contract::http::Phase;
use contract::manifest::Manifest;

pub use download::FetchError;
pub use retry::Retry;
pub(crate) use volume::free;
pub use volume::read_manifest;

use crate::exit;
use crate::progress::Tracker;
use download::Downloader;
use volume::{Volume, VolumeError};

/// Longest silence of a source in the middle of a file, and longest wait for a connection.
const SILENCE: Duration = Duration::from_secs(30);

/// How to fetch.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What is tried again, and when.
    pub retry: Retry,
    /// Longest silence of a source before the attempt counts as failed.
    pub silence: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { retry: Retry::default(), silence: SILENCE }
    }
}

impl From<VolumeError> for ExitReport {
    fn from(error: VolumeError) -> Self {
        exit::report(error.reason(), &error)
    }
}

impl From<FetchError> for ExitReport {
    fn from(error: FetchError) -> Self {
        exit::report(error.reason(), &error)
    }
}

/// Fetches `spec` into `output` and publishes it if `accept` has nothing against the staged folder.
pub async fn fetch<T>(
    spec: &FetchSpec,
    output: &Path,
    options: Options,
    progress: &Tracker,
    accept: impl FnOnce(&Path, &Manifest) -> Result<T, ExitReport>,
) -> Result<T, ExitReport> {
    progress.enter(Phase::Loading);
    let volume = Volume::open(output)?;
    if let Some(manifest) = volume.published(spec) {
        tracing::info!(digest = manifest.digest, "the volume already holds these files");
        let total = total(&manifest)?;
        progress.expect_bytes(total);
        progress.set_bytes(total);
        return accept(output, &manifest);
    }
    let staging = volume.stage()?;
    let downloader = Downloader::new(spec, options)?;
    if let Some(total) = downloader.total(&spec.files).await {
        progress.expect_bytes(total);
        staging.require(total)?;
    }
    let mut files = Vec::new();
    for file in &spec.files {
        files.push(one(&downloader, file, &staging, progress).await?);
    }
    let manifest = Manifest::new(files);
    let accepted = accept(staging.path(), &manifest)?;
    staging.publish(&manifest)?;
    Ok(accepted)
}

async fn one(
    downloader: &Downloader,
    file: &FetchFile,
    staging: &volume::Staging<'_>,
    progress: &Tracker,
) -> Result<contract::manifest::ManifestFile, ExitReport> {
    tracing::info!(path = file.path, from = retry::without_query(&file.url), "fetching");
    let done = downloader.fetch(file, staging, progress).await?;
    tracing::info!(path = done.path, bytes = done.bytes.0, sha256 = done.sha256, "verified");
    Ok(done)
}

fn total(manifest: &Manifest) -> Result<Bytes, ExitReport> {
    contract::manifest::total(&manifest.files).map_err(|e| exit::report(ExitReason::VolumeFailed, &e))
}

#[cfg(test)]
mod tests;
