//! The program itself with the real model, over loopback.
//!
//! It needs `SmolLM2-135M-Instruct` as the README says; without the file every test fails and names it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "shared/model_file.rs"]
mod model_file;
#[path = "shared/server.rs"]
mod server;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use clap::Parser;
use contract::config::{CONFIG_VERSION, RuntimeConfig};
use contract::device::DeviceClass;
use contract::dtype::KvDType;
use contract::exit::{ExitReason, ExitReport};
use contract::http::{Phase, READYZ};
use kernels::Isa;
use runtime::command::serve::engine;
use runtime::config::Settings;
use runtime::http::App;
use runtime::http::admin::admin;
use runtime::progress::Tracker;
use serde_json::{Value, json};
use tower::ServiceExt;

use model_file::model_file;
use server::{Server, program};

const QUESTION: &str = "What does HTTP stand for?";
const ANSWER: &str = "HTTP stands for Hypertext Transfer Protocol";
const TERMINATION_LOG: &str = "LLMFLEET_TERMINATION_LOG";

fn chat(content: &str, extra: Value) -> Value {
    let message = json!({ "role": "user", "content": content });
    let mut body = json!({ "model": "smollm2", "messages": [message], "temperature": 0, "max_tokens": 40 });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

async fn smollm2() -> Server {
    let mut command = program();
    command.args(["--served-name", "smollm2", "--context-length", "2048", "--model"]).arg(model_file());
    Server::start(&mut command).await
}

async fn ask(server: &Server, content: &str, extra: Value) -> Value {
    let response = server.post("/v1/chat/completions", &chat(content, extra)).send().await.unwrap();
    let (status, text) = (response.status(), response.text().await.unwrap());
    assert_eq!(status.as_u16(), 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

/// Text and chunks of a stream, which must end with its mark.
fn read_stream(text: &str) -> (String, Vec<Value>) {
    let mut events: Vec<_> = text.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
    assert_eq!(events.pop(), Some("[DONE]"), "{text}");
    let chunks: Vec<Value> = events.into_iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    let text = chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
    (text, chunks)
}

#[tokio::test]
async fn the_real_model_answers() {
    let server = smollm2().await;
    let whole = ask(&server, QUESTION, json!({})).await;
    assert!(content(&whole).starts_with(ANSWER), "{whole}");
    let usage = &whole["usage"];
    assert!(usage["prompt_tokens"].as_u64().is_some_and(|n| (20..60).contains(&n)), "{usage}");
    assert!(usage["completion_tokens"].as_u64().is_some_and(|n| (8..=40).contains(&n)), "{usage}");

    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let response = server.post("/v1/chat/completions", &chat(QUESTION, options)).send().await.unwrap();
    let (text, chunks) = read_stream(&response.text().await.unwrap());
    assert_eq!(text, content(&whole));
    // The same, but for the block of the prompt that the first has left in the cache.
    let mut again = usage.clone();
    again["prompt_tokens_details"]["cached_tokens"] = json!(32);
    assert_eq!(chunks.last().unwrap()["usage"], again);
    assert!(chunks.len() > 8, "the answer came in pieces");

    let stopped = ask(&server, QUESTION, json!({"stop": ["Transfer Prot"]})).await;
    assert_eq!(content(&stopped), "HTTP stands for Hypertext ");
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");

    let warm = |seed: u64| json!({"temperature": 1.0, "top_p": 0.95, "seed": seed});
    let sea = "Write one sentence about the sea.";
    let (first, second) = (ask(&server, sea, warm(7)).await, ask(&server, sea, warm(7)).await);
    assert_eq!(content(&first), content(&second));
    assert_ne!(content(&first), content(&ask(&server, sea, warm(8)).await));

    let body =
        json!({"model": "smollm2", "prompt": "The capital of France is", "temperature": 0, "max_tokens": 3});
    let response = server.post("/v1/completions", &body).send().await.unwrap();
    let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert!(answer["choices"][0]["text"].as_str().unwrap().contains("Paris"), "{answer}");
    assert_eq!(answer["usage"]["completion_tokens"], 3);
}

#[tokio::test]
async fn many_at_once_get_what_each_would_get_alone() {
    let server = smollm2().await;
    let questions =
        [QUESTION, "Name three colours.", "What is two plus two?", "Write one sentence about the sea."];
    let mut alone = Vec::new();
    for question in questions {
        alone.push(content(&ask(&server, question, json!({})).await).to_owned());
    }
    let together = futures::future::join_all(questions.map(|q| ask(&server, q, json!({})))).await;
    assert_eq!(together.iter().map(content).collect::<Vec<_>>(), alone);
    let metrics = server.get("/metrics").await.1;
    let finished = metrics.lines().filter(|l| l.starts_with("vllm:request_success_total"));
    let n: f64 = finished.map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
    assert!((n - 8.0).abs() < f64::EPSILON, "{metrics}");
    let status: Value = serde_json::from_str(&server.get("/status").await.1).unwrap();
    for component in ["weights", "kvCache", "activations", "runtime"] {
        let bytes = |plan: &str| status[plan][component].as_u64().unwrap();
        assert!(bytes("measured") <= bytes("planned"), "{component}: {status}");
    }
    assert_eq!(status["measured"]["weights"], status["planned"]["weights"], "{status}");
}

#[tokio::test]
async fn a_stream_in_flight_outlives_the_request_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let config = RuntimeConfig {
        version: CONFIG_VERSION,
        served_name: "smollm2".into(),
        model_path: model_file().to_str().unwrap().into(),
        digest: None,
        device: DeviceClass::Cpu,
        context_length: Some(2048),
        kv_dtype: KvDType::F16,
        drain_seconds: 60,
    };
    let path = folder.path().join("runtime.json");
    std::fs::write(&path, config.to_json()).unwrap();
    let mut server = Server::start(program().arg("--config").arg(&path)).await;

    let long = chat("Write a long story about a ship.", json!({"stream": true, "max_tokens": 300}));
    let mut response = server.post("/v1/chat/completions", &long).send().await.unwrap();
    let mut text = String::from_utf8(response.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    server.signal(libc::SIGTERM);
    let began = Instant::now();
    while server.get("/readyz").await.0 == 200 {
        assert!(began.elapsed() < Duration::from_secs(2), "the program does not say that it drains");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Whoever has not heard of it yet is still served.
    assert!(content(&ask(&server, QUESTION, json!({})).await).starts_with("HTTP"));
    while let Some(chunk) = response.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    let (_, chunks) = read_stream(&text);
    assert!(chunks.last().unwrap()["choices"][0]["finish_reason"].is_string());
    assert!(server.exit(Duration::from_secs(70)).await.success());
}

#[derive(clap::Parser)]
struct Serve {
    #[command(flatten)]
    args: runtime::config::Args,
}

#[tokio::test]
async fn a_wrong_kernel_keeps_the_pod_unready() {
    let model = model_file();
    let arguments = ["serve", "--context-length", "512", "--model", model.to_str().unwrap()];
    let settings = Settings::new(&Serve::parse_from(arguments).args, None).unwrap();
    let app = App::new("smollm2", Tracker::default());
    let ready = async || {
        let request = Request::get(READYZ).body(Body::empty()).unwrap();
        admin(app.clone(), None).oneshot(request).await.unwrap().status()
    };
    let ended = engine(settings, Isa::wrong(), app.clone()).unwrap();
    let report = ended.await.unwrap().unwrap_err();
    assert_eq!(report.reason, ExitReason::SelfTestFailed, "{}", report.message);
    assert_eq!((ready().await, app.progress.phase()), (StatusCode::SERVICE_UNAVAILABLE, Phase::SelfTest));
}

#[test]
fn every_kernel_set_of_this_machine_passes_and_is_named() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_llm-fleet-runtime")).args(["selftest", "--threads", "2"]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let named: Vec<_> = lines.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(named, Isa::available().into_iter().map(Isa::name).collect::<Vec<_>>());
}

/// Runs the program until it fails, and reads its last words.
fn last_words(path: &Path, extra: &[&str]) -> ExitReport {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("termination-log");
    let mut command = program();
    command.arg("--model").arg(path).args(extra).env(TERMINATION_LOG, &log);
    let output = command.output().unwrap();
    assert!(output.status.code().is_some_and(|c| c != 0), "{output:?}");
    ExitReport::from_line(&std::fs::read_to_string(&log).unwrap()).expect("the last words are a report")
}

#[test]
fn what_cannot_be_served_says_so_and_exits() {
    let real = std::fs::read(model_file()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let cut = last_words(&write("cut.gguf", &real[..real.len() - 1000]), &[]);
    assert_eq!(cut.reason, ExitReason::WeightsCorrupt, "{}", cut.message);
    let mut huge = real[..64].to_vec();
    huge[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    let huge = last_words(&write("huge.gguf", &huge), &[]);
    assert_eq!(huge.reason, ExitReason::WeightsCorrupt, "{}", huge.message);
    // One byte of the first key's length: everything after it is read at the wrong place.
    let mut shifted = real;
    shifted[24] ^= 0x10;
    let shifted = last_words(&write("shifted.gguf", &shifted), &[]);
    assert_eq!(shifted.reason, ExitReason::WeightsCorrupt, "{}", shifted.message);
    let missing = last_words(&folder.path().join("none.gguf"), &[]);
    assert_eq!(missing.reason, ExitReason::SourceUnavailable, "{}", missing.message);
    assert!(
        missing.message.ends_with("beside it there is cut.gguf, huge.gguf, shifted.gguf"),
        "{}",
        missing.message
    );

    let small = last_words(&model_file(), &["--budget", "100Mi"]);
    assert_eq!(small.reason, ExitReason::BudgetTooSmall);
    assert!(small.message.contains("the budget of 100.00 MiB is too small"), "{}", small.message);
    let taken = last_words(&model_file(), &["--simulated-device", "1Gi"]);
    assert_eq!(taken.reason, ExitReason::DeviceMemoryTaken, "{}", taken.message);
}
