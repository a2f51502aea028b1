//! What a fault is: three questions about a request, answered from values alone.
//!
//! In: a request, the code of its answer, an event of a watch. Out: what is done about it. A rule must not know time or
//! what it said before: what it needs of the past (how often this was asked, the number of the write) is told to it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::operator::audit::Call;

/// A request, and its place among others.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What is asked for. Its code is 0 until it is answered.
    pub call: Call,
    /// Its number, from 1, among the writes that change state; see [`Call::changes`].
    pub change: Option<u64>,
    /// How often just this (verb, kind and name) has been asked for since the rule was set, with this time.
    pub times: u64,
}

/// An answer that the API server did not give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// `reason` of the Status object.
    pub reason: &'static str,
    /// Seconds of the header `Retry-After`.
    pub retry_after: Option<u32>,
}

impl Answer {
    /// An answer of this code, without a `Retry-After`.
    #[must_use]
    pub const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason, retry_after: None }
    }

    /// The Status object that the API server would send.
    #[must_use]
    pub fn body(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "the fault proxy says so", "reason": self.reason, "code": self.code,
        })
    }
}

/// What is done about a request before the API server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// It is forwarded.
    Pass,
    /// It is answered here and not forwarded.
    Answer(Answer),
    /// It is forwarded after this long.
    Delay(Duration),
    /// It is not forwarded, and its connection ends.
    Drop,
    /// It is neither forwarded nor answered; its connection ends when another rule is set.
    Freeze,
}

/// What is done about the answer of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// It is passed on.
    Pass,
    /// It is passed on after this long.
    Delay(Duration),
    /// It is kept back, and the connection ends: what was written is written, and the caller never learns it.
    Withhold,
    /// Half of its body is passed on, as if it were all.
    Truncate,
    /// It is kept back; the connection ends when another rule is set.
    Freeze,
}

/// What is done about an event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnEvent {
    /// It is passed on.
    Pass,
    /// It waits, and all that follow, until another rule lets it pass.
    Hold,
    /// It is never seen.
    Lose,
    /// It is seen so many times.
    Repeat(usize),
    /// Before it comes all again that came over this watch so far.
    Replay,
    /// Half of it is seen, and the watch ends as if that were all.
    Cut,
    /// Instead of it comes the error that ends a watch whose place is too old: 410.
    Gone,
    /// The connection ends before it.
    Drop,
}

/// What befalls requests.
pub trait Rule: Send + Sync + 'static {
    /// Before it is forwarded.
    fn before(&self, _: &Asked) -> Before {
        Before::Pass
    }

    /// Once the API server has answered with this code. Not asked for watches that were begun.
    fn after(&self, _: &Asked, _: u16) -> After {
        After::Pass
    }

    /// For each event of a watch, as the API server sends it; without an event when the rule has just been set, so that
    /// a watch on which nothing happens can be ended too.
    fn event(&self, _: &Asked, _: Option<&Value>) -> OnEvent {
        OnEvent::Pass
    }
}

/// Nothing befalls anything.
#[derive(Clone, Copy, Debug)]
pub struct Pass;

impl Rule for Pass {}
