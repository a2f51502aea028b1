//! What this process remembers of running jobs: their progress, and since when it knows that they are over.
//!
//! In: a job's uid and its pod's address. Out: progress that is at most five seconds old, and durations of this
//! machine's own clock. Losing all of it costs one pause: nothing here is needed for correctness.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use contract::http::{PROGRESS, Phase, Progress as Reported};

use crate::api::shared::Progress;
use crate::ask::Ask;

/// How often a pod is asked, and so how often progress is written.
const INTERVAL: Duration = Duration::from_secs(5);
/// After this long without a question, a job is forgotten.
const FORGET: Duration = Duration::from_secs(3600);

/// What is remembered of one job.
#[derive(Clone, Debug)]
struct Memory {
    /// When it was last asked for.
    used: Instant,
    /// When its pod was last asked.
    asked: Option<Instant>,
    /// When its first bytes were reported, and how many there were.
    first: Option<(Instant, u64)>,
    /// The last answer.
    progress: Option<Progress>,
    /// Since when it is known to be over.
    over: Option<Instant>,
}

/// What is remembered, by uid of the job. The lock is never held across an await.
#[derive(Debug, Default)]
pub struct Recent {
    ask: Ask,
    jobs: Mutex<BTreeMap<String, Memory>>,
}

impl Recent {
    /// How far the job is. Its pod is asked at most every five seconds; in between the last answer is given again.
    pub async fn progress(&self, job: &str, address: &str) -> Option<Progress> {
        let now = Instant::now();
        let fresh = self.with(job, now, |memory| {
            let fresh = memory.asked.is_some_and(|asked| now < asked + INTERVAL);
            if !fresh {
                memory.asked = Some(now);
            }
            fresh.then(|| memory.progress.clone())
        });
        if let Some(progress) = fresh {
            return progress;
        }
        let reported: Option<Reported> = self.ask.get(address, PROGRESS).await;
        self.with(job, now, |memory| {
            if let Some(reported) = reported {
                let (began, bytes) = *memory.first.get_or_insert((now, reported.bytes_done.0));
                memory.progress = Some(progress(&reported, bytes, now.duration_since(began)));
            }
            memory.progress.clone()
        })
    }

    /// For how long it has been known that the job is over.
    pub fn over_for(&self, job: &str) -> Duration {
        let now = Instant::now();
        self.with(job, now, |memory| now.duration_since(*memory.over.get_or_insert(now)))
    }

    fn with<T>(&self, job: &str, now: Instant, act: impl FnOnce(&mut Memory) -> T) -> T {
        let mut jobs = self.jobs.lock().expect("no holder of this lock panics");
        jobs.retain(|_, memory| now.duration_since(memory.used) < FORGET);
        let new = Memory { used: now, asked: None, first: None, progress: None, over: None };
        let memory = jobs.entry(job.to_owned()).or_insert(new);
        memory.used = now;
        act(memory)
    }
}

/// Speed is counted from the first answer, since bytes may have been there from an earlier attempt.
fn progress(reported: &Reported, first_bytes: u64, elapsed: Duration) -> Progress {
    let (done, total) = (reported.bytes_done.0, reported.bytes_total.0);
    let since = done.saturating_sub(first_bytes);
    let seconds = elapsed.as_secs();
    let speed = (seconds > 0 && since > 0).then(|| since / seconds).filter(|speed| *speed > 0);
    let phase = match reported.phase {
        Phase::Starting => "Starting",
        Phase::Loading => "Fetching",
        Phase::SelfTest | Phase::WarmingUp | Phase::Ready | Phase::Draining => "Inspecting",
    };
    Progress {
        phase: phase.to_owned(),
        bytes_done: reported.bytes_done,
        bytes_total: reported.bytes_total,
        bytes_per_second: speed,
        seconds_left: speed.filter(|_| total > 0).map(|speed| total.saturating_sub(done).div_ceil(speed)),
    }
}

#[cfg(test)]
mod tests {
    use contract::Bytes;

    use super::*;

    fn reported(done: u64, total: u64) -> Reported {
        Reported {
            phase: Phase::Loading,
            bytes_done: Bytes(done),
            bytes_total: Bytes(total),
            seconds: vec![],
        }
    }

    #[test]
    fn speed_and_time_left_follow_from_two_answers() {
        let first = progress(&reported(100, 1000), 100, Duration::ZERO);
        assert_eq!((first.bytes_per_second, first.seconds_left), (None, None));
        let second = progress(&reported(400, 1000), 100, Duration::from_secs(10));
        assert_eq!((second.bytes_per_second, second.seconds_left), (Some(30), Some(20)));
        let unknown = progress(&reported(400, 0), 100, Duration::from_secs(10));
        assert_eq!((unknown.bytes_per_second, unknown.seconds_left), (Some(30), None));
    }

    #[tokio::test]
    async fn a_pod_that_does_not_answer_has_no_progress() {
        let recent = Recent::default();
        assert_eq!(recent.progress("uid", "not an address").await, None);
        assert!(recent.over_for("uid") <= recent.over_for("uid"));
    }
}
