//! The program as a process of its own, over loopback.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llm-fleet-runtime"));
    command.args([
        "--log-format",
        "json",
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--admin-port",
        "0",
    ]);
    command.stderr(Stdio::piped());
    command
}

/// A serving process. Dropping it kills it.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) api: String,
    pub(crate) admin: String,
    pub(crate) client: reqwest::Client,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts the program and waits until it is ready.
    pub(crate) async fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let (api, admin) = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the program ended before it listened");
            let Ok(entry) = serde_json::from_str::<Value>(&line) else { panic!("not a log line: {line}") };
            let fields = &entry["fields"];
            if let (Some(api), Some(admin)) = (fields["api"].as_str(), fields["admin"].as_str()) {
                break (format!("http://{api}"), format!("http://{admin}"));
            }
        };
        // Whoever does not read a pipe stops the one who writes to it.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::stderr()));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
        let server = Self { child, api, admin, client };
        let began = Instant::now();
        while server.get("/readyz").await.0 != 200 {
            assert!(began.elapsed() < Duration::from_secs(120), "the program does not become ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        server
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let response = self.client.get(format!("{}{path}", self.admin)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.client.post(format!("{}{path}", self.api)).body(body.to_string())
    }

    pub(crate) fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: the child has not been waited for, so its number is still its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    pub(crate) async fn exit(&mut self, within: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < within, "the program does not exit");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
