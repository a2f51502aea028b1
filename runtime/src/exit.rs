//! The last words of a process: one JSON line where Kubernetes reads it, one sentence for a person.
//!
//! In: an error and the reason that it stands for. Out: an [`ExitReport`], written once, at the very end.
//! It must not decide what went wrong.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::{self, Write};

use contract::exit::{ExitReason, ExitReport, TERMINATION_LOG};

/// Environment: another place for the termination message than Kubernetes's own.
pub const ENV_TERMINATION_LOG: &str = "LLMFLEET_TERMINATION_LOG";

/// The report of an error: its whole chain in one sentence.
#[must_use]
pub fn report(reason: ExitReason, error: &dyn Error) -> ExitReport {
    ExitReport { reason, message: chain(error) }
}

/// An error and its sources, joined by colons.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

/// Writes the report where Kubernetes reads it, if that place exists, and to standard error.
pub fn last_words(report: &ExitReport) {
    eprintln!("error: {} ({:?})", report.message, report.reason);
    if let Err(error) = write(report) {
        eprintln!("the termination message could not be written: {error}");
    }
}

fn write(report: &ExitReport) -> io::Result<()> {
    let line = report.to_line();
    match std::env::var_os(ENV_TERMINATION_LOG) {
        Some(path) => std::fs::write(path, line),
        // Outside Kubernetes the file does not exist, and is not ours to make.
        None => match OpenOptions::new().write(true).truncate(true).open(TERMINATION_LOG) {
            Ok(mut file) => file.write_all(line.as_bytes()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        },
    }
}

/// From now on a panic, which is a bug, leaves its message behind as well and ends the whole process: a replica
/// that has lost its engine thread must not linger as if it served.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = format!("a bug in the runtime: {panic}");
        last_words(&ExitReport { reason: ExitReason::Internal, message });
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the weights")]
    struct Outer(#[source] io::Error);

    #[test]
    fn the_whole_chain_is_told() {
        let error = Outer(io::Error::other("disk on fire"));
        assert_eq!(
            report(ExitReason::WeightsCorrupt, &error).message,
            "cannot read the weights: disk on fire"
        );
    }
}
