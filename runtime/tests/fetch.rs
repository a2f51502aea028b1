//! The program itself: what a fetch job does on a volume when it is killed, stopped, or gets what is no model.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use contract::exit::{ExitReason, ExitReport};
use contract::fetch::{FetchFile, FetchSpec};
use sha2::{Digest, Sha256};

const PARTIAL: &str = ".llmfleet-partial";

/// Answers every request with `body`; if it `stalls`, only with its first half, and then says nothing more.
fn source(body: &'static [u8], stalls: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/model.gguf", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let _ = connection.read(&mut [0; 4096]);
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let sent = if stalls { &body[..body.len() / 2] } else { body };
            let _ = connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(sent));
            if stalls {
                open.push(connection);
            }
        }
    });
    url
}

fn fetch(url: &str, body: &[u8], volume: &Path) -> Command {
    let sha256 = hex::encode(Sha256::digest(body));
    let spec = FetchSpec { files: vec![FetchFile { url: url.into(), sha256, path: "model.gguf".into() }] };
    let mut command = Command::new(env!("CARGO_BIN_EXE_llm-fleet-runtime"));
    command.args(["fetch", "--line", "--admin-port", "0", "--spec", &spec.to_json(), "--output"]).arg(volume);
    command.env("LLMFLEET_TERMINATION_LOG", volume.with_extension("words"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn reason(volume: &Path) -> ExitReason {
    let words = fs::read_to_string(volume.with_extension("words")).unwrap();
    ExitReport::from_line(&words).expect("the termination message is a report").reason
}

fn names(volume: &Path) -> Vec<String> {
    fs::read_dir(volume).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

/// Starts a fetch from a source that stalls, and waits until half of the file is on the volume.
fn stalled(volume: &Path, body: &'static [u8]) -> Child {
    let child = fetch(&source(body, true), body, volume).spawn().unwrap();
    let began = Instant::now();
    let half = volume.join(PARTIAL).join("model.gguf");
    while fs::metadata(&half).map_or(0, |m| m.len()) < body.len() as u64 / 2 {
        assert!(began.elapsed() < Duration::from_secs(20), "the fetch never began to write");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

fn end(mut child: Child, signal: libc::c_int) -> Output {
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    // SAFETY: the child has not been waited for, so its number is still its own.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(10), "the fetch does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

static JUNK: [u8; 100_000] = [7; 100_000];

#[test]
fn a_killed_run_leaves_nothing_that_the_next_one_keeps() {
    let folder = tempfile::tempdir().unwrap();
    let volume = folder.path().join("volume");
    fs::create_dir(&volume).unwrap();
    end(stalled(&volume, &JUNK), libc::SIGKILL);
    assert_eq!(names(&volume), [PARTIAL], "what was not finished is only ever in the hidden folder");

    // The next run gets the whole file, which is no model: nothing is published, and nothing is left.
    let output = fetch(&source(&JUNK, false), &JUNK, &volume).output().unwrap();
    assert!(!output.status.success());
    assert_eq!((reason(&volume), names(&volume)), (ExitReason::WeightsCorrupt, vec![]));
}

#[test]
fn a_stopped_run_cleans_up_after_itself() {
    let folder = tempfile::tempdir().unwrap();
    let volume = folder.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let output = end(stalled(&volume, &JUNK), libc::SIGTERM);
    assert!(!output.status.success());
    assert_eq!(names(&volume), [""; 0]);
}

#[test]
fn a_spec_that_would_leave_the_volume_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let volume = folder.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_llm-fleet-runtime"));
    let spec =
        format!(r#"{{"files":[{{"url":"http://h/x","sha256":"{}","path":"../x"}}]}}"#, "0f".repeat(32));
    command.args(["fetch", "--spec", &spec, "--output"]).arg(&volume);
    let output = command.env("LLMFLEET_TERMINATION_LOG", volume.with_extension("words")).output().unwrap();
    assert!(!output.status.success());
    assert_eq!(reason(&volume), ExitReason::ConfigInvalid);
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a plain relative path"));
}
