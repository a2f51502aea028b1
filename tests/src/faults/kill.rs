//! A life of a deployment whose operator is killed once, at a write that was counted beforehand.
//!
//! In: a control plane, a node, which write, and what came of the run that nothing befell. Out: how this run differs.
//! It must not know what the operator writes.
//!
//! Writes are counted where they arrive, at the proxy: all but those of leases and events, which are no state. The
//! operator's next process need not wait for the lease of the one that was killed: the test deletes it, for how long
//! that wait is, is another test's question.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Client;
use kube::api::{Api, DeleteParams};
use nix::sys::signal::Signal;
use tokio::sync::watch;

use super::life::{Step, World};
use super::player::Player;
use super::proxy::{Proxy, Written};
use super::rule::{After, Asked, Before, OnEvent, Pass, Rule};
use super::state::{self, Counts, Names, State, differences};
use crate::operator::kubelet::Node;
use crate::operator::{LEASE, Launch, Operator, Site};
use crate::process::wait_for;

/// Longest wait for anything: a machine that does much else at the same time is slow.
const LIMIT: Duration = Duration::from_secs(120);
/// How often a state is read. More often, and reading it would be most of what the API server does.
const READ: Duration = Duration::from_millis(200);
/// Without a change for this long, an undisturbed run is taken to have followed: longer than any pause after which the
/// operator looks again at what it is not told. What is taken for the end and is none, no run that is killed comes to.
const QUIET: Duration = Duration::from_secs(6);

/// So many times the writes of the other run are no mere repetition of what a killed process had begun.
const HOT: u64 = 2;

/// When the operator is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the API server sees the write.
    Before,
    /// After the API server has answered, and before the operator knows.
    After,
}

/// A write, counted from 1, and when the operator is killed.
pub type Kill = (u64, Moment);

/// Stops everything at one write.
struct Halt {
    kill: Option<Kill>,
    halted: watch::Sender<bool>,
}

impl Halt {
    /// Whether everything stands still, from this moment of this write on.
    fn is_halted(&self, asked: &Asked, moment: Moment) -> bool {
        let now = asked.change.is_some_and(|change| self.kill == Some((change, moment)));
        if now {
            self.halted.send_replace(true);
        }
        now || *self.halted.borrow()
    }
}

impl Rule for Halt {
    fn before(&self, asked: &Asked) -> Before {
        if self.is_halted(asked, Moment::Before) { Before::Freeze } else { Before::Pass }
    }

    fn after(&self, asked: &Asked, _: u16) -> After {
        if self.is_halted(asked, Moment::After) { After::Freeze } else { After::Pass }
    }

    fn event(&self, _: &Asked, _: Option<&serde_json::Value>) -> OnEvent {
        if *self.halted.borrow() { OnEvent::Hold } else { OnEvent::Pass }
    }
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Course {
    /// The state after each step.
    pub states: Vec<State>,
    /// What was made and deleted.
    pub counts: Counts,
    /// The writes that were counted, in the order of their answers.
    pub writes: Vec<Written>,
    /// How many writes were counted.
    pub changes: u64,
    /// How often two pods of one replica ran at once.
    pub doubles: u64,
    /// Whether the operator was killed.
    pub killed: bool,
    /// How it differs from the run that nothing befell.
    pub differences: Vec<String>,
    /// Objects that are left and were not in the other run.
    pub orphans: u64,
    /// Objects that were made more often than in the other run.
    pub duplicate_creates: u64,
    /// How long it took.
    pub took: Duration,
}

/// A place for one run after the other.
pub struct Stage<'a> {
    /// The control plane.
    pub site: &'a Site,
    /// A client with all rights.
    pub client: Client,
    /// Where the pods of this stage run.
    pub node: Node,
}

impl Stage<'_> {
    /// One life in a namespace of its own, compared with another if there is one.
    pub async fn run(
        &self,
        namespace: &str,
        kill: Option<Kill>,
        expected: Option<&Course>,
    ) -> Result<Course> {
        let Self { site, client, node } = self;
        let began = Instant::now();
        site.namespace(client, namespace).await?;
        site.allow_lease(namespace).await?;
        let proxy = site.proxy().await?;
        let (sender, halted) = watch::channel(false);
        proxy.set(Halt { kill, halted: sender });
        let identity = format!("operator-{namespace}");
        let only = format!("--watch-namespace={namespace}");
        let more = [only.as_str()];
        let launch =
            Launch { server: Some(proxy.url()), lease_namespace: namespace, ..Launch::new(&identity, &more) };
        let operator = site.launch(&launch).await?;
        let player = Player::new(client, namespace, node);
        let world = World { client, namespace, node: node.name(), player: &player };
        let mut names = Names::new(namespace, node.name());
        let mut course = Course::default();
        let lived = tokio::select! {
            lived = live(&world, &mut names, expected, &mut course) => lived,
            failed = self.keep_alive(&launch, &proxy, operator, halted.clone()) => failed.map(|never| match never {}),
            () = player.play() => Ok(()),
        };
        lived.with_context(|| format!("{namespace}: see the log of {identity}"))?;
        wait_for("the last answer", LIMIT, async || proxy.is_idle()).await?;
        course.killed = *halted.borrow();
        course.writes = proxy.writes();
        course.writes.retain(|write| write.change.is_some());
        course.changes = proxy.changes();
        course.doubles = player.doubles();
        course.counts = Counts::of(&course.writes, &names);
        if let Some(expected) = expected {
            course.compare_counts(&expected.counts);
            if course.changes > HOT * expected.changes {
                let told =
                    format!("{} writes instead of about {}: a hot loop", course.changes, expected.changes);
                course.differences.push(told);
            }
        }
        let volumes: Api<PersistentVolume> = Api::all(client.clone());
        // A run that did not come so far has none.
        drop(volumes.delete(namespace, &DeleteParams::default()).await);
        course.took = began.elapsed();
        Ok(course)
    }

    /// Kills the operator when everything stands still, and starts another.
    async fn keep_alive(
        &self,
        launch: &Launch<'_>,
        proxy: &Proxy,
        mut operator: Operator,
        mut halted: watch::Receiver<bool>,
    ) -> Result<Infallible> {
        halted.wait_for(|halted| *halted).await?;
        operator.signal(Signal::SIGKILL)?;
        operator.ended(LIMIT).await?;
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), launch.lease_namespace);
        // It may have been killed before it had one.
        drop(leases.delete(LEASE, &DeleteParams::default()).await);
        proxy.set(Pass);
        let _next = self.site.launch(launch).await?;
        std::future::pending().await
    }
}

/// All steps, one after the other, up to one that is not followed.
async fn live(
    world: &World<'_>,
    names: &mut Names,
    expected: Option<&Course>,
    course: &mut Course,
) -> Result<()> {
    for (at, step) in Step::ALL.into_iter().enumerate() {
        step.act(world).await?;
        let expected = expected.map(|course| &course.states[at]);
        let state = match expected {
            Some(expected) => reach(world, names, expected).await?,
            None => settle(world, names, step).await?,
        };
        let differences = expected.map(|expected| differences(expected, &state)).unwrap_or_default();
        let strangers = state.keys().filter(|key| expected.is_some_and(|other| !other.contains_key(*key)));
        course.orphans += strangers.count() as u64;
        course.states.push(state);
        if !differences.is_empty() {
            course.differences.extend(differences.iter().map(|one| format!("after {step:?}:{one}")));
            return Ok(());
        }
    }
    Ok(())
}

/// Waits until a step is followed and nothing changes any more.
async fn settle(world: &World<'_>, names: &mut Names, step: Step) -> Result<State> {
    let (mut last, mut since) = (State::new(), Instant::now());
    wait_for(&format!("{step:?} to be followed"), LIMIT, async || {
        tokio::time::sleep(READ).await;
        let state = state::read(world.client, world.namespace, names).await?;
        if state != last {
            (last, since) = (state.clone(), Instant::now());
        }
        let told = |(name, object): (&String, &serde_json::Value)| format!("{name}: {}", object["status"]);
        let all = || state.iter().map(told).collect::<Vec<_>>().join("\n");
        ensure!(step.is_followed(&state), "{}", all());
        ensure!(since.elapsed() > QUIET, "it still changes");
        Ok(state)
    })
    .await
}

/// Waits until the state is the expected one; the last one if it never is.
pub(super) async fn reach(world: &World<'_>, names: &mut Names, expected: &State) -> Result<State> {
    let mut last = State::new();
    let reached = wait_for("the expected state", LIMIT, async || {
        tokio::time::sleep(READ).await;
        last = state::read(world.client, world.namespace, names).await?;
        ensure!(last == *expected);
        Ok(())
    });
    // What differs is told by who asked.
    drop(reached.await);
    Ok(last)
}

impl Course {
    pub(super) fn compare_counts(&mut self, expected: &Counts) {
        let told = |what: &str, expected: &BTreeMap<String, u64>, found: &BTreeMap<String, u64>| {
            let of =
                |counts: &BTreeMap<String, u64>, key: &String| counts.get(key).copied().unwrap_or_default();
            let keys = expected.keys().chain(found.keys().filter(|key| !expected.contains_key(*key)));
            keys.map(|key| (format!("{key} {what}"), of(expected, key), of(found, key)))
                .filter(|(_, expected, found)| expected != found)
                .collect::<Vec<_>>()
        };
        let created = told("made", &expected.created, &self.counts.created);
        self.duplicate_creates = created.iter().map(|(_, a, b)| b.saturating_sub(*a)).sum();
        let deleted = told("deleted", &expected.deleted, &self.counts.deleted);
        let all = created.into_iter().chain(deleted);
        self.differences.extend(all.map(|(what, a, b)| format!("{what} {b} times instead of {a}")));
    }

    /// Whether nothing tells it from the run that nothing befell.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        self.differences.is_empty() && self.orphans + self.duplicate_creates + self.doubles == 0
    }

    /// Which write of the run was this one.
    #[must_use]
    pub fn nth(&self, change: u64) -> String {
        let found = self.writes.iter().find(|write| write.change == Some(change));
        found.map_or_else(String::new, |Written { call, .. }| {
            format!("{} {} {}", call.verb, call.resource, call.name)
        })
    }
}
