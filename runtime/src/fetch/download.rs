//! One file from a URL into the staging folder, hashed while it streams, with bounded attempts.
//!
//! In: a [`FetchFile`]. Out: its [`ManifestFile`], whose sha256 is the one that was asked for.
//! It must not know what the file means.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use axum::body::Bytes as Chunk;
use contract::bytes::Bytes;
use contract::exit::ExitReason;
use contract::fetch::{FetchFile, FetchSpec};
use contract::manifest::ManifestFile;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, header};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::Options;
use super::retry::{is_transient, retry_after, without_query};
use super::volume::{Staging, VolumeError};
use crate::progress::Tracker;

/// Most redirects that are followed.
const MAX_REDIRECTS: usize = 10;
/// Chunks on their way to the disk: enough to keep it busy, too few to fill the memory.
const CHUNKS_IN_FLIGHT: usize = 64;

/// Why a file is not there.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no client to fetch with.
    #[error("no HTTPS client can be made; mount CA certificates and set SSL_CERT_FILE")]
    Client(#[source] reqwest::Error),
    /// The source answered, but not with the file.
    #[error("{url} answered {status}")]
    Status {
        /// The URL, without its query.
        url: String,
        /// The answer.
        status: StatusCode,
    },
    /// The source cannot be reached, sends us in circles, or falls silent.
    #[error("{url} cannot be fetched")]
    Transport {
        /// The URL, without its query.
        url: String,
        /// What happened.
        #[source]
        source: reqwest::Error,
    },
    /// The content is another one than was asked for.
    #[error("{url} has sha256 {got} in {bytes}, but {expected} was asked for")]
    Digest {
        /// The URL, without its query.
        url: String,
        /// What came.
        got: String,
        /// How much came.
        bytes: Bytes,
        /// What was asked for.
        expected: String,
    },
    /// The volume refused.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl FetchError {
    /// The reason that this stands for.
    pub(super) fn reason(&self) -> ExitReason {
        match self {
            Self::Client(_) | Self::Status { .. } | Self::Transport { .. } => ExitReason::SourceUnavailable,
            Self::Digest { .. } => ExitReason::DigestMismatch,
            Self::Volume(error) => error.reason(),
        }
    }
}

/// A failed attempt.
enum Failed {
    /// Another attempt would end the same way.
    ForGood(FetchError),
    /// Another attempt may succeed, after the pause that the source asked for.
    ForNow(FetchError, Option<Duration>),
}

impl From<VolumeError> for Failed {
    fn from(error: VolumeError) -> Self {
        Self::ForGood(error.into())
    }
}

/// Fetches files over one client.
pub(super) struct Downloader {
    client: Client,
    options: Options,
}

impl Downloader {
    pub(super) fn new(spec: &FetchSpec, options: Options) -> Result<Self, FetchError> {
        let builder = Client::builder()
            .user_agent(concat!("llm-fleet/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.silence)
            .read_timeout(options.silence)
            .referer(false)
            .redirect(Policy::custom(|attempt| {
                let downgrade = attempt.url().scheme() == "http"
                    && attempt.previous().last().is_some_and(|url| url.scheme() == "https");
                if downgrade {
                    attempt.error("a redirect from https to http is not followed")
                } else if attempt.previous().len() > MAX_REDIRECTS {
                    attempt.error(format!("more than {MAX_REDIRECTS} redirects"))
                } else {
                    attempt.follow()
                }
            }));
        // An image without CA certificates can still fetch from plain http.
        let https = spec.files.iter().any(|f| f.url.starts_with("https:"));
        let builder = if https { builder } else { builder.tls_certs_only([]) };
        Ok(Self { client: builder.build().map_err(FetchError::Client)?, options })
    }

    /// Bytes of all files, if every source tells them beforehand.
    pub(super) async fn total(&self, files: &[FetchFile]) -> Option<Bytes> {
        let mut total = Bytes::ZERO;
        for file in files {
            let answer = self.client.head(&file.url).send().await.ok()?;
            let answer = answer.error_for_status().ok()?;
            total = total.plus(Bytes(length(&answer)?)).ok()?;
        }
        Some(total)
    }

    /// Fetches one file, as often as it takes within bounds.
    pub(super) async fn fetch(
        &self,
        file: &FetchFile,
        staging: &Staging<'_>,
        progress: &Tracker,
    ) -> Result<ManifestFile, FetchError> {
        let before = progress.snapshot().bytes_done;
        let mut attempt = 1;
        loop {
            let (error, asked) = match self.attempt(file, staging, progress).await {
                Ok(done) => return Ok(done),
                Err(Failed::ForGood(error)) => return Err(error),
                Err(Failed::ForNow(error, asked)) => (error, asked),
            };
            progress.set_bytes(before);
            let Some(pause) = self.options.retry.pause(attempt, asked) else { return Err(error) };
            tracing::warn!(attempt, ?pause, error = crate::exit::chain(&error), "trying again");
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        file: &FetchFile,
        staging: &Staging<'_>,
        progress: &Tracker,
    ) -> Result<ManifestFile, Failed> {
        let url = without_query(&file.url).to_owned();
        let answer = self.client.get(&file.url).send().await.map_err(|e| transport(&url, e))?;
        let status = answer.status();
        if status != StatusCode::OK {
            let asked = answer.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok());
            let asked = retry_after(asked);
            let error = FetchError::Status { url, status };
            let transient = is_transient(status.as_u16());
            return Err(if transient { Failed::ForNow(error, asked) } else { Failed::ForGood(error) });
        }
        if let Some(need) = length(&answer) {
            staging.require(Bytes(need))?;
        }
        let target = staging.create(&file.path)?;
        let (bytes, got) =
            stream(answer, target, &file.path, progress).await?.map_err(|e| transport(&url, e))?;
        if got != file.sha256 {
            let expected = file.sha256.clone();
            return Err(Failed::ForGood(FetchError::Digest { url, got, bytes, expected }));
        }
        Ok(ManifestFile { path: file.path.clone(), bytes, sha256: got })
    }
}

fn length(answer: &Response) -> Option<u64> {
    // `content_length` would give the size of this answer's body, which for HEAD is none.
    answer.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn transport(url: &str, source: reqwest::Error) -> Failed {
    let for_good = source.is_redirect() || source.is_builder();
    let error = FetchError::Transport { url: url.to_owned(), source: source.without_url() };
    if for_good { Failed::ForGood(error) } else { Failed::ForNow(error, None) }
}

/// Copies a body into a file; gives its size and sha256, or how the source failed.
///
/// Hashing and writing block, so they have a thread of their own, fed through a bounded channel.
async fn stream(
    mut answer: Response,
    target: File,
    path: &str,
    progress: &Tracker,
) -> Result<Result<(Bytes, String), reqwest::Error>, VolumeError> {
    let (sender, receiver) = mpsc::channel::<Chunk>(CHUNKS_IN_FLIGHT);
    let writer = tokio::task::spawn_blocking(move || write(receiver, target));
    let source = loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => {
                let n = chunk.len() as u64;
                // The writer has ended early: it has failed, and says how below.
                if sender.send(chunk).await.is_err() {
                    break Ok(());
                }
                progress.add_bytes(n);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    drop(sender);
    let written = writer.await.expect("the writer does not panic and is not aborted");
    let written = written.map_err(VolumeError::io("write", path.as_ref()))?;
    Ok(source.map(|()| written))
}

fn write(mut chunks: mpsc::Receiver<Chunk>, mut file: File) -> std::io::Result<(Bytes, String)> {
    let mut hash = Sha256::new();
    let mut bytes = 0;
    while let Some(chunk) = chunks.blocking_recv() {
        file.write_all(&chunk)?;
        hash.update(&chunk);
        bytes += chunk.len() as u64;
    }
    file.sync_all()?;
    Ok((Bytes(bytes), hex::encode(hash.finalize())))
}
