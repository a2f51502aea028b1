//! What the operator knows of the cluster: one store a kind, filled by watches.
//!
//! In: the watch client. Out: stores to read from, and [`Touched`] events that say what changed.
//! Stores are trimmed to what is read. They have what this process wrote, but may be behind what others did, so whatever
//! destroys data asks the API server again first.

pub mod keeper;
pub mod merge;
pub mod news;
pub mod order;
mod source;
pub mod stores;

use std::fmt::Debug;
use std::sync::Arc;

use futures::stream::select_all;
use futures::{FutureExt, StreamExt};
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use crate::admin::Check;
use crate::client::WATCH_SECONDS;
use crate::telemetry::chain;
use contract::labels;
pub use keeper::Keepers;
use keeper::{Keeper, Request};
use merge::{Key, Merge, key};
pub use news::{News, Watched};
use order::Order;
pub use stores::Stores;

/// Changes that a slow subscriber may be behind; after that it is told to look at everything.
const CHANGES: usize = 4096;

/// Requests to one keeper that may wait; more make their senders wait.
const REQUESTS: usize = 64;

/// An object was added, changed or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Kind of the object.
    pub kind: &'static str,
    /// Namespace; empty for objects of the cluster.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The deployment that it belongs to, by its label.
    pub deployment: Option<String>,
    /// The model that it belongs to, by its label.
    pub model: Option<String>,
    /// Whether more than its status changed: it came, went, began to be deleted, or has another generation.
    pub spec_changed: bool,
    /// What it may mean for other objects.
    pub news: News,
}

/// Where caches say what changed.
#[derive(Clone, Debug)]
pub struct Changes(broadcast::Sender<Touched>);

impl Default for Changes {
    fn default() -> Self {
        Self(broadcast::channel(CHANGES).0)
    }
}

impl Changes {
    /// Everything that changes from now on. A subscriber that is too slow is told that it missed something.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Touched> {
        self.0.subscribe()
    }
}

/// How a kind is watched.
pub struct Watch<K> {
    /// One for each watched namespace, or a single one.
    pub apis: Vec<Api<K>>,
    /// Which of the objects, by labels.
    pub labels: Option<&'static str>,
    /// Drops what nobody reads.
    pub trim: fn(&mut K),
}

/// A store, what readiness depends on, and a way to its keeper.
pub struct Started<K: Resource<DynamicType = ()> + 'static> {
    store: Store<K>,
    check: Check,
    keeper: mpsc::Sender<Request>,
}

/// Runs the watches of a kind until `shutdown`.
pub fn spawn<K>(watch: Watch<K>, changes: &Changes, shutdown: CancellationToken) -> Started<K>
where
    K: Watched + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (store, writer) = store::<K>();
    let kind = kind_of::<K>();
    let ready = store.clone();
    let check = Check {
        name: kind,
        holds: Box::new(move || ready.wait_until_ready().now_or_never().is_some_and(|known| known.is_ok())),
    };
    let Watch { apis, labels, trim } = watch;
    let mut config = Config::default().timeout(WATCH_SECONDS);
    config.label_selector = labels.map(str::to_owned);
    let (keeper, mut requests) = mpsc::channel(REQUESTS);
    let mut kept = Keeper {
        kind,
        namespaces: apis.iter().map(|api| api.namespace().map(str::to_owned)).collect(),
        trim,
        store: store.clone(),
        writer,
        changes: changes.clone(),
        merge: Merge::new(apis.len()),
        orders: vec![Order::default(); apis.len()],
        waiting: Vec::new(),
    };
    let begin = move || {
        let numbered = apis.iter().cloned().enumerate();
        select_all(numbered.map(|(source, api)| {
            source::follow(api, config.clone()).map(move |event| (source, event)).boxed()
        }))
    };
    tokio::spawn(async move {
        let mut events = begin();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(request) = requests.recv() => match request {
                    Request::Keep(answer, begun, done) => {
                        kept.answer(*answer, begun);
                        // Who asked may have gone away.
                        let _ = done.send(());
                    }
                    Request::List(done) => {
                        kept.begins_again(done);
                        events = begin();
                    }
                },
                Some((source, event)) = events.next() => match event {
                    Ok(event) => kept.event(source, event),
                    Err(error) => tracing::warn!(kind, error = chain(&error), "cannot watch"),
                },
            }
        }
    });
    Started { store, check, keeper }
}

/// The kind's name.
#[must_use]
pub fn kind_of<K: Resource<DynamicType = ()>>() -> &'static str {
    // Kinds are constants in every type that we watch; the owned form exists for kinds found at run time.
    match K::kind(&()) {
        std::borrow::Cow::Borrowed(kind) => kind,
        std::borrow::Cow::Owned(_) => "Dynamic",
    }
}

fn of_namespace<K: Resource<DynamicType = ()> + Clone + 'static>(
    store: &Store<K>,
    namespace: Option<&str>,
) -> Vec<Arc<K>> {
    store.state_filter(|object| namespace.is_none() || object.namespace().as_deref() == namespace)
}

/// Whether two states of an object ask for the same. The annotation that pauses counts as much as the spec: whoever takes
/// it off wants something to happen.
pub fn asks_the_same<K: Resource>(one: &K, other: &K) -> bool {
    let asks = |object: &K| {
        let paused = object.annotations().contains_key(labels::PAUSED);
        (object.meta().generation, object.meta().deletion_timestamp.is_some(), object.uid(), paused)
    };
    asks(one) == asks(other)
}

/// What an event tells, seen before it reaches the store. A relist tells nothing of what did not change.
fn touched<K>(kind: &'static str, store: &Store<K>, event: &Event<K>) -> Option<Touched>
where
    K: Watched + Resource<DynamicType = ()> + Clone + 'static,
{
    let (object, gone) = match event {
        Event::Apply(object) | Event::InitApply(object) => (object, false),
        Event::Delete(object) => (object, true),
        Event::Init | Event::InitDone => return None,
    };
    let before = store.get(&ObjectRef::from_obj(object));
    let same = |before: &Arc<K>| {
        before.resource_version().is_some() && before.resource_version() == object.resource_version()
    };
    if !gone && before.as_ref().is_some_and(same) {
        return None;
    }
    let news = K::news(before.as_deref(), (!gone).then_some(object));
    let spec_changed = gone || before.is_none_or(|before| !asks_the_same(before.as_ref(), object));
    let (namespace, name): Key = key(object);
    let label = |name: &str| object.labels().get(name).cloned();
    let (deployment, model) = (label(labels::DEPLOYMENT), label(labels::MODEL));
    Some(Touched { kind, namespace, name, deployment, model, spec_changed, news })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(version: &str, generation: i64) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some("x".into());
        object.metadata.resource_version = Some(version.into());
        object.metadata.generation = Some(generation);
        object
    }

    #[test]
    fn what_did_not_change_is_not_told() {
        let (reader, mut writer) = store::<ConfigMap>();
        let mut tell = |event: Event<ConfigMap>| {
            let touched = touched("ConfigMap", &reader, &event);
            writer.apply_watcher_event(&event);
            touched.map(|touched| touched.spec_changed)
        };
        assert_eq!(tell(Event::Apply(object("1", 1))), Some(true));
        assert_eq!(tell(Event::Apply(object("1", 1))), None);
        assert_eq!(tell(Event::Apply(object("2", 1))), Some(false));
        assert_eq!(tell(Event::Apply(object("3", 2))), Some(true));
        let mut paused = object("4", 2);
        paused.annotations_mut().insert(labels::PAUSED.into(), String::new());
        assert_eq!(tell(Event::Apply(paused)), Some(true));
        assert_eq!(tell(Event::Apply(object("5", 2))), Some(true), "the end of a pause");
        assert_eq!(tell(Event::Delete(object("6", 2))), Some(true));
    }
}
