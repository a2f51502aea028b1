//! What this process remembers of work that is being done: how far a pod was, and since when a job is over.
//!
//! In: a uid and a pod's address. Out: answers that are at most five seconds old, and durations of this machine's own
//! clock. Losing all of it costs one pause: nothing here is needed for correctness. It must not know what the work is.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use contract::http::{PROGRESS, Progress as Reported};

use crate::api::shared::Progress;
use crate::ask::Ask;

/// How often a pod is asked, and so how often progress is written.
const INTERVAL: Duration = Duration::from_secs(5);
/// After this long without a question, work is forgotten.
const FORGET: Duration = Duration::from_secs(3600);

/// What is remembered of one piece of work.
#[derive(Clone, Debug)]
struct Memory {
    /// When it was first asked for.
    first_used: Instant,
    /// When it was last asked for.
    used: Instant,
    /// When its pod was last asked.
    asked: Option<Instant>,
    /// When its first bytes were reported, and how many there were.
    first: Option<(Instant, u64)>,
    /// What follows from the last answer.
    pace: Option<Pace>,
    /// Since when it is known to be over.
    over: Option<Instant>,
}

/// What a pod said last, and how fast it has been.
#[derive(Clone, Debug, PartialEq)]
pub struct Pace {
    /// Its answer.
    pub reported: Reported,
    /// Bytes a second since it was first asked, once there are some.
    pub bytes_per_second: Option<u64>,
}

/// What is remembered, by uid of the job or pod. The lock is never held across an await.
#[derive(Debug, Default)]
pub struct Recent {
    ask: Ask,
    works: Mutex<BTreeMap<String, Memory>>,
}

impl Recent {
    /// Asks pods what they do not change by the second.
    #[must_use]
    pub const fn ask(&self) -> &Ask {
        &self.ask
    }

    /// How far work is. Its pod is asked at most every five seconds; in between the last answer is given again.
    pub async fn pace(&self, uid: &str, address: &str) -> Option<Pace> {
        let now = Instant::now();
        let fresh = self.with(uid, now, |memory| {
            let fresh = memory.asked.is_some_and(|asked| now < asked + INTERVAL);
            if !fresh {
                memory.asked = Some(now);
            }
            fresh.then(|| memory.pace.clone())
        });
        if let Some(pace) = fresh {
            return pace;
        }
        let reported: Option<Reported> = self.ask.get(address, PROGRESS).await;
        self.with(uid, now, |memory| {
            if let Some(reported) = reported {
                let (began, bytes) = *memory.first.get_or_insert((now, reported.bytes_done.0));
                memory.pace = Some(pace(reported, bytes, now.duration_since(began)));
            }
            memory.pace.clone()
        })
    }

    /// For how long it has been known that the job is over.
    pub fn over_for(&self, job: &str) -> Duration {
        let now = Instant::now();
        self.with(job, now, |memory| now.duration_since(*memory.over.get_or_insert(now)))
    }

    /// For how long the job has been known.
    pub fn known_for(&self, job: &str) -> Duration {
        let now = Instant::now();
        self.with(job, now, |memory| now.duration_since(memory.first_used))
    }

    fn with<T>(&self, uid: &str, now: Instant, act: impl FnOnce(&mut Memory) -> T) -> T {
        let mut works = self.works.lock().expect("no holder of this lock panics");
        works.retain(|_, memory| now.duration_since(memory.used) < FORGET);
        let new = Memory { first_used: now, used: now, asked: None, first: None, pace: None, over: None };
        let memory = works.entry(uid.to_owned()).or_insert(new);
        memory.used = now;
        act(memory)
    }
}

/// Speed is counted from the first answer, since bytes may have been there from an earlier attempt.
fn pace(reported: Reported, first_bytes: u64, elapsed: Duration) -> Pace {
    let since = reported.bytes_done.0.saturating_sub(first_bytes);
    let bytes_per_second = since.checked_div(elapsed.as_secs()).filter(|speed| *speed > 0);
    Pace { reported, bytes_per_second }
}

impl Pace {
    /// As it stands in a status; `phase` is what the work calls it.
    #[must_use]
    pub fn progress(&self, phase: &str) -> Progress {
        let (done, total) = (self.reported.bytes_done, self.reported.bytes_total);
        let left = |speed: u64| total.0.saturating_sub(done.0).div_ceil(speed);
        Progress {
            phase: phase.to_owned(),
            bytes_done: done,
            bytes_total: total,
            bytes_per_second: self.bytes_per_second,
            seconds_left: self.bytes_per_second.filter(|_| total.0 > 0).map(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use contract::Bytes;
    use contract::http::Phase;

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
        let after = |seconds: u64, done: u64, total: u64| {
            let progress = pace(reported(done, total), 100, Duration::from_secs(seconds)).progress("Loading");
            (progress.bytes_per_second, progress.seconds_left)
        };
        assert_eq!(after(0, 100, 1000), (None, None));
        assert_eq!(after(10, 400, 1000), (Some(30), Some(20)));
        assert_eq!(after(10, 400, 0), (Some(30), None));
        // A container that began again has fewer bytes than before.
        assert_eq!(after(10, 50, 1000), (None, None));
    }

    #[tokio::test]
    async fn a_pod_that_does_not_answer_has_no_pace() {
        let recent = Recent::default();
        assert_eq!(recent.pace("uid", "not an address").await, None);
        assert!(recent.over_for("uid") <= recent.over_for("uid"));
        let over = recent.over_for("uid");
        assert!(over <= recent.known_for("uid"), "it was known before it was over");
    }
}
