//! The loop that both kinds share: which objects to look at, how many at once, and when again.
//!
//! In: a store, what changed, and a pass over one object. Out: passes, until shutdown. It must not know what a pass
//! does.
//!
//! # Guarantees
//! - At most one pass over an object at a time, at most [`CONCURRENCY`] over all objects of a kind.
//! - A pass that failed is repeated after a delay that grows with each failure in a row, and at any change.
//! - After shutdown no pass begins; those that run are finished before [`run`] returns.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use kube::runtime::controller::{Action, Config, Error as LoopError, applier};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;

use crate::cache::{Touched, kind_of};
use crate::context::Context;
use crate::telemetry::chain;

/// Passes over objects of one kind at the same time.
pub const CONCURRENCY: u16 = 8;

/// When to look again at what is no longer as the stores know it.
pub const CHANGED: Duration = Duration::from_secs(1);
/// When to ask the API server again for something that it refused: no watch tells when a quota is raised.
pub const REFUSED: Duration = Duration::from_secs(30);

/// When to look at an object again that went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Next {
    /// After this long, or when something changes.
    After(Duration),
    /// When something changes.
    OnChange,
}

/// Which objects a change may matter to.
pub type Affected<K> = Box<dyn Fn(&Touched) -> Vec<ObjectRef<K>> + Send + Sync>;

/// What a loop looks at.
pub struct Loop<K: Resource<DynamicType = ()> + 'static> {
    /// The objects.
    pub store: Store<K>,
    /// What changes in the cluster, subscribed to before the store is read.
    pub changes: Receiver<Touched>,
    /// Which objects a change may matter to.
    pub affected: Affected<K>,
    /// When to begin no more passes.
    pub shutdown: CancellationToken,
}

/// Runs passes until shutdown.
///
/// `pass` looks at one object; `category` names its errors, from a closed set.
pub async fn run<K, E, F>(
    this: Loop<K>,
    context: Arc<Context>,
    pass: impl Fn(Arc<K>, Arc<Context>) -> F + Send + Sync + 'static,
    category: fn(&E) -> &'static str,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    E: std::error::Error + Send + 'static,
    F: Future<Output = Result<Next, E>> + Send + 'static,
{
    let kind = kind_of::<K>();
    let Loop { store, changes, affected, shutdown } = this;
    let all = {
        let store = store.clone();
        move || store.state().iter().map(|object| ObjectRef::from_obj(object.as_ref())).collect::<Vec<_>>()
    };
    let first = stream::iter(all());
    let later = stream::unfold((changes, all, affected), |(mut changes, all, affected)| async move {
        let refs = match changes.recv().await {
            Ok(touched) => affected(&touched),
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(
                    kind,
                    missed,
                    "changes came faster than they were read: looking at everything"
                );
                all()
            }
            Err(RecvError::Closed) => return None,
        };
        Some((stream::iter(refs), (changes, all, affected)))
    });
    let queue = first.chain(later.flatten()).take_until(shutdown.cancelled_owned()).map(Ok::<_, Infallible>);
    let reconcile = move |object: Arc<K>, context: Arc<Context>| {
        let pass = pass(object.clone(), context.clone());
        async move {
            let _timer = context.metrics.reconcile_timer(kind);
            let next = pass.await?;
            context.backoff.forget(kind, &id(object.as_ref()));
            Ok::<Action, E>(match next {
                Next::After(delay) => Action::requeue(delay),
                Next::OnChange => Action::await_change(),
            })
        }
        .boxed()
    };
    let on_error = move |object: Arc<K>, error: &E, context: Arc<Context>| {
        let object = id(object.as_ref());
        let delay = context.backoff.failed(kind, &object);
        context.metrics.reconcile_failed(kind, category(error));
        tracing::warn!(kind, object, error = chain(error), ?delay, "a pass failed");
        Action::requeue(delay)
    };
    let config = Config::default().concurrency(CONCURRENCY);
    applier(reconcile, on_error, context.clone(), store, queue.boxed(), config)
        .for_each(|result| {
            // Failures of passes were told above; an object that is gone needs no further delays.
            if let Err(LoopError::ObjectNotFound(object)) = result {
                let id = format!("{}/{}", object.namespace.as_deref().unwrap_or_default(), object.name);
                context.backoff.forget(kind, &id);
            }
            std::future::ready(())
        })
        .await;
}

/// Namespace and name, under which failures are counted.
pub fn id<K: Resource>(object: &K) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}
