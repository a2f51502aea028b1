//! The one task that places.
//!
//! In: demands, over a bounded channel; the stores of nodes, pods and deployments. Out: an outcome for each demand.
//! It owns the bookings that were decided here and are not yet seen back; nobody else may spend a node's resources.
//! It must not know what a demand is for, and writes nothing: who asked records the booking before the pod is made.
//!
//! # Guarantees
//! - Nothing is placed before nodes, pods and deployments have been listed in full.
//! - Two demands never spend the same bytes: they are decided one batch after the other, and what was decided counts
//!   until it is seen in a status or a pod, or is released.
//! - The same booking asked for again gets the same node, as long as that is still legal.
//!
//! # Assumptions
//! - A request of an owner names all its bookings that are not recorded yet: others that were assumed are forgotten.

mod books;

use tokio::sync::{mpsc, oneshot};

use crate::cache::Stores;
use crate::fleet::{Demand, Outcome};
use crate::metrics::Metrics;
use books::{Books, View};

/// Requests that may wait; more make their senders wait.
const QUEUE: usize = 64;

/// Namespace and name of who asks.
pub type Owner = (String, String);

/// Where demands are sent. The task ends with its last handle.
#[derive(Clone, Debug)]
pub struct Placement(mpsc::Sender<Request>);

#[derive(Debug)]
enum Request {
    Place { owner: Owner, demands: Vec<Demand>, reply: oneshot::Sender<Vec<Outcome>> },
    Release(Owner),
}

impl Placement {
    /// Starts the task.
    #[must_use]
    pub fn spawn(stores: Stores, metrics: Metrics) -> Self {
        let (sender, requests) = mpsc::channel(QUEUE);
        tokio::spawn(run(requests, stores, metrics));
        Self(sender)
    }

    /// Places all that one owner needs, each on a node of its own choice; one outcome for each, in their order.
    ///
    /// # Cancel safety
    /// A caller that goes away leaves its bookings assumed until its owner asks again or is released.
    pub async fn place(&self, owner: Owner, demands: Vec<Demand>) -> Vec<Outcome> {
        if demands.is_empty() {
            self.release(owner).await;
            return Vec::new();
        }
        let (reply, answer) = oneshot::channel();
        self.send(Request::Place { owner, demands, reply }).await;
        answer.await.expect("the task answers every request")
    }

    /// Forgets what was assumed for an owner: it needs nothing that is not recorded, or is gone.
    pub async fn release(&self, owner: Owner) {
        self.send(Request::Release(owner)).await;
    }

    async fn send(&self, request: Request) {
        self.0.send(request).await.expect("the task ends only after its last handle");
    }
}

/// Decides in batches: whatever waits is decided together, the largest first.
async fn run(mut requests: mpsc::Receiver<Request>, stores: Stores, metrics: Metrics) {
    let mut books = Books::default();
    let mut batch = Vec::with_capacity(QUEUE);
    while requests.recv_many(&mut batch, QUEUE).await > 0 {
        // Waited for with a request at hand, not at the start: of several tasks that wait for a store, only the last
        // to ask is woken when it becomes ready.
        stores.wait_until_ready().await;
        let view = View {
            nodes: stores.nodes.state(),
            pods: stores.pods.state(),
            deployments: stores.deployments.state(),
        };
        answer(&mut books, &view, batch.drain(..), &metrics);
    }
}

fn answer(books: &mut Books, view: &View, batch: impl Iterator<Item = Request>, metrics: &Metrics) {
    let (mut all, mut replies) = (Vec::new(), Vec::new());
    for request in batch {
        match request {
            Request::Release(owner) => books.forget(&owner, &[]),
            Request::Place { owner, demands, reply } => {
                books.forget(&owner, &demands);
                replies.push((reply, demands.len()));
                all.extend(demands);
            }
        }
    }
    if all.is_empty() {
        return;
    }
    let mut outcomes = books.decide(&all, view).into_iter();
    for (reply, count) in replies {
        let outcomes: Vec<Outcome> = outcomes.by_ref().take(count).collect();
        for outcome in &outcomes {
            if let Outcome::Refused(refusal) = outcome {
                metrics.placement_refused(refusal.category());
            }
        }
        // Who asked may have gone away; then its next request says what it still needs.
        drop(reply.send(outcomes));
    }
}
