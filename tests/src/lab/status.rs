//! What a lab consists of now, and what a person can do with it.

use std::fmt::Write;

use anyhow::Result;

use super::Lab;
use crate::supervisor::protocol::{Process, ProcessState};

/// A table of processes and the ways in.
pub fn describe(lab: &Lab) -> Result<String> {
    let mut text = processes(&lab.supervisor().processes()?);
    let settings = lab.settings();
    let card = &settings.card;
    let lines = [
        ("cards", format!("{} × {} of {} MiB, simulated", card.count, card.product, card.memory_mib)),
        ("API server", lab.api_server_url()),
        ("Prometheus", lab.prometheus_url()),
        ("kubeconfig", lab.kubeconfig().display().to_string()),
        ("logs", lab.paths().join("log").display().to_string()),
    ];
    for (what, value) in lines {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{what:<12} {value}");
    }
    Ok(text)
}

fn processes(processes: &[Process]) -> String {
    let mut text = String::new();
    for process in processes {
        let state = match &process.state {
            ProcessState::Running => format!("running, {} MiB", process.resident_bytes >> 20),
            ProcessState::Ended(how) => format!("ended: {how}"),
        };
        let _ = writeln!(text, "{:<24} {state}", process.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ended_says_how() {
        let ended = ProcessState::Ended("SIGKILL".to_owned());
        let process = Process { name: "etcd".to_owned(), pid: 2, state: ended, resident_bytes: 0 };
        assert_eq!(
            processes(&[process]).split_whitespace().collect::<Vec<_>>(),
            ["etcd", "ended:", "SIGKILL"]
        );
    }
}
