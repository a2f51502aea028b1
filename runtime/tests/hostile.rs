//! What bad clients get, and what others notice of it: nothing. The program with the real model, over loopback.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "shared/model_file.rs"]
mod model_file;
#[path = "shared/server.rs"]
mod server;

use std::time::{Duration, Instant};

use contract::http::{CHAT_COMPLETIONS, COMPLETIONS, LOAD, METRICS};
use model_file::model_file;
use serde_json::{Value, json};
use server::{Server, program};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const QUESTION: &str = "What does HTTP stand for?";
/// Connections that the server allows here, and connections that do nothing.
const ALLOWED: &str = "256";
const IDLE: usize = 2000;
/// More bodies that never come than requests may wait.
const SLOW: usize = 100;
/// Longest wait for a server to lose patience.
const PATIENCE: Duration = Duration::from_secs(90);
/// What all of this may have cost the server for good.
const MOST_KEPT: f64 = (96 << 20) as f64;

async fn start() -> Server {
    let mut command = program();
    command.args(["--served-name", "smollm2", "--context-length", "2048", "--max-connections", ALLOWED]);
    Server::start(command.arg("--model").arg(model_file())).await
}

fn chat(content: &str, extra: Value) -> Value {
    let message = json!({ "role": "user", "content": content });
    let mut body = json!({ "model": "smollm2", "messages": [message], "temperature": 0, "max_tokens": 40 });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

async fn ask(server: &Server, question: &str) -> String {
    let answer = server.post(CHAT_COMPLETIONS, &chat(question, json!({}))).send().await.unwrap();
    let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
    assert_eq!(status, 200, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

async fn resident(server: &Server) -> f64 {
    let metrics = server.get(METRICS).await.1;
    let line = metrics.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    line.unwrap().parse().unwrap()
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.api.strip_prefix("http://").unwrap()).await.unwrap()
}

/// Sends bytes and reads the status of what comes back, `None` where there is nothing but an end.
async fn raw(server: &Server, bytes: &[u8]) -> Option<u16> {
    let mut tcp = connect(server).await;
    // The server may be through with us before we are.
    let _ = tcp.write_all(bytes).await;
    answer(&mut tcp).await
}

async fn answer(tcp: &mut TcpStream) -> Option<u16> {
    let mut bytes = vec![0; 4096];
    let n =
        tokio::time::timeout(PATIENCE, tcp.read(&mut bytes)).await.expect("the server ends it").unwrap_or(0);
    std::str::from_utf8(&bytes[..n]).ok()?.split(' ').nth(1)?.parse().ok()
}

#[tokio::test]
async fn idle_and_slow_clients_keep_nobody_from_being_served() {
    let server = start().await;
    let alone = ask(&server, QUESTION).await;
    let before = resident(&server).await;
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(connect(&server).await);
    }
    assert_eq!(ask(&server, QUESTION).await, alone);

    let head = format!("POST {CHAT_COMPLETIONS} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n");
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let mut tcp = connect(&server).await;
        tcp.write_all(format!("{head}\r\n{{").as_bytes()).await.unwrap();
        slow.push(tcp);
    }
    let mut loris = connect(&server).await;
    loris.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(ask(&server, QUESTION).await, alone);
    let (body, header) = tokio::join!(answer(&mut slow[0]), answer(&mut loris));
    assert_eq!((body, header), (Some(408), None), "each loses its patience");
    let kept = resident(&server).await - before;
    assert!(kept < MOST_KEPT, "{kept} bytes");
}

#[tokio::test]
async fn every_bad_request_is_told_what_is_wrong_with_it() {
    let server = start().await;
    let alone = ask(&server, QUESTION).await;
    let hi = |extra: Value| chat("Hi", extra).to_string().into_bytes();
    let deep = |open: &str, n: usize| format!("{{\"messages\":{}", open.repeat(n)).into_bytes();
    for (body, status, param, says) in [
        (b"{\"model\":".to_vec(), 400, None, "not valid JSON"),
        (b"\xff\xfe\xfd".to_vec(), 400, None, "not valid JSON"),
        (
            b"{\"model\":\"smollm2\",\"messages\":[{\"role\":\"user\",\"content\":\"\xc3\x28\"}]}".to_vec(),
            400,
            None,
            "not valid JSON",
        ),
        (deep("[", 100_000), 400, None, "deeper than 64"),
        (deep("{\"a\":", 100_000), 400, None, "deeper than 64"),
        (
            format!("{{\"prompt\":[{}0]}}", "0,".repeat(300_000)).into_bytes(),
            400,
            None,
            "more than 200000 values",
        ),
        (vec![b' '; 5 << 20], 413, None, "limit of 4194304 bytes"),
        (hi(json!({"model": "none"})), 404, Some("model"), "not served"),
        (hi(json!({"max_tokens": -1})), 400, Some("max_tokens"), "from 1 to"),
        (hi(json!({"max_tokens": 1e300})), 400, Some("max_tokens"), "from 1 to"),
        (hi(json!({"max_tokens": 1 << 20})), 400, Some("max_tokens"), "2048"),
        (hi(json!({"temperature": "hot"})), 400, Some("temperature"), "from 0 to 2"),
        (hi(json!({"stop": vec!["x"; 10_000]})), 400, Some("stop"), "at most 16"),
        (hi(json!({"n": 1_000_000})), 400, Some("n"), "n "),
        (
            hi(json!({"messages": [{"role": "user", "content": "a ".repeat(5000)}]})),
            400,
            Some("messages"),
            "context",
        ),
        (
            hi(json!({"messages": [{"role": "user", "content": "a".repeat(3 << 20)}]})),
            400,
            Some("messages"),
            "context",
        ),
        (hi(json!({"logit_bias": {"1": 1e9}})), 400, Some("logit_bias"), "-100 to 100"),
    ] {
        let request = server.client.post(format!("{}{CHAT_COMPLETIONS}", server.api)).body(body);
        let answer = request.send().await.unwrap();
        let (found, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        let error = &serde_json::from_str::<Value>(&text).unwrap()["error"];
        assert_eq!((found, error["param"].as_str()), (status, param), "{text}");
        assert!(error["message"].as_str().unwrap().contains(says), "{says}: {text}");
        assert!(text.len() < 1024 && error["type"].is_string(), "{text}");
    }

    let post = |headers: &str| format!("POST {COMPLETIONS} HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
    let huge = post("content-length: 100000000\r\n");
    assert_eq!(raw(&server, huge.as_bytes()).await, Some(413), "100 MB are not waited for");
    let mut chunked = post("transfer-encoding: chunked\r\n").into_bytes();
    for _ in 0..80 {
        chunked.extend(b"10000\r\n");
        chunked.extend([b' '; 0x10000]);
        chunked.extend(b"\r\n");
    }
    let status = raw(&server, &chunked).await;
    assert!(matches!(status, Some(413) | None), "{status:?}");
    assert_eq!(raw(&server, b"\x00\x01\x02\r\n\r\n").await, Some(400));
    assert_eq!(raw(&server, post(&"x: y\r\n".repeat(150)).as_bytes()).await, Some(431));
    assert_eq!(raw(&server, post(&format!("x: {}\r\n", "y".repeat(40 << 10))).as_bytes()).await, Some(431));
    assert_eq!(
        raw(&server, post(&format!("x: {}\r\n", "y".repeat(1 << 20))).as_bytes()).await.unwrap_or(431),
        431
    );
    assert_eq!(ask(&server, QUESTION).await, alone);
}

#[tokio::test]
async fn clients_that_vanish_leave_nothing_behind() {
    let server = start().await;
    let long = |n: usize| {
        chat(&format!("Write a long story, number {n}."), json!({"stream": true, "max_tokens": 1000}))
    };
    let mut streams = Vec::new();
    for n in 0..12 {
        let mut answer = server.post(CHAT_COMPLETIONS, &long(n)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        if n < 2 {
            answer.chunk().await.unwrap();
        }
        streams.push(answer);
    }
    drop(streams);
    let began = Instant::now();
    loop {
        let load =
            server.client.get(format!("{}{LOAD}", server.api)).send().await.unwrap().text().await.unwrap();
        let status: Value = serde_json::from_str(&server.get("/status").await.1).unwrap();
        if load == r#"{"server_load":0}"# && status["running"] == 0 && status["waiting"] == 0 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{load} {status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn logs_say_nothing_of_what_clients_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut command = program();
    command.args(["--served-name", "smollm2", "--context-length", "512", "--model"]).arg(model_file());
    command.env("RUST_LOG", "runtime=trace,info").stderr(std::fs::File::create(&path).unwrap());
    let mut child = command.spawn().unwrap();
    let log = || std::fs::read_to_string(&path).unwrap();
    let began = Instant::now();
    let api = loop {
        assert!(began.elapsed() < PATIENCE, "{}", log());
        let text = log();
        let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let fields: Vec<_> = entries.map(|entry| entry["fields"].clone()).collect();
        if fields.iter().any(|fields| fields["message"] == "ready") {
            break fields.iter().find_map(|fields| fields["api"].as_str().map(str::to_owned)).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
    let secret = "Xylophonist";
    for extra in [json!({}), json!({"stream": true}), json!({"temperature": 9}), json!({"made_up": secret})] {
        let body = chat(&format!("Spell {secret}."), extra).to_string();
        let request = client.post(format!("http://{api}{CHAT_COMPLETIONS}")).header("x-request-id", secret);
        request.bearer_auth(secret).body(body).send().await.unwrap().text().await.unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(log().len() > 100 && !log().contains(secret), "{}", log());
}
