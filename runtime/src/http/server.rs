//! Connections of the API: how many there may be, how long each may take, and when one is closed.
//!
//! In: a listener and a router. Out: bytes.
//! It must not know what is asked.
//!
//! # Guarantees
//! - There are never more connections than allowed. Where one more comes, the one that has been without a request
//!   longest is closed for it; where all have one, the newcomer waits outside.
//! - A client that does not send its headers, or sends nothing more, is closed after `HEADER_TIME`; one that does not
//!   take its answer, after `STALLED`.

mod activity;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::watched::Watched;
use activity::{Activity, Tracked};

/// Longest time until the headers of a request are there, and longest time between two requests.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// Longest time for agreeing on encryption.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Longest time in which a client takes nothing of an answer that is there.
const STALLED: Duration = Duration::from_secs(60);
/// Time between two looks for those.
const SWEEP: Duration = Duration::from_secs(1);
/// Pause after a connection could not be accepted, for lack of files mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes and number of headers that are read at all. [`super::gate`] refuses fewer with an explanation.
const MAX_HEADER_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 256;

/// What is served on.
pub struct Listening {
    /// The socket.
    pub listener: TcpListener,
    /// Connections at once.
    pub most: usize,
    /// The certificate, if there is one.
    pub tls: Option<Watched<ServerConfig>>,
}

/// How a connection ends before its client ends it.
enum End {
    Now,
    AfterThisRequest,
}

struct Connection {
    activity: Arc<Activity>,
    end: oneshot::Sender<End>,
}

/// Serves until told to stop, and then until the last request is answered.
pub async fn serve(listening: Listening, router: Router, stop: impl Future<Output = ()>) {
    let Listening { listener, most, tls } = listening;
    let began = Instant::now();
    let (mut tasks, mut open) = (JoinSet::new(), BTreeMap::<u64, Connection>::new());
    let mut next = 0;
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(ended) = tasks.join_next() => drop(ended.map(|id: u64| open.remove(&id))),
            // With every loop, and so every second, room is made too, if there is none and somebody is idle.
            _ = sweep.tick() => close_stalled(&mut open),
            accepted = listener.accept(), if tasks.len() < most => {
                let Ok((tcp, _)) = accepted else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                // Tokens are small and must not wait for each other.
                if let Err(error) = tcp.set_nodelay(true) {
                    tracing::debug!(%error, "a connection is without TCP_NODELAY");
                }
                let activity = Arc::new(Activity::new(began));
                let (end, ended) = oneshot::channel();
                let tls = tls.as_ref().map(|watched| TlsAcceptor::from(watched.borrow().clone()));
                let id = next;
                next += 1;
                open.insert(id, Connection { activity: activity.clone(), end });
                let connection = connection(tcp, tls, router.clone(), activity, ended);
                tasks.spawn(async move {
                    connection.await;
                    id
                });
            }
        }
        if open.len() >= most {
            close_idlest(&mut open, next);
        }
    }
    drop(listener);
    for connection in std::mem::take(&mut open).into_values() {
        // One that has ended by itself does not listen.
        let _ = connection.end.send(End::AfterThisRequest);
    }
    while tasks.join_next().await.is_some() {}
}

/// The newest, which has not had the time to ask for anything, stays.
fn close_idlest(open: &mut BTreeMap<u64, Connection>, next: u64) {
    let others = open.iter().filter(|(id, _)| **id + 1 < next);
    let idle = others.filter_map(|(id, c)| Some((c.activity.idle_since()?, *id))).min();
    if let Some(connection) = idle.and_then(|(_, id)| open.remove(&id)) {
        let _ = connection.end.send(End::Now);
    }
}

fn close_stalled(open: &mut BTreeMap<u64, Connection>) {
    let stalled: Vec<_> =
        open.iter().filter(|(_, c)| c.activity.stalled(STALLED)).map(|(id, _)| *id).collect();
    for connection in stalled.into_iter().filter_map(|id| open.remove(&id)) {
        let _ = connection.end.send(End::Now);
    }
}

async fn connection(
    tcp: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    activity: Arc<Activity>,
    mut end: oneshot::Receiver<End>,
) {
    let Some(tls) = tls else { return speak(tcp, router, activity, end).await };
    let encrypted = tokio::select! {
        result = tokio::time::timeout(HANDSHAKE_TIME, tls.accept(tcp)) => result,
        _ = &mut end => return,
    };
    if let Ok(Ok(encrypted)) = encrypted {
        speak(encrypted, router, activity, end).await;
    }
}

async fn speak<I>(io: I, router: Router, activity: Arc<Activity>, end: oneshot::Receiver<End>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (router, busy) = (router.clone(), activity.busy());
        async move {
            let response = router.oneshot(request.map(Body::new)).await;
            response.map(|response| response.map(|body| Tracked::new(body, busy)))
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
    builder.max_headers(MAX_HEADERS).max_header_size(MAX_HEADER_BYTES);
    let connection = builder.serve_connection(TokioIo::new(io), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        result = connection.as_mut() => result,
        how = end => match how {
            Ok(End::Now) => return,
            Ok(End::AfterThisRequest) | Err(_) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        },
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
