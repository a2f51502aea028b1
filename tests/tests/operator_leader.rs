//! Of several operators one works. When it ends, is killed or freezes, another goes on, and never two write.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::faults::report::{Fault, Fragment};
use e2e::operator::audit::Call;
use e2e::operator::scene::{LIMIT, Scene, condition, ours, wish};
use e2e::operator::{LEASE, LEASE_NAMESPACE, Operator, Site};
use e2e::process::wait_for;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// Longest hand-over when the leader is asked to end.
const GRACEFUL: Duration = Duration::from_secs(3);
/// Longest hand-over when the leader says nothing: a lease of 15 s, and the pause between two tries.
const SILENT: Duration = Duration::from_secs(20);
/// How long others leave a lease alone.
const LEASE_DURATION: Duration = Duration::from_secs(15);
/// Where the models are that give the leader something to write.
const NAMESPACE: &str = "default";
/// How often there is one more.
const BUSY: Duration = Duration::from_millis(100);

async fn create(scene: &Scene<'_>, name: &str) -> Result<()> {
    scene.apply("LlmModel", name, &absent()).await.map(drop)
}

/// A model that is told to be without its claim.
fn absent() -> Value {
    json!({ "source": { "persistentVolumeClaim": { "claimName": "absent" } } })
}

/// Each test measures by itself: three control planes at once are more than what is measured.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Gives whoever leads something to write, ten times a second.
fn keep_busy(client: Client) -> JoinHandle<()> {
    tokio::spawn(async move {
        let models = ours(&client, NAMESPACE, "LlmModel");
        for n in 0.. {
            let model = wish("LlmModel", &format!("busy-{n}"), &absent());
            let model = serde_json::from_value(model).expect("an object");
            // An API server that is busy or out of reach is asked for the next one.
            drop(models.create(&PostParams::default(), &model).await);
            tokio::time::sleep(BUSY).await;
        }
    })
}

/// How long it takes from `since` until `operator` holds the lease and, after that, until it has written a status.
async fn takes_over(site: &Site, operator: &Operator, since: Instant) -> Result<(Duration, Duration)> {
    let scene = site.scene(operator, NAMESPACE).await?;
    let leases: Api<Lease> = Api::namespaced(scene.client.clone(), LEASE_NAMESPACE);
    let lease = wait_for("the lease", LIMIT, async || {
        let holder = leases.get(LEASE).await?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        ensure!(holder.starts_with(&operator.identity), "{holder} holds it");
        Ok(since.elapsed())
    })
    .await?;
    let probe = format!("probe-{}", operator.identity);
    create(&scene, &probe).await?;
    let status = scene.wait("a status", async || {
        let model = scene.ours("LlmModel").get(&probe).await?;
        let told = condition(&model, "Ready").is_some_and(|ready| ready["reason"] == "ClaimNotFound");
        ensure!(told, "{:?}", model.data);
        Ok(since.elapsed())
    });
    Ok((lease, status.await?))
}

/// The users who wrote, in turn: each term stands once, however many writes it had.
fn terms(site: &Site) -> Vec<String> {
    let writes: Vec<Call> = site.calls("operator-").unwrap().into_iter().filter(Call::writes).collect();
    let mut terms: Vec<String> = writes.iter().map(|write| write.user.clone()).collect();
    terms.dedup();
    println!("{} writes by {terms:?}", writes.len());
    terms
}

/// How often somebody wrote who had ceased to.
fn overlaps(terms: &[String]) -> u64 {
    let writers: std::collections::BTreeSet<_> = terms.iter().collect();
    (terms.len() - writers.len()) as u64
}

fn survived(name: &str, terms: &[String]) -> Fault {
    Fault { name: name.to_owned(), tried: 1, survived: u64::from(overlaps(terms) == 0) }
}

#[tokio::test]
async fn a_leader_that_ends_or_is_killed_is_followed_by_another() {
    let _alone = ALONE.lock().await;
    let site = Site::start("llm-fleet.yaml").await.unwrap();
    let mut first = site.operator("operator-a", &[]).await.unwrap();
    println!("{}", first.first_line().unwrap());
    let (_, idle) = takes_over(&site, &first, Instant::now()).await.unwrap();
    println!("the first operator: status after {idle:?}");
    let busy = keep_busy(site.plane.client().await.unwrap());

    let mut second = site.operator("operator-b", &[]).await.unwrap();
    assert_eq!(second.metric("llmfleet_leader").await.unwrap(), 0.0);
    let since = Instant::now();
    first.signal(Signal::SIGTERM).unwrap();
    let (lease, status) = takes_over(&site, &second, since).await.unwrap();
    println!("SIGTERM: lease after {lease:?}, status after {status:?}");
    assert!(lease < GRACEFUL, "{lease:?}");
    let graceful = lease;
    assert!(first.ended(GRACEFUL).await.unwrap().success(), "{}", first.last_lines());
    assert_eq!(second.metric("llmfleet_leader").await.unwrap(), 1.0);

    let third = site.operator("operator-c", &[]).await.unwrap();
    let since = Instant::now();
    second.signal(Signal::SIGKILL).unwrap();
    let (lease, status) = takes_over(&site, &third, since).await.unwrap();
    println!("SIGKILL: lease after {lease:?}, status after {status:?}");
    assert!(lease < SILENT, "{lease:?}");
    assert!(!second.ended(GRACEFUL).await.unwrap().success());

    busy.abort();
    let terms = terms(&site);
    let fragment = Fragment {
        leader_failover_seconds: Some(lease.as_secs_f64()),
        graceful_handover_seconds: Some(graceful.as_secs_f64()),
        two_writers: overlaps(&terms),
        faults: vec![survived("leader_asked_to_end", &terms), survived("leader_killed", &terms)],
        ..Fragment::default()
    };
    fragment.leave("leader_ends").unwrap();
    assert_eq!(terms, ["operator-a", "operator-b", "operator-c"], "each wrote in one term of its own");
    site.check_rights().unwrap();
}

#[tokio::test]
async fn a_leader_that_froze_writes_nothing_when_it_wakes() {
    let _alone = ALONE.lock().await;
    let site = Site::start("llm-fleet.yaml").await.unwrap();
    let mut frozen = site.operator("operator-a", &[]).await.unwrap();
    takes_over(&site, &frozen, Instant::now()).await.unwrap();
    let next = site.operator("operator-b", &[]).await.unwrap();
    let busy = keep_busy(site.plane.client().await.unwrap());
    // It freezes in the middle of its work.
    tokio::time::sleep(BUSY * 10).await;

    let since = Instant::now();
    frozen.signal(Signal::SIGSTOP).unwrap();
    let (lease, status) = takes_over(&site, &next, since).await.unwrap();
    println!("SIGSTOP: lease after {lease:?}, status after {status:?}");
    assert!(lease < SILENT, "{lease:?}");
    let since = Instant::now();
    frozen.signal(Signal::SIGCONT).unwrap();
    // Nobody waits for its end: what counts is that it writes no more.
    let ended = frozen.ended(SILENT).await.unwrap();
    println!("SIGCONT: ended after {:?}", since.elapsed());
    assert!(!ended.success(), "a leader that lost its lease must not look as if it had been asked to end");
    busy.abort();
    let terms = terms(&site);
    let fragment = Fragment {
        leader_failover_seconds: Some(lease.as_secs_f64()),
        two_writers: overlaps(&terms),
        faults: vec![survived("leader_stopped_and_continued", &terms)],
        ..Fragment::default()
    };
    fragment.leave("leader_freezes").unwrap();
    assert_eq!(terms, ["operator-a", "operator-b"], "each wrote in one term of its own");
}

/// A lease that goes is made again by who leads; one that somebody else writes is lost; and who cannot renew it ends
/// before another may begin.
#[tokio::test]
async fn a_lease_that_is_deleted_edited_or_out_of_reach_never_has_two_holders() {
    let _alone = ALONE.lock().await;
    let site = Site::start("llm-fleet.yaml").await.unwrap();
    let mut first = site.operator("operator-a", &[]).await.unwrap();
    takes_over(&site, &first, Instant::now()).await.unwrap();
    let mut second = site.operator("operator-b", &[]).await.unwrap();
    let client = site.plane.client().await.unwrap();
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASE_NAMESPACE);
    let busy = keep_busy(client);

    leases.delete(LEASE, &DeleteParams::default()).await.unwrap();
    let again = wait_for("the leader to make its lease again", SILENT, async || {
        let holder = leases.get(LEASE).await?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        ensure!(holder.starts_with("operator-a"), "{holder} holds it");
        Ok(())
    });
    again.await.unwrap();

    let since = Instant::now();
    let stranger = json!({ "spec": { "holderIdentity": "somebody" } });
    leases.patch(LEASE, &PatchParams::default(), &Patch::Merge(stranger)).await.unwrap();
    assert!(!first.ended(SILENT).await.unwrap().success(), "{}", first.last_lines());
    let (lease, _) = takes_over(&site, &second, since).await.unwrap();
    println!("edited: lease after {lease:?}");
    assert!(lease < SILENT, "{lease:?}");

    let since = Instant::now();
    site.plane.freeze_api_server().unwrap();
    let ended = second.ended(SILENT).await.unwrap();
    println!("API server out of reach: ended after {:?}", since.elapsed());
    assert!(!ended.success() && since.elapsed() < LEASE_DURATION, "{}", second.last_lines());
    site.plane.thaw_api_server().unwrap();

    busy.abort();
    let terms = terms(&site);
    let faults = ["lease_deleted", "lease_edited", "lease_out_of_reach"].map(|name| survived(name, &terms));
    let fragment = Fragment { two_writers: overlaps(&terms), faults: faults.into(), ..Fragment::default() };
    fragment.leave("leader_leases").unwrap();
    assert_eq!(terms, ["operator-a", "operator-b"], "each wrote in one term of its own");
}
