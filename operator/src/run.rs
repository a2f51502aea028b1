//! `llm-fleet-operator run`: wires everything and decides when the process ends.
//!
//! In: arguments. Out: nothing, when it was asked to end; an error otherwise.
//!
//! # Flow
//! Caches and the admin listener start at once, so that a follower is warm. Controllers start when this process
//! leads and has listed everything once more. On SIGTERM no pass begins any more, passes in flight are finished, and
//! then the lease is released. When the lease is lost the process ends at once: by then the client sends no write.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use kube::{Api, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio::spawn;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::apply::Applier;
use crate::args::RunArgs;
use crate::backoff::Backoff;
use crate::cache::{Changes, Keepers, Stores};
use crate::client::{self, Clients};
use crate::context::Context;
use crate::events::Events;
use crate::leader::{self, Elector, Term, Timing};
use crate::metrics::Metrics;
use crate::placement::Placement;
use crate::{admin, deployment, model};
use contract::labels::MANAGER;

/// How long passes in flight may take after SIGTERM. The lease is held meanwhile.
const FINISH: Duration = Duration::from_secs(20);

/// Runs until SIGTERM, SIGINT, or until the lease is lost.
///
/// # Errors
/// When the process ends without having been asked to.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let config = Config::infer().await.context("there is no way to reach an API server")?;
    let identity = unique(args.identity.as_ref().or(args.pod_name.as_ref()).map_or(MANAGER, String::as_str));
    let namespace = args.leader_election_namespace.as_ref().or(args.pod_namespace.as_ref());
    let namespace = namespace.unwrap_or(&config.default_namespace);
    let (term_sender, term) = watch::channel(Term::Following);
    let stop = CancellationToken::new();
    let Clients { work, watch, lease } = client::clients(&config, term.clone(), stop.clone())?;
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(identity, version, server = %config.cluster_url, "starting");

    let metrics = Metrics::default();
    metrics.set_leader(false);
    let changes = Changes::default();
    let end = CancellationToken::new();
    let (stores, checks, keepers) = Stores::spawn(&watch, &args.watch_namespaces, &changes, &end);
    let address = SocketAddr::new(args.admin_host, args.admin_port);
    let mut listener = spawn(admin::serve(address, admin::router(metrics.clone(), checks), end.clone()));

    let release = CancellationToken::new();
    let name = args.leader_election_id.clone();
    let elector = Elector::new(name, identity.clone(), Timing::default(), seed(&identity));
    let mut election =
        spawn(leader::run(Api::namespaced(lease, namespace), elector, term_sender, release.clone()));

    let context = Arc::new(Context {
        applier: Applier::new(work.clone(), metrics.clone(), keepers.clone()),
        placement: Placement::spawn(stores.clone(), metrics.clone()),
        events: Events::new(work.clone(), MANAGER, &identity),
        client: work,
        stores,
        metrics,
        backoff: Backoff::default(),
        settings: args.runtime,
    });
    let mut controllers = spawn(lead(term, context, (changes, keepers), stop.clone()));
    tokio::select! {
        asked = asked_to_end() => asked?,
        ended = &mut election => ended.context("the election failed")?.context("this process must not go on")?,
        ended = &mut listener => ended.context("the listener failed")?.context("cannot serve health")?,
        ended = &mut controllers => ended.context("a controller failed")?,
    }
    tracing::info!("ending: finishing what is being done");
    stop.cancel();
    if timeout(FINISH, controllers).await.is_err() {
        tracing::warn!("what is being done takes too long: leaving it");
    }
    release.cancel();
    // The lease and the listener have time limits of their own.
    drop(election.await);
    end.cancel();
    drop(timeout(FINISH, listener).await);
    Ok(())
}

/// Waits for the term and for lists that were made in it, then runs all controllers until `stop`.
///
/// What a follower knows may be older than the last writes of the leader before.
async fn lead(
    mut term: watch::Receiver<Term>,
    context: Arc<Context>,
    (changes, keepers): (Changes, Keepers),
    stop: CancellationToken,
) {
    let leads = async {
        // The sender lives as long as the election, and without an election the process ends.
        let waited = term.wait_for(|term| matches!(term, Term::Leading { .. })).await.is_ok();
        context.metrics.set_leader(waited);
        keepers.list_again().await;
        context.stores.wait_until_ready().await;
    };
    tokio::select! {
        () = leads => {}
        () = stop.cancelled() => return,
    }
    tracing::info!("everything is listed: controllers start");
    tokio::join!(
        model::controller::run(context.clone(), changes.subscribe(), stop.clone()),
        deployment::controller::run(context, changes.subscribe(), stop),
    );
}

async fn asked_to_end() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// A name that no other process has, not even an earlier one in the same pod: two of one name would both lead.
fn unique(name: &str) -> String {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let mut hash = DefaultHasher::new();
    (started, std::process::id(), name).hash(&mut hash);
    format!("{name}_{:016x}", hash.finish())
}

fn seed(identity: &str) -> u64 {
    let mut hash = DefaultHasher::new();
    identity.hash(&mut hash);
    hash.finish()
}
