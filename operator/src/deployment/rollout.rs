//! The next steps of a rollout, from what is observed alone.
//!
//! In: bookings, pods, the target revision, the time. Out: [`Steps`]: which bookings stay, which are wanted, which
//! pods go. It must not know bytes, nodes' contents, or how pods are built.
//!
//! # Rules
//! - A booking stays as long as a pod spends it, in whatever state; a pod without a booking goes, unless it can have one
//!   back.
//! - A pod of an older revision goes when its replica's pod of the target is ready, or, where both do not fit, when
//!   every other replica has a ready pod (swap in place, one at a time). One that never was ready goes at once.
//! - A pod that failed for good, or that no node takes, is replaced under a new booking, after a delay that doubles
//!   with each attempt. It goes, and its booking ends, when that booking is had.
//! - A pod on a node that cannot be reached is left alone: its bytes may still be in use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contract::labels;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{health, names};
use crate::api::deployment::PlacementStatus;
use crate::fleet::ledger::has_ended;

/// Delay before the first replacement; it doubles up to [`MAX_DELAY`].
const FIRST_DELAY: SignedDuration = SignedDuration::from_secs(10);
/// Longest delay between replacements.
const MAX_DELAY: SignedDuration = SignedDuration::from_secs(300);

/// What the next steps follow from.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// Name and uid of the deployment.
    pub owner: (&'a str, &'a str),
    /// Revision that the spec asks for, once the model is known. Until then nothing is booked, and no revision is older
    /// than another.
    pub target: Option<&'a str>,
    /// Replicas that the spec asks for.
    pub replicas: u32,
    /// Bookings.
    pub placement: &'a [PlacementStatus],
    /// Pods, by name.
    pub pods: &'a BTreeMap<String, Arc<Pod>>,
    /// Nodes that take pods.
    pub usable_nodes: &'a BTreeSet<String>,
    /// Now.
    pub now: Timestamp,
}

/// A booking that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Book {
    /// Its revision.
    pub revision: String,
    /// Index of the replica.
    pub replica: u32,
    /// How many bookings this replica of this revision has had before.
    pub attempt: u32,
    /// Its id.
    pub booking: String,
    /// The booking of another revision that ends if this one cannot be had beside it.
    pub instead_of: Option<String>,
    /// The booking before, of the same revision, which ends with this one.
    pub takes_over: Option<String>,
    /// The node that the scheduler refuses.
    pub not_on: Option<String>,
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Steps {
    /// Bookings that stay.
    pub keep: Vec<PlacementStatus>,
    /// Bookings that are wanted.
    pub book: Vec<Book>,
    /// Names of pods that go.
    pub delete: BTreeSet<String>,
    /// When something is due that no change announces.
    pub wake_at: Option<Timestamp>,
}

impl Situation<'_> {
    /// The pod that spends a booking, if it is seen.
    pub(super) fn pod_of(&self, placement: &PlacementStatus) -> Option<(&String, &Arc<Pod>)> {
        let PlacementStatus { revision, replica, booking, .. } = placement;
        self.pods.get_key_value(&names::pod(self.owner.0, revision, *replica, booking))
    }

    fn is_wanted(&self, placement: &PlacementStatus) -> bool {
        self.target.is_none_or(|target| placement.revision == target) && placement.replica < self.replicas
    }

    /// Whether this replica has a ready pod, of the target only if `of_target`.
    fn has_ready(&self, replica: u32, of_target: bool) -> bool {
        let candidates = self.placement.iter().filter(|p| p.replica == replica);
        let mut candidates = candidates.filter(|p| !of_target || Some(p.revision.as_str()) == self.target);
        candidates.any(|p| self.pod_of(p).is_some_and(|(_, pod)| health::is_ready(pod)))
    }

    fn book(&self, revision: &str, replica: u32, attempt: u32) -> Book {
        // What serves nobody makes room first.
        let serves = |p: &&PlacementStatus| self.pod_of(p).is_some_and(|(_, pod)| health::is_ready(pod));
        let others = self.placement.iter().filter(|p| p.replica == replica && p.revision != revision);
        let older = others.min_by_key(serves);
        Book {
            revision: revision.to_owned(),
            replica,
            attempt,
            booking: names::booking(self.owner.1, revision, replica, attempt),
            instead_of: older.map(|p| p.booking.clone()),
            takes_over: None,
            not_on: None,
        }
    }

    /// The booking after one that cannot be used any more, if it is still asked for.
    fn again(&self, last: &PlacementStatus) -> Option<Book> {
        let revision = self.target.filter(|_| self.is_wanted(last))?;
        let next = self.book(revision, last.replica, last.attempt.saturating_add(1));
        Some(Book { takes_over: Some(last.booking.clone()), ..next })
    }
}

/// Names of pods whose bookings would be dropped because no pod of theirs is seen: it may be there all the same, when
/// it was made a moment ago.
#[must_use]
pub fn unseen(now: &Situation<'_>) -> Vec<String> {
    let drops = |p: &&PlacementStatus| {
        now.pod_of(p).is_none() && !(now.is_wanted(p) && now.usable_nodes.contains(&p.node))
    };
    let dropped = now.placement.iter().filter(drops);
    dropped.map(|p| names::pod(now.owner.0, &p.revision, p.replica, &p.booking)).collect()
}

/// Names of pods of this deployment that none of the bookings is for, and that nobody has told to go.
#[must_use]
pub fn strays<'a>(
    owner: &str,
    bookings: impl IntoIterator<Item = &'a PlacementStatus>,
    pods: &BTreeMap<String, Arc<Pod>>,
) -> BTreeSet<String> {
    let bookings = bookings.into_iter();
    let booked: BTreeSet<String> =
        bookings.map(|p| names::pod(owner, &p.revision, p.replica, &p.booking)).collect();
    let stays = |pod: &Pod| pod.metadata.deletion_timestamp.is_none();
    pods.iter().filter(|(name, pod)| stays(pod) && !booked.contains(*name)).map(|(n, _)| n.clone()).collect()
}

/// Computes the next steps.
#[must_use]
pub fn steps(now: &Situation<'_>) -> Steps {
    let mut steps = Steps::default();
    let mut provided = BTreeSet::new();
    for placement in now.placement {
        let wanted = now.is_wanted(placement);
        let stays = step(now, placement, &mut steps);
        if wanted {
            provided.insert(placement.replica);
        }
        if stays {
            steps.keep.push(placement.clone());
        }
    }
    if let Some(revision) = now.target {
        for replica in (0..now.replicas).filter(|replica| !provided.contains(replica)) {
            steps.book.push(now.book(revision, replica, 0));
        }
    }
    steps
}

/// Adds the steps of one booking; tells whether it stays.
fn step(now: &Situation<'_>, placement: &PlacementStatus, steps: &mut Steps) -> bool {
    let wanted = now.is_wanted(placement);
    let replica = placement.replica;
    let Some((name, pod)) = now.pod_of(placement) else {
        let usable = now.usable_nodes.contains(&placement.node);
        if !usable {
            steps.book.extend(now.again(placement));
        }
        return wanted && usable;
    };
    if pod.metadata.deletion_timestamp.is_some() {
        return true;
    }
    if has_ended(pod) {
        if !wanted {
            steps.delete.insert(name.clone());
        } else if steps.is_due(now, health::ended_at(pod), placement.attempt) {
            steps.book.extend(now.again(placement));
        }
        return true;
    }
    let replaced = replica >= now.replicas || now.has_ready(replica, true) || !has_served(pod);
    if !wanted && replaced {
        steps.delete.insert(name.clone());
    }
    if wanted && is_unbound(pod) {
        if !now.usable_nodes.contains(&placement.node) {
            steps.book.extend(now.again(placement));
        } else if let Some(since) = health::unschedulable_since(pod)
            && steps.is_due(now, Some(since), placement.attempt)
        {
            let not_on = Some(placement.node.clone());
            steps.book.extend(now.again(placement).map(|book| Book { not_on, ..book }));
        }
    }
    true
}

/// Whether the pod has ever had traffic.
fn has_served(pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    health::is_ready(pod) || labels.is_some_and(|labels| labels.contains_key(labels::SERVING))
}

/// Whether no node has the pod yet.
fn is_unbound(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default().is_empty()
}

impl Steps {
    /// Whether it is time to replace what has failed since then; if not, notes when it will be.
    fn is_due(&mut self, now: &Situation<'_>, since: Option<Timestamp>, attempt: u32) -> bool {
        let due = since.and_then(|at| at.checked_add(delay(attempt)).ok()).filter(|due| *due > now.now);
        if let Some(due) = due {
            self.wake_at = Some(self.wake_at.map_or(due, |other| other.min(due)));
        }
        due.is_none()
    }
}

fn delay(attempt: u32) -> SignedDuration {
    FIRST_DELAY.checked_mul(1 << attempt.min(10)).map_or(MAX_DELAY, |delay| delay.min(MAX_DELAY))
}

/// The pod that makes room for a replica that fits only in its place, if it may go now.
#[must_use]
pub fn swap(now: &Situation<'_>, book: &Book) -> Option<String> {
    let older = now.placement.iter().find(|p| Some(&p.booking) == book.instead_of.as_ref())?;
    let (name, pod) = now.pod_of(older).filter(|(_, pod)| pod.metadata.deletion_timestamp.is_none())?;
    let others_serve =
        (0..now.replicas).filter(|other| *other != book.replica).all(|other| now.has_ready(other, false));
    (others_serve || !health::is_ready(pod)).then(|| name.clone())
}

#[cfg(test)]
mod tests;
