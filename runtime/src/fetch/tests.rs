//! Against a real server on loopback that misbehaves in every way that a source can.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{any, get};
use contract::manifest::MANIFEST_FILE;
use futures::StreamExt;
use futures::stream;
use sha2::{Digest, Sha256};

use super::*;

const BODY: &[u8] = b"weights of a very small model";

/// Requests that the server has seen.
type Seen = Arc<AtomicUsize>;

struct Source {
    base: String,
    seen: Seen,
}

/// Declares `length` bytes, sends `BODY`, and then either ends or says nothing for ever.
fn liar(length: u64, stalls: bool) -> Response {
    let sent = stream::iter([Ok::<_, std::io::Error>(BODY)]);
    let rest = stream::pending();
    let body = if stalls { Body::from_stream(sent.chain(rest)) } else { Body::from_stream(sent) };
    ([(header::CONTENT_LENGTH, length.to_string())], body).into_response()
}

async fn flaky(State(seen): State<Seen>) -> Response {
    match seen.load(Ordering::SeqCst) {
        ..=1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        2 => (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "0")]).into_response(),
        _ => BODY.into_response(),
    }
}

async fn source() -> Source {
    let seen = Seen::default();
    let count = seen.clone();
    // HEAD is refused, as by a signed URL, so that every request counted is one for content.
    let app = Router::new()
        .route("/good", get(async || BODY).head(async || StatusCode::FORBIDDEN))
        .route("/flaky", any(flaky))
        .route("/truncated", any(async || liar(1000, false)))
        .route("/stalling", any(async || liar(1000, true)))
        .route("/endless", any(async || liar(1 << 60, true)))
        .route("/loop", any(async || Redirect::temporary("/loop")))
        .route("/moved", any(async || Redirect::permanent("/good")))
        .route("/denied", any(async || StatusCode::UNAUTHORIZED))
        .with_state(seen.clone())
        .layer(axum::middleware::map_request(move |request: axum::extract::Request| {
            if request.method() == axum::http::Method::GET {
                count.fetch_add(1, Ordering::SeqCst);
            }
            async { request }
        }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    Source { base, seen }
}

fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

fn quick() -> Options {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retry = Retry { attempts: 4, first: Duration::from_millis(1) };
    Options { retry, silence: Duration::from_millis(300) }
}

struct Case {
    source: Source,
    volume: tempfile::TempDir,
}

impl Case {
    async fn new() -> Self {
        Self { source: source().await, volume: tempfile::tempdir().unwrap() }
    }

    fn file(&self, route: &str, path: &str) -> FetchFile {
        let url = format!("{}{route}?X-Signature=secret", self.source.base);
        FetchFile { url, sha256: sha256(BODY), path: path.into() }
    }

    async fn fetch(&self, files: Vec<FetchFile>) -> Result<Manifest, ExitReport> {
        let (spec, progress) = (FetchSpec { files }, Tracker::default());
        fetch(&spec, self.volume.path(), quick(), &progress, |_, manifest| Ok(manifest.clone())).await
    }

    async fn fails(&self, route: &str) -> ExitReport {
        // A good file comes first, so that there is something to abandon.
        let report =
            self.fetch(vec![self.file("/good", "first"), self.file(route, "second")]).await.unwrap_err();
        assert_eq!(self.names(), [""; 0], "nothing half-written is left");
        assert!(!report.message.contains("secret"), "{}", report.message);
        report
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.volume.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn path(&self, name: &str) -> PathBuf {
        self.volume.path().join(name)
    }
}

#[tokio::test]
async fn all_files_or_none_are_published_and_recognised_later() {
    let case = Case::new().await;
    let files = vec![case.file("/moved", "model.gguf"), case.file("/good", "a/b/config.json")];
    let manifest = case.fetch(files.clone()).await.unwrap();
    assert_eq!(fs::read(case.path("a/b/config.json")).unwrap(), BODY);
    assert_eq!(case.names(), [MANIFEST_FILE, "a", "model.gguf"]);
    assert_eq!(volume::read_manifest(case.volume.path()).unwrap(), manifest);
    assert_eq!(manifest.digest, contract::manifest::digest(&manifest.files));

    let seen = case.source.seen.load(Ordering::SeqCst);
    assert_eq!(case.fetch(files.clone()).await.unwrap(), manifest);
    assert_eq!(case.source.seen.load(Ordering::SeqCst), seen, "nothing is fetched twice");

    fs::write(case.path("model.gguf"), b"cut").unwrap();
    case.fetch(files).await.unwrap();
    assert_eq!(fs::read(case.path("model.gguf")).unwrap(), BODY, "a damaged volume is repaired");

    case.fetch(vec![case.file("/good", "other.gguf")]).await.unwrap();
    assert!(!case.path("model.gguf").exists(), "files of an older manifest go");
}

#[tokio::test]
async fn what_will_not_change_is_not_tried_again() {
    let case = Case::new().await;
    let report = case.fails("/missing").await;
    assert_eq!(report.reason, ExitReason::SourceUnavailable);
    assert!(report.message.ends_with("/missing answered 404 Not Found"), "{}", report.message);
    assert_eq!(case.fails("/denied").await.reason, ExitReason::SourceUnavailable);
    assert_eq!(case.source.seen.load(Ordering::SeqCst), 4);
    let report = case.fails("/loop").await;
    assert_eq!(report.reason, ExitReason::SourceUnavailable);
    assert!(report.message.contains("more than 10 redirects"), "{}", report.message);
}

#[tokio::test]
async fn what_may_change_is_tried_again_within_bounds() {
    let case = Case::new().await;
    case.fetch(vec![case.file("/flaky", "model.gguf")]).await.unwrap();
    assert_eq!(case.source.seen.load(Ordering::SeqCst), 3);
    for route in ["/truncated", "/stalling"] {
        let case = Case::new().await;
        assert_eq!(case.fails(route).await.reason, ExitReason::SourceUnavailable, "{route}");
        assert_eq!(case.source.seen.load(Ordering::SeqCst), 5, "{route}: one good file and four attempts");
    }
}

#[tokio::test]
async fn an_unreachable_source_is_named() {
    let case = Case::new().await;
    // Port 9 of loopback has no listener; the address is ours alone.
    let mut file = case.file("/good", "model.gguf");
    file.url = "http://127.0.0.1:9/model.gguf".into();
    let report = case.fetch(vec![file]).await.unwrap_err();
    assert_eq!(report.reason, ExitReason::SourceUnavailable);
    assert!(report.message.contains("127.0.0.1:9/model.gguf cannot be fetched"), "{}", report.message);
}

#[tokio::test]
async fn other_content_than_asked_for_is_refused() {
    let case = Case::new().await;
    let mut file = case.file("/good", "model.gguf");
    file.sha256 = sha256(b"something else");
    let report = case.fetch(vec![file]).await.unwrap_err();
    assert_eq!(report.reason, ExitReason::DigestMismatch);
    assert!(report.message.contains(&sha256(BODY)) && report.message.contains(&sha256(b"something else")));
    assert_eq!(case.names(), [""; 0]);
}

#[tokio::test]
async fn a_file_larger_than_the_volume_is_refused_before_it_comes() {
    let case = Case::new().await;
    let report = case.fails("/endless").await;
    assert_eq!(report.reason, ExitReason::VolumeFull);
    assert!(report.message.contains("1048576.00 TiB are needed"), "{}", report.message);
}

#[test]
fn a_volume_that_fills_up_is_told_from_one_that_fails() {
    // The device that is always full stands for the volume.
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let source = std::io::Write::write_all(&mut &full, BODY).unwrap_err();
    let error = VolumeError::io("write", "model.gguf".as_ref())(source);
    assert_eq!(error.reason(), ExitReason::VolumeFull);
    let denied = VolumeError::io("write", "x".as_ref())(std::io::ErrorKind::PermissionDenied.into());
    assert_eq!(denied.reason(), ExitReason::VolumeFailed);
}

#[tokio::test]
async fn what_the_check_refuses_is_not_published() {
    let case = Case::new().await;
    let spec = FetchSpec { files: vec![case.file("/good", "model.gguf")] };
    let progress = Tracker::default();
    let refused = ExitReport { reason: ExitReason::WeightsCorrupt, message: "no model".into() };
    let result = fetch(&spec, case.volume.path(), quick(), &progress, |folder, _| {
        assert!(folder.join("model.gguf").exists());
        Err::<(), _>(refused.clone())
    });
    assert_eq!(result.await.unwrap_err(), refused);
    assert_eq!(case.names(), [""; 0]);
}

#[tokio::test]
async fn two_fetches_never_share_a_volume_and_leftovers_are_swept() {
    let case = Case::new().await;
    fs::create_dir(case.path(".llmfleet-partial")).unwrap();
    fs::write(case.path(".llmfleet-partial/half"), b"half").unwrap();
    let held = Volume::open(case.volume.path()).unwrap();
    assert_eq!(case.names(), [""; 0]);
    let report = case.fetch(vec![case.file("/good", "model.gguf")]).await.unwrap_err();
    assert_eq!(report.reason, ExitReason::VolumeFailed);
    drop(held);
    case.fetch(vec![case.file("/good", "model.gguf")]).await.unwrap();
}

#[tokio::test]
async fn abandoning_a_fetch_removes_what_it_wrote() {
    let case = Case::new().await;
    let stalled = case.fetch(vec![case.file("/good", "first"), case.file("/stalling", "second")]);
    assert!(tokio::time::timeout(Duration::from_millis(150), stalled).await.is_err());
    assert_eq!(case.names(), [""; 0]);
}
