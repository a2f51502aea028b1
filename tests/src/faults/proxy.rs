//! Stands between one operator and the API server, and does to requests what a rule says.
//!
//! In: a client with all rights, for the operator's requests carry whom they impersonate. Out: an address on loopback,
//! a count of what befell whom, and the writes with their answers. It must not know why a rule is set.
//!
//! # Guarantees
//! - A write that was forwarded is forwarded to its end, also when its caller has gone, and stands in [`Proxy::writes`].
//! - The rule is asked anew before each request, at each answer and at each event; a new one holds at once.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, ensure};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, RETRY_AFTER, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::request::{call, is_watch};
use super::rule::{After, Answer, Asked, Before, OnEvent, Pass, Rule};
use super::watching;
use crate::operator::audit::Call;

/// A connection that ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the fault proxy ends the connection")]
pub(super) struct Dropped;

type Reply = Response<UnsyncBoxBody<Bytes, Dropped>>;

/// A running proxy. Dropping it ends all connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A write that was forwarded and answered.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its number among the writes that change state.
    pub change: Option<u64>,
    /// What was asked, with the code of the answer.
    pub call: Call,
    /// The uid that a deletion is limited to.
    pub uid: Option<String>,
}

struct Shared {
    upstream: Client,
    rule: watch::Sender<Arc<dyn Rule>>,
    // Counters of a proxy whose requests run at the same time; each use is an increment or a copy.
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    changes: u64,
    under_way: u64,
    tried: u64,
    times: BTreeMap<(String, String, String, String), u64>,
    writes: Vec<Written>,
}

impl Proxy {
    /// Listens on loopback for an operator of this control plane. `config` is a client's with all rights.
    pub async fn start(mut config: kube::Config) -> Result<Self> {
        // A fault that is made here must reach the operator, and one of the API server too.
        config.default_retry = false;
        config.read_timeout = None;
        let (rule, _) = watch::channel(Arc::new(Pass) as Arc<dyn Rule>);
        let shared = Arc::new(Shared { upstream: Client::try_from(config)?, rule, counts: Mutex::default() });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(listen(listener, shared.clone()));
        Ok(Self { address, shared, server })
    }

    /// What an operator's kubeconfig names as the server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets another rule, and counts from 0 what befalls whom by it. What an earlier one froze ends.
    pub fn set(&self, rule: impl Rule) {
        let mut counts = self.shared.counts();
        counts.tried = 0;
        counts.times.clear();
        drop(counts);
        self.shared.rule.send_replace(Arc::new(rule));
    }

    /// How often the present rule has let something befall a request.
    #[must_use]
    pub fn tried(&self) -> u64 {
        self.shared.counts().tried
    }

    /// How many requests there were since the present rule was set.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.shared.counts().times.values().sum()
    }

    /// How many writes that change state were asked for, forwarded or not.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.shared.counts().changes
    }

    /// The writes that the API server has answered, in the order of the answers.
    #[must_use]
    pub fn writes(&self) -> Vec<Written> {
        self.shared.counts().writes.clone()
    }

    /// Fails while a request that was forwarded is not answered.
    pub fn is_idle(&self) -> Result<()> {
        let under_way = self.shared.counts().under_way;
        ensure!(under_way == 0, "{under_way} requests are under way");
        Ok(())
    }
}

/// The rule of the moment, for one request.
pub(super) struct Rules {
    receiver: watch::Receiver<Arc<dyn Rule>>,
    shared: Arc<Shared>,
}

impl Rules {
    fn of(shared: &Arc<Shared>) -> Self {
        Self { receiver: shared.rule.subscribe(), shared: shared.clone() }
    }

    /// Waits until another rule is set.
    pub(super) async fn changed(&mut self) {
        // The sender lives in what is shared.
        drop(self.receiver.changed().await);
    }

    fn current(&mut self) -> Arc<dyn Rule> {
        self.receiver.borrow_and_update().clone()
    }

    fn count(&self, befell: bool) {
        self.shared.counts().tried += u64::from(befell);
    }

    fn before(&mut self, asked: &Asked) -> Before {
        let action = self.current().before(asked);
        self.count(action != Before::Pass);
        action
    }

    fn after(&mut self, asked: &Asked, code: u16) -> After {
        let action = self.current().after(asked, code);
        self.count(action != After::Pass);
        action
    }

    pub(super) fn event(&mut self, asked: &Asked, event: Option<&Value>) -> OnEvent {
        let action = self.current().event(asked, event);
        self.count(action != OnEvent::Pass);
        action
    }
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, call: Call) -> Asked {
        let mut counts = self.counts();
        let Call { verb, resource, namespace, name, .. } = &call;
        let key = (verb.clone(), resource.clone(), namespace.clone(), name.clone());
        let times = counts.times.entry(key).or_default();
        *times += 1;
        let times = *times;
        let change = call.changes().then(|| {
            counts.changes += 1;
            counts.changes
        });
        Asked { call, change, times }
    }

    /// Forwards a request to its end. `None` when the API server cannot be reached.
    async fn forward(self: Arc<Self>, request: Request<Bytes>, asked: Asked) -> Option<Response<Bytes>> {
        let uid = uid_of(request.body());
        self.counts().under_way += 1;
        let answer = async {
            let (parts, body) = self.upstream.send(request.map(Body::from)).await.ok()?.into_parts();
            Some(Response::from_parts(parts, body.collect().await.ok()?.to_bytes()))
        };
        let answer = answer.await;
        let mut counts = self.counts();
        counts.under_way -= 1;
        if let (Some(answer), true) = (&answer, asked.call.writes()) {
            let code = answer.status().as_u16();
            let call = Call { code: code.into(), forbidden: code == 403, ..asked.call };
            counts.writes.push(Written { change: asked.change, call, uid });
        }
        answer
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Who could not connect tries again.
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(stream, shared.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| answer(request, shared.clone()));
    // It ends with an error when a rule drops it, and when its peer is killed: both are wanted here.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Reply, Dropped> {
    let asked = shared.ask(call(request.method(), request.uri(), request.headers()));
    let mut rules = Rules::of(&shared);
    match rules.before(&asked) {
        Before::Pass => {}
        Before::Answer(answer) => return Ok(made_up(&answer)),
        Before::Delay(time) => tokio::time::sleep(time).await,
        Before::Drop => return Err(Dropped),
        Before::Freeze => {
            rules.changed().await;
            return Err(Dropped);
        }
    }
    let watches = is_watch(request.uri());
    let (mut parts, body) = request.into_parts();
    end_to_end(&mut parts.headers);
    let body = body.collect().await.map_err(|_| Dropped)?.to_bytes();
    let request = Request::from_parts(parts, body);
    if watches {
        let answer = shared.upstream.send(request.map(Body::from)).await.map_err(|_| Dropped)?;
        let (mut parts, body) = answer.into_parts();
        end_to_end(&mut parts.headers);
        let events = StreamBody::new(watching::through(body, asked, rules));
        return Ok(Response::from_parts(parts, UnsyncBoxBody::new(events)));
    }
    let forwarded = tokio::spawn(shared.clone().forward(request, asked.clone()));
    let (mut parts, mut body) = forwarded.await.ok().flatten().ok_or(Dropped)?.into_parts();
    end_to_end(&mut parts.headers);
    match rules.after(&asked, parts.status.as_u16()) {
        After::Pass => {}
        After::Delay(time) => tokio::time::sleep(time).await,
        After::Withhold => return Err(Dropped),
        After::Truncate => body.truncate(body.len() / 2),
        After::Freeze => {
            rules.changed().await;
            return Err(Dropped);
        }
    }
    Ok(Response::from_parts(parts, whole(body)))
}

fn made_up(answer: &Answer) -> Reply {
    let mut reply = Response::new(whole(answer.body().to_string().into()));
    *reply.status_mut() = StatusCode::from_u16(answer.code).unwrap_or(StatusCode::IM_A_TEAPOT);
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    headers.extend(answer.retry_after.map(|seconds| (RETRY_AFTER, seconds.into())));
    reply
}

fn whole(body: Bytes) -> UnsyncBoxBody<Bytes, Dropped> {
    UnsyncBoxBody::new(Full::new(body).map_err(|never| match never {}))
}

/// Leaves out what is about one connection only.
fn end_to_end(headers: &mut HeaderMap) {
    for name in [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
        headers.remove(name);
    }
}

fn uid_of(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    body["preconditions"]["uid"].as_str().map(str::to_owned)
}
