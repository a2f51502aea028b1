//! When a request may be sent: not before the time that the API server asked for, and no watch in a tight circle.
//!
//! In: requests and answers. Out: the same, later. It must not know what they are for.
//!
//! Both layers wait in front of a call whose future does nothing before it is awaited, so no time limit of a layer below
//! runs meanwhile.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, Request, Response};
use kube::client::Body;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Layer, Service};

use super::Fenced;

/// Longest time that the API server may put off one request by one answer.
const LONGEST: Duration = Duration::from_secs(60);
/// Shortest time between the beginnings of two watches of the same objects. The library begins one anew as soon as the
/// one before ends, which may be at once where something between here and the API server is broken.
const BETWEEN_WATCHES: Duration = Duration::from_secs(1);

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// By path, until when the API server wants to be left in peace. The lock is never held across an await. Whoever waits
/// when `stop` is cancelled is refused instead, so that a process that is to end does not wait for them.
#[derive(Clone, Debug, Default)]
pub(super) struct LaterLayer {
    put_off: Arc<Mutex<BTreeMap<String, Instant>>>,
    stop: CancellationToken,
}

impl LaterLayer {
    pub(super) fn until_stopped(stop: CancellationToken) -> Self {
        Self { stop, ..Self::default() }
    }

    fn until(&self, path: &str) -> Option<Instant> {
        self.put_off.lock().expect("no holder of this lock panics").get(path).copied()
    }

    fn put_off(&self, path: String, now: Instant, wait: Duration) {
        let mut all = self.put_off.lock().expect("no holder of this lock panics");
        all.retain(|_, until| *until > now);
        all.insert(path, now + wait);
    }
}

impl<S> Layer<S> for LaterLayer {
    type Service = Later<S>;

    fn layer(&self, inner: S) -> Later<S> {
        Later { inner, layer: self.clone() }
    }
}

/// Sends nothing to a path before the time that the last answer asked for.
pub(super) struct Later<S> {
    inner: S,
    layer: LaterLayer,
}

impl<S, B> Service<Request<Body>> for Later<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Answer<Response<B>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let until = self.layer.until(&path);
        let (answer, layer) = (self.inner.call(request), self.layer.clone());
        Box::pin(async move {
            if let Some(until) = until {
                tokio::select! {
                    () = tokio::time::sleep_until(until.into()) => {}
                    () = layer.stop.cancelled() => return Err(Fenced.into()),
                }
            }
            let answer = answer.await?;
            if let Some(wait) = retry_after(answer.headers()) {
                layer.put_off(path, Instant::now(), wait);
            }
            Ok(answer)
        })
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST))
}

/// See [`BETWEEN_WATCHES`].
#[derive(Clone, Copy, Debug)]
pub(super) struct PaceLayer;

impl<S> Layer<S> for PaceLayer {
    type Service = Pace<S>;

    fn layer(&self, inner: S) -> Pace<S> {
        Pace { inner, begun: BTreeMap::new() }
    }
}

/// Begins no watch of the same objects twice within a second.
pub(super) struct Pace<S> {
    inner: S,
    begun: BTreeMap<String, Instant>,
}

impl<S> Service<Request<Body>> for Pace<S>
where
    S: Service<Request<Body>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Answer<S::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let begins = watch.then(|| turn(&mut self.begun, request.uri().path(), Instant::now()));
        let answer = self.inner.call(request);
        Box::pin(async move {
            if let Some(begins) = begins {
                tokio::time::sleep_until(begins.into()).await;
            }
            answer.await
        })
    }
}

/// When the next watch of a path may begin.
fn turn(begun: &mut BTreeMap<String, Instant>, path: &str, now: Instant) -> Instant {
    let begins = begun.get(path).map_or(now, |last| now.max(*last + BETWEEN_WATCHES));
    begun.insert(path.to_owned(), begins);
    begins
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::util::MapErr;

    use super::*;

    #[test]
    fn a_watch_that_ends_at_once_begins_again_a_second_later() {
        let (mut begun, now) = (BTreeMap::new(), Instant::now());
        assert_eq!(turn(&mut begun, "/a", now), now);
        assert_eq!(turn(&mut begun, "/b", now), now);
        assert_eq!(turn(&mut begun, "/a", now), now + BETWEEN_WATCHES);
        let later = now + 5 * BETWEEN_WATCHES;
        assert_eq!(turn(&mut begun, "/a", later), later);
    }

    #[tokio::test]
    async fn nothing_is_sent_before_the_api_server_wants_it() {
        let server = tower::service_fn(|request: Request<Body>| async move {
            let answer = Response::builder();
            let busy = request.uri().path() == "/busy";
            let answer = if busy { answer.header(RETRY_AFTER, "1") } else { answer };
            Ok::<_, Infallible>(answer.body(()).unwrap())
        });
        let stop = CancellationToken::new();
        let layer = LaterLayer::until_stopped(stop.clone());
        let mut client = layer.layer(MapErr::new(server, |never: Infallible| match never {}));
        let began = Instant::now();
        for path in ["/busy", "/free", "/free"] {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            client.call(request).await.unwrap();
        }
        assert!(began.elapsed() < Duration::from_millis(900), "others are not put off");
        let request = Request::builder().uri("/busy").body(Body::empty()).unwrap();
        client.call(request).await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(1));
        stop.cancel();
        let request = Request::builder().uri("/busy").body(Body::empty()).unwrap();
        let refused = client.call(request).await.unwrap_err();
        assert!(
            refused.is::<Fenced>() && began.elapsed() < Duration::from_millis(1900),
            "nobody waits at the end"
        );
    }
}
