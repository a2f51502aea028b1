//! Keeps one store: what its watches tell, and what this process itself has written.
//!
//! In: events of watches, answers to writes. Out: a store that never goes back, and [`super::Touched`] for each change of it.
//! It must not know who reads it.
//!
//! # Guarantees
//! - What this process has written is in the store when the write returns, however late the watch is. A pass therefore
//!   never acts as if its own writes had not been.
//! - An older state never replaces a newer one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use kube::api::DynamicObject;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::merge::Merge;
use super::order::{Order, version};
use super::{Changes, Watched, of_namespace, touched};

/// What a keeper is asked for.
pub(super) enum Request {
    /// To keep this, the answer to a write that began then.
    Keep(Box<DynamicObject>, Instant, oneshot::Sender<()>),
    /// To list everything again.
    List(oneshot::Sender<()>),
}

/// Ways to all keepers, by kind.
#[derive(Clone, Default)]
pub struct Keepers(Arc<BTreeMap<&'static str, mpsc::Sender<Request>>>);

impl Keepers {
    pub(super) fn new(all: BTreeMap<&'static str, mpsc::Sender<Request>>) -> Self {
        Self(Arc::new(all))
    }

    /// Puts the answer to a write into its store, if there is one of its kind.
    pub async fn keep(&self, kind: &str, answer: DynamicObject, begun: Instant) {
        let Some(keeper) = self.0.get(kind) else { return };
        ask(keeper, |done| Request::Keep(Box::new(answer), begun, done)).await;
    }

    /// Lists everything again, and returns when all stores are at least as new as this call.
    pub async fn list_again(&self) {
        join_all(self.0.values().map(|keeper| ask(keeper, Request::List))).await;
    }
}

/// Keepers end only when the process does, and then nobody needs their answer.
async fn ask(keeper: &mpsc::Sender<Request>, request: impl FnOnce(oneshot::Sender<()>) -> Request) {
    let (done, answer) = oneshot::channel();
    if keeper.send(request(done)).await.is_ok() {
        drop(answer.await);
    }
}

pub(super) struct Keeper<K: Resource<DynamicType = ()> + Clone + 'static> {
    pub(super) kind: &'static str,
    /// The namespace of each watch.
    pub(super) namespaces: Vec<Option<String>>,
    pub(super) trim: fn(&mut K),
    pub(super) store: Store<K>,
    pub(super) writer: Writer<K>,
    pub(super) changes: Changes,
    pub(super) merge: Merge<K>,
    pub(super) orders: Vec<Order>,
    /// Who waits for lists.
    pub(super) waiting: Vec<oneshot::Sender<()>>,
}

impl<K> Keeper<K>
where
    K: Watched + Resource<DynamicType = ()> + Clone + DeserializeOwned + 'static,
{
    /// Follows an event of a watch.
    pub(super) fn event(&mut self, source: usize, event: Event<K>) {
        if !self.orders[source].is_news(&event, Instant::now()) {
            tracing::debug!(kind = self.kind, "a watch repeats itself");
            return;
        }
        // A list is what there is; a change may be older than what this process has written since.
        let is_change = matches!(event, Event::Apply(_) | Event::Delete(_));
        let stored = || of_namespace(&self.store, self.namespaces[source].as_deref());
        for event in self.merge.event(source, event.modify(self.trim), stored) {
            if !(is_change && self.is_overtaken(&event)) {
                self.put(event);
            }
        }
        if self.orders.iter().all(Order::is_listed) {
            // Who asked may have gone away.
            for done in self.waiting.drain(..) {
                let _ = done.send(());
            }
        }
    }

    /// Keeps the answer to a write, unless the watches have told as much.
    pub(super) fn answer(&mut self, answer: DynamicObject, begun: Instant) {
        let namespace = answer.namespace();
        let watched = |of: &Option<String>| of.is_none() || *of == namespace;
        let Some(source) = self.namespaces.iter().position(watched) else { return };
        match answer.try_parse::<K>() {
            Ok(mut object) if self.orders[source].is_behind(&object, begun) => {
                (self.trim)(&mut object);
                self.put(Event::Apply(object));
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(kind = self.kind, %error, "an answer cannot be read"),
        }
    }

    /// Forgets how far the watches had come: they begin anew.
    pub(super) fn begins_again(&mut self, done: oneshot::Sender<()>) {
        self.orders.fill(Order::default());
        self.waiting.push(done);
    }

    fn is_overtaken(&self, event: &Event<K>) -> bool {
        let (Event::Apply(object) | Event::Delete(object)) = event else { return false };
        let stored = self.store.get(&ObjectRef::from_obj(object));
        stored.is_some_and(|stored| version(object) < version(stored.as_ref()))
    }

    fn put(&mut self, event: Event<K>) {
        let touched = touched(self.kind, &self.store, &event);
        self.writer.apply_watcher_event(&event);
        // Nobody listens while this process follows.
        touched.into_iter().for_each(|touched| drop(self.changes.0.send(touched)));
    }
}

#[cfg(test)]
mod tests;
