//! What to do about the lease: a state machine on values.
//!
//! In: the lease as found, what was written, the monotonic time. Out: [`Action`] and [`Term`].
//! It must not know the API server, nor compare times of two machines: `acquired` and `renewed` are written for
//! people, and read only to see *that* they changed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;

/// How long things take. The defaults are client-go's.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long others leave an unchanged lease alone.
    pub lease: Duration,
    /// How long after its last renewal a leader stops.
    pub renew_deadline: Duration,
    /// Longest pause between two tries.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { lease: seconds(15), renew_deadline: seconds(10), retry: seconds(2) }
    }
}

/// Duration of a lease that was given back. A longer one without a holder was edited by hand, and its last holder
/// may not know yet.
const RELEASED: Duration = Duration::from_secs(1);

/// Content of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who leads; empty when nobody does.
    pub holder: String,
    /// How long others leave it alone.
    pub lease: Duration,
    /// When the holder took it, by the holder's clock.
    pub acquired: Option<Timestamp>,
    /// When the holder last renewed it, by the holder's clock.
    pub renewed: Option<Timestamp>,
    /// How often the holder changed.
    pub transitions: i32,
}

/// The lease as the API server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Content.
    pub record: Record,
    /// Version that a replacement must be based on.
    pub resource_version: String,
}

/// What to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// There is no lease.
    Create(Record),
    /// It is ours to write, if it is still at this resourceVersion.
    Replace(Record, String),
    /// Somebody else leads.
    Wait,
}

/// Whether this process leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// Somebody else does, or nobody.
    Following,
    /// It does.
    Leading {
        /// Until when new work may begin.
        until: Instant,
        /// When others may begin: all work has ended before.
        lease_end: Instant,
    },
    /// It did, and never will again.
    Lost,
}

impl Term {
    /// When the term ends unless it is renewed.
    #[must_use]
    pub const fn until(&self) -> Option<Instant> {
        if let Self::Leading { until, .. } = self { Some(*until) } else { None }
    }

    /// How long a write that begins now may take; `None` when it must not begin.
    #[must_use]
    pub fn allowance(&self, now: Instant) -> Option<Duration> {
        match self {
            Self::Leading { until, lease_end, .. } if now < *until => Some(lease_end.duration_since(now)),
            Self::Leading { .. } | Self::Following | Self::Lost => None,
        }
    }
}

/// Decides for one process.
#[derive(Clone, Debug)]
pub struct Elector {
    name: String,
    identity: String,
    timing: Timing,
    seed: u64,
    tries: u64,
    /// The lease as last seen, and when this content was first seen here.
    seen: Option<(Found, Instant)>,
    /// Since when there is no lease.
    missing_since: Option<Instant>,
    term: Term,
}

impl Elector {
    /// A process that follows. `identity` must differ between any two processes; `seed` spreads their tries.
    #[must_use]
    pub fn new(name: String, identity: String, timing: Timing, seed: u64) -> Self {
        Self {
            name,
            identity,
            timing,
            seed,
            tries: 0,
            seen: None,
            missing_since: None,
            term: Term::Following,
        }
    }

    /// Name of the lease.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this process leads.
    #[must_use]
    pub const fn term(&self) -> &Term {
        &self.term
    }

    /// What a leader writes without reading first; `None` for others.
    #[must_use]
    pub fn renewal(&self, wall: Timestamp) -> Option<Action> {
        match (&self.term, &self.seen) {
            (Term::Leading { .. }, Some((found, _))) => {
                Some(Action::Replace(self.renewed(&found.record, wall), found.resource_version.clone()))
            }
            _ => None,
        }
    }

    /// What to do about the lease that was found, if there is one.
    pub fn decide(&mut self, found: Option<Found>, now: Instant, wall: Timestamp) -> Action {
        let Some(found) = found else { return self.decide_missing(now, wall) };
        let first_seen = match &self.seen {
            Some((before, at)) if before.record == found.record => *at,
            _ => now,
        };
        let Found { record, resource_version } = found.clone();
        self.seen = Some((found, first_seen));
        self.missing_since = None;
        let leads = matches!(self.term, Term::Leading { .. });
        let theirs = !record.holder.is_empty() && record.holder != self.identity;
        if theirs && leads {
            self.term = Term::Lost;
        }
        let released = record.holder.is_empty() && record.lease == RELEASED;
        // A follower that finds its own name does not know whether it wrote it: that, too, has to run out.
        let free = leads || released;
        let held = self.held_until().is_some_and(|until| now < until);
        if self.term == Term::Lost || !free && held {
            Action::Wait
        } else if record.holder == self.identity {
            Action::Replace(self.renewed(&record, wall), resource_version)
        } else {
            Action::Replace(self.taken(record.transitions.saturating_add(1), wall), resource_version)
        }
    }

    /// There is no lease. A leader makes it again. Others do so at once only if there never was one: somebody may
    /// still lead by a lease that was deleted under it.
    fn decide_missing(&mut self, now: Instant, wall: Timestamp) -> Action {
        let since = *self.missing_since.get_or_insert(now);
        match self.term {
            Term::Lost => Action::Wait,
            Term::Following if self.seen.is_some() && now < since + self.timing.lease => Action::Wait,
            Term::Following | Term::Leading { .. } => Action::Create(self.taken(0, wall)),
        }
    }

    /// The API server has accepted a write of ours that was begun at `started`.
    pub fn written(&mut self, found: Found, started: Instant) {
        self.seen = Some((found, started));
        self.missing_since = None;
        if self.term == Term::Lost {
            return;
        }
        let Timing { lease, renew_deadline, .. } = self.timing;
        self.term = Term::Leading { until: started + renew_deadline, lease_end: started + lease };
    }

    /// Time has passed: ends a term that was not renewed.
    pub fn tick(&mut self, now: Instant) {
        if self.term.until().is_some_and(|until| now >= until) {
            self.term = Term::Lost;
        }
    }

    /// What a leader writes when it leaves; `None` for others.
    #[must_use]
    pub fn release(&self, wall: Timestamp) -> Option<Action> {
        let (Term::Leading { .. }, Some((found, _))) = (&self.term, &self.seen) else { return None };
        let record = Record {
            holder: String::new(),
            lease: RELEASED,
            acquired: Some(wall),
            renewed: Some(wall),
            transitions: found.record.transitions,
        };
        Some(Action::Replace(record, found.resource_version.clone()))
    }

    /// When the lease of another runs out if it is not renewed; `None` for who leads and who has seen none.
    #[must_use]
    pub fn held_until(&self) -> Option<Instant> {
        let (found, at) = self.seen.as_ref().filter(|_| self.term == Term::Following)?;
        Some(*at + found.record.lease.max(self.timing.lease))
    }

    /// How long to wait before the next try: between three fifths of [`Timing::retry`] and all of it.
    pub fn pause(&mut self) -> Duration {
        self.tries += 1;
        let mut hash = DefaultHasher::new();
        (self.seed, self.tries).hash(&mut hash);
        let percent = 60 + u32::try_from(hash.finish() % 41).expect("a remainder of 41 is small");
        self.timing.retry * percent / 100
    }

    fn taken(&self, transitions: i32, wall: Timestamp) -> Record {
        let Self { identity, timing, .. } = self;
        Record {
            holder: identity.clone(),
            lease: timing.lease,
            acquired: Some(wall),
            renewed: Some(wall),
            transitions,
        }
    }

    fn renewed(&self, record: &Record, wall: Timestamp) -> Record {
        Record {
            holder: self.identity.clone(),
            renewed: Some(wall),
            lease: self.timing.lease,
            ..record.clone()
        }
    }
}

#[cfg(test)]
mod tests;
