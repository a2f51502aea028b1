//! What every reconcile pass needs from outside.
//!
//! In: what `run` has made. Out: one value that is shared. It must not know what is reconciled.

use std::error::Error;

use kube::{Client, Resource};

use crate::apply::{Applier, trouble};
use crate::args::RuntimeArgs;
use crate::backoff::Backoff;
use crate::cache::{Stores, kind_of};
use crate::controller::id;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::placement::Placement;

/// What every reconcile pass needs from outside.
pub struct Context {
    /// For reads that must not come from a store. Its writes are refused when this process does not lead.
    pub client: Client,
    /// What is known of the cluster.
    pub stores: Stores,
    /// Writes objects.
    pub applier: Applier,
    /// Places.
    pub placement: Placement,
    /// Tells people.
    pub events: Events,
    /// Counts.
    pub metrics: Metrics,
    /// Failures in a row, by object of each kind.
    pub backoff: Backoff,
    /// What pods and jobs are made of.
    pub settings: RuntimeArgs,
}

impl Context {
    /// What a person is told of a pass over this object that failed. A conflict tells only that the pass came too early,
    /// unless it comes again.
    pub fn trouble<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        error: &(dyn Error + 'static),
    ) -> Option<String> {
        let first = self.backoff.failures(kind_of::<K>(), &id(object)) == 0;
        if first && trouble::is_conflict(error) { None } else { trouble::words(error) }
    }
}
