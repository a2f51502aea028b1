//! How long to wait before an object that failed is tried again.
//!
//! In: which object failed. Out: a delay that doubles with each failure in a row and is forgotten at the first
//! success. It must not know what failed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

/// First delay.
const FIRST: Duration = Duration::from_millis(500);
/// Longest delay, so that an object recovers soon after the cause is gone.
const LONGEST: Duration = Duration::from_secs(30);

/// Delay before try number `failures` + 1: doubling from half a second to half a minute.
#[must_use]
pub fn delay(failures: u32) -> Duration {
    FIRST.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST)
}

/// Failures in a row, by object.
///
/// The lock is held for one look-up and never across an await.
#[derive(Debug, Default)]
pub struct Backoff(Mutex<BTreeMap<(&'static str, String), u32>>);

impl Backoff {
    /// One more failure of this object: how long to wait.
    pub fn failed(&self, kind: &'static str, object: &str) -> Duration {
        let mut failures = self.0.lock().expect("no holder of this lock panics");
        let count = failures.entry((kind, object.to_owned())).or_insert(0);
        *count = count.saturating_add(1);
        delay(*count)
    }

    /// How often it has failed in a row.
    pub fn failures(&self, kind: &'static str, object: &str) -> u32 {
        let failures = self.0.lock().expect("no holder of this lock panics");
        failures.get(&(kind, object.to_owned())).copied().unwrap_or_default()
    }

    /// This object went well, or is gone.
    pub fn forget(&self, kind: &'static str, object: &str) {
        let mut failures = self.0.lock().expect("no holder of this lock panics");
        failures.remove(&(kind, object.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_for_each_object_alone_and_are_bounded() {
        let backoff = Backoff::default();
        let delays: Vec<_> = (0..3).map(|_| backoff.failed("a", "x").as_millis()).collect();
        assert_eq!(delays, [500, 1000, 2000]);
        assert_eq!(backoff.failed("a", "y").as_millis(), 500);
        assert_eq!((backoff.failures("a", "x"), backoff.failures("b", "x")), (3, 0));
        backoff.forget("a", "x");
        assert_eq!(backoff.failed("a", "x").as_millis(), 500);
        assert_eq!(delay(u32::MAX), LONGEST);
    }
}
