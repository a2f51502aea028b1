//! The budget is never passed, and used: the real model is driven to the edge of its plan, and the kernel says what is
//! there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "shared/model_file.rs"]
mod model_file;
#[path = "shared/server.rs"]
mod server;

use std::fs;
use std::path::Path;
use std::process::Command;

use futures::future::join_all;
use serde_json::{Value, json};

use model_file::model_file;
use server::{Server, program};

const MIB: u64 = 1 << 20;
/// What may be missing from the plan at its edge, where a tenth of it is less.
const SLACK: u64 = 48 * MIB;
/// What the allocator may keep of requests that are over.
const KEPT: u64 = 4 * MIB;
const CONTEXT: usize = 1024;
const SEQUENCES: usize = 4;
const WAVES: usize = 3;

/// Bytes of the process: anonymous, shared, and mapped from packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Taken {
    total: u64,
    packed: u64,
}

fn taken(pid: u32) -> Taken {
    let kib = |line: &str| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let own = status.lines().filter(|line| line.starts_with("RssAnon:") || line.starts_with("RssShmem:"));
    let own: u64 = own.map(kib).sum();
    let mut packed = 0;
    let mut is_packed = false;
    for line in fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap().lines() {
        match line.split_whitespace().next() {
            Some("Rss:") if is_packed => packed += kib(line),
            Some(first) if first.contains('-') && !first.ends_with(':') => {
                is_packed = line.ends_with(".llmfleet-packed");
            }
            _ => {}
        }
    }
    Taken { total: own + packed, packed }
}

/// As many requests at once as there are sequences and one more, each as long as the context and unlike the others.
async fn wave(server: &Server, wave: usize) {
    let ask = async |index: usize| {
        // Tokens of one byte each: the prompt has as many as words, give or take the end.
        let words: Vec<_> =
            (0..CONTEXT / 4).map(|n| format!("{}", (n * 7 + index * 13 + wave * 31) % 97)).collect();
        let body = json!({
            "model": "smollm2", "prompt": words.join(" "), "max_tokens": 64, "ignore_eos": true, "temperature": 1,
        });
        let response = server.post("/v1/completions", &body).send().await.unwrap();
        let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        answer["usage"]["total_tokens"].as_u64().unwrap()
    };
    let tokens: u64 = join_all((0..=SEQUENCES).map(ask)).await.into_iter().sum();
    println!("  wave {wave}: {tokens} tokens");
}

async fn to_the_edge(model: &Path, is_packed: bool) {
    let (context, sequences) = (CONTEXT.to_string(), SEQUENCES.to_string());
    let mut command = program();
    command.args(["--served-name", "smollm2", "--context-length", &context, "--concurrency", &sequences]);
    let server = Server::start(command.arg("--model").arg(model)).await;
    let pid = server.child.id();
    let status: Value = serde_json::from_str(&server.get("/status").await.1).unwrap();
    let budget: u64 = status["planned"].as_object().unwrap().values().map(|b| b.as_u64().unwrap()).sum();
    let ready = taken(pid);

    let mut most = ready;
    for number in 0..WAVES {
        let asking = wave(&server, number);
        tokio::pin!(asking);
        loop {
            most = most.max(taken(pid));
            tokio::select! {
                () = &mut asking => break,
                () = tokio::time::sleep(std::time::Duration::from_millis(50)) => {}
            }
        }
    }
    let after = taken(pid);
    println!("  packed {is_packed}: budget {budget}, ready {ready:?}, most {most:?}, after {after:?}");
    assert_eq!(most.packed > 0, is_packed);
    assert!(most.total <= budget, "{most:?} is more than the budget of {budget}");
    let least = (budget / 10 * 9).min(budget - SLACK);
    assert!(most.total >= least, "{most:?} is less than {least}: the plan asks for too much");
    assert!(after.total <= ready.total + KEPT, "it has grown from {ready:?} to {after:?}");
    let status: Value = serde_json::from_str(&server.get("/status").await.1).unwrap();
    for component in ["weights", "kvCache", "activations", "runtime"] {
        let bytes = |plan: &str| status[plan][component].as_u64().unwrap();
        assert!(bytes("measured") <= bytes("planned"), "{component}: {status}");
    }
}

#[tokio::test]
async fn the_budget_is_used_and_never_passed() {
    to_the_edge(&model_file(), false).await;
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("model.gguf");
    fs::copy(model_file(), &copy).unwrap();
    let packed =
        Command::new(env!("CARGO_BIN_EXE_llm-fleet-runtime")).arg("pack").arg(&copy).output().unwrap();
    assert!(packed.status.success(), "{packed:?}");
    to_the_edge(&copy, true).await;
}
