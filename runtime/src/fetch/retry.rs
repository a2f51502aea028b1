//! What is worth another attempt, and when. Pure.
//!
//! In: an answer's status and headers, or how often was tried. Out: a verdict or a pause.

use std::time::Duration;

/// Longest pause that a source may ask for; past it, the job's own restart is the better retry.
const LONGEST: Duration = Duration::from_secs(60);

/// Bounds of trying again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Attempts in all.
    pub attempts: u32,
    /// Pause after the first failed attempt; each later one is twice as long.
    pub first: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 5, first: Duration::from_secs(1) }
    }
}

impl Retry {
    /// The pause after attempt number `attempt` (from 1), or `None` when it was the last.
    pub(super) fn pause(self, attempt: u32, asked: Option<Duration>) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        let doubled = self.first.saturating_mul(1 << (attempt - 1).min(16));
        Some(asked.unwrap_or(doubled).min(LONGEST))
    }
}

/// Whether an answer with this status may be another one soon.
pub(super) const fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// Seconds of a `Retry-After` header; dates are not read, the usual pause serves as well.
pub(super) fn retry_after(header: Option<&str>) -> Option<Duration> {
    header.and_then(|h| h.trim().parse().ok()).map(Duration::from_secs)
}

/// A URL as logs and messages may show it: signatures and tokens live in the query.
pub(super) fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_end() {
        let retry = Retry { attempts: 4, first: Duration::from_secs(1) };
        let pauses: Vec<_> = (1..=4).map(|n| retry.pause(n, None).map(|d| d.as_secs())).collect();
        assert_eq!(pauses, [Some(1), Some(2), Some(4), None]);
        assert_eq!(retry.pause(1, retry_after(Some("7"))), Some(Duration::from_secs(7)));
        assert_eq!(retry.pause(1, retry_after(Some("86400"))), Some(LONGEST));
        assert_eq!(retry_after(Some("Wed, 21 Oct 2026 07:28:00 GMT")), None);
    }

    #[test]
    fn only_what_may_change_is_tried_again() {
        assert!([429, 500, 503, 408].into_iter().all(is_transient));
        assert!(![200, 301, 400, 401, 403, 404, 410].into_iter().any(is_transient));
        assert_eq!(without_query("https://h/x?X-Signature=secret"), "https://h/x");
    }
}
