//! Shows a person what is being done, how long it took, and, on a long step, that it still goes on.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How often a step that takes long says so.
const REMINDER: Duration = Duration::from_secs(15);

/// Prints one line per step to standard error, so that standard output stays for results.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
}

impl Progress {
    /// Says what is about to happen and starts the clock.
    pub fn start(what: &str) -> Self {
        eprintln!("{what}");
        Self { started: Instant::now() }
    }

    /// Runs one step. `expected_seconds` is shown beside the elapsed time when the step takes long.
    pub async fn step<T>(
        &self,
        what: &str,
        expected_seconds: Option<u32>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let started = Instant::now();
        let mut work = std::pin::pin!(work);
        let result = loop {
            match tokio::time::timeout(REMINDER, work.as_mut()).await {
                Ok(result) => break result,
                Err(_) => eprintln!("  … {what}: {}", long(started.elapsed(), expected_seconds)),
            }
        };
        let mark = if result.is_ok() { "✓" } else { "✗" };
        eprintln!("  {mark} {what:<52} {:>6.1} s", started.elapsed().as_secs_f32());
        result
    }

    /// Says something in between.
    pub fn note(&self, what: &str) {
        eprintln!("  · {what}");
    }

    /// The last line, with the total.
    pub fn finish(&self, what: &str) {
        eprintln!("{what} in {:.1} s", self.started.elapsed().as_secs_f32());
    }
}

fn long(elapsed: Duration, expected_seconds: Option<u32>) -> String {
    match expected_seconds {
        Some(expected) => format!("{} s of about {expected} s", elapsed.as_secs()),
        None => format!("{} s", elapsed.as_secs()),
    }
}
