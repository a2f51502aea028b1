//! What a connection is doing: nothing, working on a request, or waiting for its client to take the answer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::body::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

/// The two highest bits of the state say what it is, the others since when, in milliseconds.
const IDLE: u64 = 0;
const WORKING: u64 = 1 << 62;
const WRITING: u64 = 2 << 62;
const TIME: u64 = WORKING - 1;

/// State of one connection.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    state: AtomicU64,
}

impl Activity {
    /// Of a connection that has just come, to a server that began then.
    pub(super) fn new(began: Instant) -> Self {
        let activity = Self { began, state: AtomicU64::new(IDLE) };
        activity.set(IDLE);
        activity
    }

    /// A request has come; it is answered when the guard is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.set(WORKING);
        Busy(self.clone())
    }

    /// Since when there has been no request.
    pub(super) fn idle_since(&self) -> Option<u64> {
        let state = self.state.load(Ordering::Relaxed);
        (state & !TIME == IDLE).then_some(state)
    }

    /// Whether the client has taken nothing for so long.
    pub(super) fn stalled(&self, longest: Duration) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        state & !TIME == WRITING && u128::from(self.now().saturating_sub(state & TIME)) > longest.as_millis()
    }

    fn set(&self, what: u64) {
        self.state.store(what | self.now(), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(TIME) & TIME
    }
}

/// A request that is being answered.
pub(super) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(IDLE);
    }
}

/// A body that tells when it is asked for more, which the writer does as fast as the client reads; streams are never
/// silent for long, since they say that they are alive.
pub(super) struct Tracked {
    body: Body,
    busy: Busy,
}

impl Tracked {
    pub(super) fn new(body: Body, busy: Busy) -> Self {
        busy.0.set(WRITING);
        Self { body, busy }
    }
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.busy.0.set(WRITING);
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_idle_but_for_its_requests() {
        let began = Instant::now().checked_sub(Duration::from_secs(100)).unwrap();
        let activity = Arc::new(Activity::new(began));
        assert!(activity.idle_since().is_some_and(|since| since >= 100_000));
        let busy = activity.busy();
        assert_eq!(activity.idle_since(), None);
        let long_ago = |what| activity.state.store(what | 30_000, Ordering::Relaxed);
        let minute = Duration::from_secs(60);
        long_ago(WORKING);
        assert!(!activity.stalled(minute), "we work, and the client waits");
        let body = Tracked::new(Body::empty(), busy);
        assert!(!activity.stalled(minute));
        long_ago(WRITING);
        assert!(activity.stalled(minute), "the client takes nothing");
        drop(body);
        assert!(!activity.stalled(minute) && activity.idle_since().is_some());
    }
}
