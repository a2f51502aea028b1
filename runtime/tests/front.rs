//! Who gets as far as the API: connections, encryption and keys, over real sockets, without a model behind them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use contract::http::{PING, VERSION};
use runtime::http::gate::Guard;
use runtime::http::keys::Keys;
use runtime::http::server::{Listening, serve};
use runtime::http::watched::{Watched, watch};
use runtime::http::{App, Front, app, tls};
use runtime::progress::Tracker;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Longest wait for anything here.
const SOON: Duration = Duration::from_secs(60);

struct Serving {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<()>,
}

async fn start(guard: Guard, most: usize, tls: Option<Watched<rustls::ServerConfig>>) -> Serving {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let state = App::open(Front { names: vec!["m".into()], guard, longest: None }, Tracker::default());
    let (stop, stopped) = oneshot::channel();
    let stopped = async { stopped.await.unwrap_or_default() };
    let ended = tokio::spawn(serve(Listening { listener, most, tls }, app(state), stopped));
    Serving { address, stop, ended }
}

/// Sends a request and reads the status of its answer; the connection stays open.
async fn status(tcp: &mut TcpStream, path: &str) -> Option<u16> {
    tcp.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = vec![0; 4096];
    let n = tcp.read(&mut answer).await.ok()?;
    std::str::from_utf8(&answer[..n]).ok()?.split(' ').nth(1)?.parse().ok()
}

#[tokio::test]
async fn those_who_have_been_idle_longest_make_room() {
    let server = start(Guard::default(), 8, None).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(status(&mut first, PING).await, Some(503));
    let mut others = Vec::new();
    for _ in 0..100 {
        let mut tcp = TcpStream::connect(server.address).await.unwrap();
        let answered = tokio::time::timeout(SOON, status(&mut tcp, VERSION)).await;
        assert_eq!(answered.unwrap(), Some(200), "the newest is served, however many there are");
        others.push(tcp);
    }
    // A few of the newest are left.
    assert_eq!(status(&mut first, PING).await, None);
    assert_eq!(status(others.last_mut().unwrap(), VERSION).await, Some(200));
    assert_eq!(status(&mut others[0], VERSION).await, None);

    server.stop.send(()).unwrap();
    tokio::time::timeout(SOON, server.ended).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn keys_change_with_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    std::fs::write(&path, "old\n").unwrap();
    let keys = watch(vec![path.clone()], Keys::parse).await.unwrap();
    let server = start(Guard { keys: Some(keys), origins: Vec::new() }, 8, None).await;
    let client = client(&[]);
    let with = async |key: &str| {
        let request = client.get(format!("http://{}{VERSION}", server.address)).bearer_auth(key);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!((with("old").await, with("new").await), (200, 401));
    let until = async |key: &str, expected: u16| {
        let began = Instant::now();
        while with(key).await != expected {
            assert!(began.elapsed() < SOON, "the file is not read again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    std::fs::write(&path, "new\n").unwrap();
    until("new", 200).await;
    assert_eq!(with("old").await, 401);
    // What cannot be used changes nothing, and is got over.
    std::fs::write(&path, "# nothing\n").unwrap();
    std::fs::write(&path, "newest\n").unwrap();
    until("newest", 200).await;
}

fn client(roots: &[&rcgen::Certificate]) -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let roots = roots.iter().map(|root| reqwest::Certificate::from_pem(root.pem().as_bytes()).unwrap());
    reqwest::Client::builder().tls_certs_only(roots).pool_max_idle_per_host(0).build().unwrap()
}

#[tokio::test]
async fn certificates_change_with_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = ["cert", "key"].iter().map(|name| folder.path().join(name)).collect();
    let write = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&files[1], made.signing_key.serialize_pem()).unwrap();
        std::fs::write(&files[0], made.cert.pem()).unwrap();
        made.cert
    };
    let first = write();
    let certificate = watch(files.clone(), tls::parse).await.unwrap();
    let server = start(Guard::default(), 8, Some(certificate)).await;
    let url = format!("https://localhost:{}{VERSION}", server.address.port());
    let asked = async |root| client(&[root]).get(&url).send().await.map(|answer| answer.status().as_u16());
    assert_eq!(asked(&first).await.unwrap(), 200);
    let second = write();
    let began = Instant::now();
    while !matches!(asked(&second).await, Ok(200)) {
        assert!(began.elapsed() < SOON, "the files are not read again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(asked(&first).await.is_err());
    let plain = format!("http://localhost:{}{VERSION}", server.address.port());
    assert!(client(&[]).get(plain).send().await.is_err(), "nothing is said in plain text");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_errors_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    assert!(watch(vec![path.clone()], Keys::parse).await.is_err());
    std::fs::write(&path, "").unwrap();
    assert!(watch(vec![path.clone()], Keys::parse).await.is_err());
    assert!(watch(vec![path.clone(), path], tls::parse).await.is_err());
}
