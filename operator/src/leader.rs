//! Leader election on a Lease, with client-go's semantics.
//!
//! In: a client for the Lease. Out: the [`Term`] of this process, on a watch channel. It must not know what a leader
//! does. All decisions are made by the pure [`Elector`]; here is only the I/O around it.
//!
//! # Guarantees
//! - Two processes never hold a term at the same time: a term ends [`Timing::renew_deadline`] after the last renewal
//!   was *sent*, others take the lease only [`Timing::lease`] after they *saw* that renewal.
//! - Clocks of machines are never compared. What is compared is this machine's monotonic clock with itself.
//! - A lost term is final: the process is expected to end.

pub mod elector;

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use elector::{Action, Elector, Found, Record, Term, Timing};

use crate::telemetry::chain;

/// Longest wait for an answer about the lease.
pub const LEASE_CALL: Duration = Duration::from_secs(5);

/// The lease went to another process, or could not be renewed in time.
#[derive(Debug, thiserror::Error)]
#[error("the leader election lease is lost")]
pub struct Lost;

/// Competes for the lease and holds it until `release` is cancelled.
///
/// # Flow
/// Every [`Timing::retry`], less some jitter: while leading, replace what was last written; else read, and take the
/// lease when it is free or has not changed for as long as it says. Every write carries the resourceVersion that it
/// is based on.
///
/// # Errors
/// [`Lost`] once a term has ended without `release`. The term on the channel says so before this returns.
pub async fn run(
    api: Api<Lease>,
    mut elector: Elector,
    term: watch::Sender<Term>,
    release: CancellationToken,
) -> Result<(), Lost> {
    loop {
        let started = Instant::now();
        let limit =
            elector.term().until().map_or(started + LEASE_CALL, |until| until.min(started + LEASE_CALL));
        match tokio::time::timeout_at(limit.into(), attempt(&api, &mut elector, started)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "cannot reach the lease"),
            Err(_) => tracing::warn!("the API server did not answer about the lease in time"),
        }
        let now = Instant::now();
        elector.tick(now);
        publish(&term, elector.term());
        if *elector.term() == Term::Lost {
            return Err(Lost);
        }
        let wake = now + elector.pause();
        // Whoever waits for a lease is there when it runs out.
        let due = elector.term().until().or_else(|| elector.held_until().filter(|held| *held > now));
        let wake = due.map_or(wake, |due| wake.min(due));
        tokio::select! {
            () = tokio::time::sleep_until(wake.into()) => {}
            () = release.cancelled() => {
                publish(&term, &Term::Following);
                give_back(&api, &elector).await;
                return Ok(());
            }
        }
    }
}

fn publish(term: &watch::Sender<Term>, new: &Term) {
    term.send_if_modified(|old| {
        let changed = old != new;
        match (&*old, new) {
            (Term::Leading { .. }, Term::Lost) => tracing::error!("the lease is lost"),
            (Term::Following, Term::Leading { .. }) => tracing::info!("this process leads"),
            _ => {}
        }
        old.clone_from(new);
        changed
    });
}

/// One try. Cancel safe: the elector learns only of what the API server has answered.
async fn attempt(api: &Api<Lease>, elector: &mut Elector, started: Instant) -> kube::Result<()> {
    if let Some(action) = elector.renewal(Timestamp::now())
        && let Some(written) = write(api, elector.name(), action).await?
    {
        elector.written(written, started);
        return Ok(());
    }
    let found = api.get_opt(elector.name()).await?.map(found);
    let action = elector.decide(found, Instant::now(), Timestamp::now());
    if let Some(written) = write(api, elector.name(), action).await? {
        elector.written(written, started);
    }
    Ok(())
}

/// `None` when nothing was to be written, or somebody else was faster.
async fn write(api: &Api<Lease>, name: &str, action: Action) -> kube::Result<Option<Found>> {
    let lease = |record: Record, resource_version: Option<String>| Lease {
        metadata: ObjectMeta { name: Some(name.to_owned()), resource_version, ..ObjectMeta::default() },
        spec: Some(spec(record)),
    };
    let written = match action {
        Action::Wait => return Ok(None),
        Action::Create(record) => api.create(&PostParams::default(), &lease(record, None)).await,
        Action::Replace(record, version) => {
            api.replace(name, &PostParams::default(), &lease(record, Some(version))).await
        }
    };
    match written {
        Ok(lease) => Ok(Some(found(lease))),
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Leaves the lease without a holder, so that the next process need not wait for its end.
async fn give_back(api: &Api<Lease>, elector: &Elector) {
    let Some(action) = elector.release(Timestamp::now()) else { return };
    match tokio::time::timeout(LEASE_CALL, write(api, elector.name(), action)).await {
        Ok(Ok(_)) => tracing::info!("the lease is released"),
        Ok(Err(error)) => tracing::warn!(error = chain(&error), "cannot release the lease"),
        Err(_) => tracing::warn!("the API server did not answer about the lease in time"),
    }
}

fn spec(record: Record) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(record.holder),
        lease_duration_seconds: Some(i32::try_from(record.lease.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: record.acquired.map(MicroTime),
        renew_time: record.renewed.map(MicroTime),
        lease_transitions: Some(record.transitions),
        ..LeaseSpec::default()
    }
}

fn found(lease: Lease) -> Found {
    let spec = lease.spec.unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(0);
    Found {
        record: Record {
            holder: spec.holder_identity.unwrap_or_default(),
            lease: Duration::from_secs(seconds),
            acquired: spec.acquire_time.map(|time| time.0),
            renewed: spec.renew_time.map(|time| time.0),
            transitions: spec.lease_transitions.unwrap_or(0),
        },
        resource_version: lease.metadata.resource_version.unwrap_or_default(),
    }
}
