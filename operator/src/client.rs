//! The clients that talk to the API server.
//!
//! In: the kubeconfig or the pod's own account. Out: [`Clients`], one for each of three ways of waiting:
//!
//! - `work`: every attempt has a time limit, a few retries of 429, 503 and 504, no attempt before the time that the API
//!   server asked for, and writes only within one's [`Term`], so that a process that was frozen past its lease cannot
//!   write when it wakes;
//! - `watch`: only reads, no retries, for watchers back off by themselves; no watch begins twice in a second;
//! - `lease`: no retries, so that a renewal is never stuck behind a back-off longer than the lease.

mod pace;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::http::{Method, Request, Response};
use kube::client::{Body, ClientBuilder, retry::RetryPolicy};
use kube::{Client, Config};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::buffer::BufferLayer;
use tower::retry::RetryLayer;
use tower::timeout::TimeoutLayer;
use tower::{BoxError, Layer, Service};

use crate::leader::{LEASE_CALL, Term};
use pace::{LaterLayer, PaceLayer};

/// Longest wait for an answer to one attempt of a call.
pub const CALL: Duration = Duration::from_secs(10);
/// Longest silence within an answer.
const READ: Duration = Duration::from_secs(20);
/// Seconds after which the API server ends a watch, so that a dead connection is noticed within about as long.
pub const WATCH_SECONDS: u32 = 60;
/// Longest silence on a watch; above [`WATCH_SECONDS`], since an idle watch is silent until it ends.
const WATCH_READ: Duration = Duration::from_secs(75);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Calls that may wait for a connection.
const QUEUE: usize = 1024;

/// One client for each way of waiting.
#[derive(Clone)]
pub struct Clients {
    /// For reading and writing objects.
    pub work: Client,
    /// For watchers.
    pub watch: Client,
    /// For the leader election lease.
    pub lease: Client,
}

/// Clients cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The TLS files or the address of the API server are not usable.
    #[error("cannot make a client for the API server")]
    Build(#[source] kube::Error),
    /// The retry policy contradicts itself.
    #[error("the retry policy is not usable")]
    Retry(#[from] kube::client::retry::InvalidBackoff),
}

/// Makes the clients. Writes of `work` are refused outside of the term; after `stop` nothing waits to be sent.
pub fn clients(
    config: &Config,
    term: watch::Receiver<Term>,
    stop: CancellationToken,
) -> Result<Clients, Error> {
    let builder = |read: Duration| {
        let mut config = config.clone();
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(read);
        ClientBuilder::try_from(config).map_err(Error::Build)
    };
    let retry = RetryPolicy::new(Duration::from_millis(100), Duration::from_secs(1), 3, false)?;
    let work = builder(READ)?
        .with_layer(&FenceLayer(term))
        .with_layer(&LaterLayer::until_stopped(stop))
        .with_layer(&BufferLayer::new(QUEUE))
        .with_layer(&RetryLayer::new(retry))
        .build();
    let watch = builder(WATCH_READ)?.with_layer(&PaceLayer).with_layer(&TimeoutLayer::new(READ)).build();
    let lease = builder(LEASE_CALL)?.with_layer(&TimeoutLayer::new(LEASE_CALL)).build();
    Ok(Clients { work, watch, lease })
}

/// Why a write was not sent.
#[derive(Debug, thiserror::Error)]
#[error("this process does not lead, or ends")]
pub struct Fenced;

/// Refuses writes outside of the term, and limits every attempt's time.
#[derive(Clone)]
struct FenceLayer(watch::Receiver<Term>);

impl<S> Layer<S> for FenceLayer {
    type Service = Fence<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Fence { inner, term: self.0.clone() }
    }
}

struct Fence<S> {
    inner: S,
    term: watch::Receiver<Term>,
}

impl<S, B> Service<Request<Body>> for Fence<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let reads = request.method() == Method::GET;
        let (term, answer) = (self.term.clone(), self.inner.call(request));
        // Both are found out when the call is sent, which may be later.
        Box::pin(async move {
            let allowed = if reads { Some(CALL) } else { term.borrow().allowance(Instant::now()) };
            let limit = allowed.ok_or(Fenced)?;
            tokio::time::timeout(limit.min(CALL), answer).await?
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::ServiceExt;
    use tower::util::MapErr;

    use super::*;

    async fn send(method: Method, term: Term) -> Result<Response<()>, BoxError> {
        let (_keep, term) = watch::channel(term);
        let server = tower::service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(())) });
        let server = MapErr::new(server, |never: Infallible| match never {});
        let request = Request::builder().method(method).body(Body::empty()).unwrap();
        FenceLayer(term).layer(server).oneshot(request).await
    }

    #[tokio::test]
    async fn writes_need_a_term_and_reads_do_not() {
        let now = Instant::now();
        let leading = Term::Leading { until: now + CALL, lease_end: now + 2 * CALL };
        let ended = Term::Leading { until: now, lease_end: now + CALL };
        assert!(send(Method::PATCH, leading.clone()).await.is_ok());
        for term in [Term::Following, ended] {
            assert!(send(Method::GET, term.clone()).await.is_ok());
            for method in [Method::PATCH, Method::POST, Method::PUT, Method::DELETE] {
                assert!(send(method, term.clone()).await.unwrap_err().is::<Fenced>());
            }
        }
    }
}
