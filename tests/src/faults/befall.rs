//! A life of a deployment, at the beginning of each of whose steps something befalls the API server or what it answers.
//!
//! In: a stage, what befalls, for how long. Out: the course of the life, and what was seen meanwhile. It must not know
//! what the operator should make of it, but for how it tells of it: by one condition.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use contract::metrics::Metric;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::Value;

use super::kill::{Course, Stage, reach};
use super::life::{Step, World};
use super::player::Player;
use super::proxy::Proxy;
use super::report::everything;
use super::rule::{After, Asked, Before, OnEvent, Pass, Rule};
use super::state::{Counts, Names, differences};
use crate::control_plane::ControlPlane;
use crate::operator::scene::ours;
use crate::operator::{Launch, Operator};
use crate::process::wait_for;

/// The reason by which an object tells that the API server fails.
const TELLS: &str = "ApiServerError";
/// The metric by which the operator tells.
const ERRORS: &str = Metric::ReconcileErrors.definition().name;
/// How often is looked whether it does.
const LOOK: Duration = Duration::from_millis(200);
/// Most requests in a second while it lasts, and what a step makes at once besides. What is asked for without a pause
/// makes thousands.
const MOST: u64 = 30;
const AT_ONCE: u64 = 100;
/// How long the last answers may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Steps with much to write; the others go undisturbed where time is short.
const BUSY: [Step; 6] = [Step::Create, Step::Fetch, Step::Load, Step::ScaleUp, Step::Change, Step::Delete];

/// A rule made of three functions.
#[derive(Clone, Copy)]
pub struct Befalls {
    /// See [`Rule::before`].
    pub before: fn(&Asked) -> Before,
    /// See [`Rule::after`].
    pub after: fn(&Asked, u16) -> After,
    /// See [`Rule::event`].
    pub event: fn(&Asked, Option<&Value>) -> OnEvent,
}

/// Nothing befalls anything.
pub const NOTHING: Befalls =
    Befalls { before: |_| Before::Pass, after: |_, _| After::Pass, event: |_, _| OnEvent::Pass };

impl Rule for Befalls {
    fn before(&self, asked: &Asked) -> Before {
        (self.before)(asked)
    }

    fn after(&self, asked: &Asked, code: u16) -> After {
        (self.after)(asked, code)
    }

    fn event(&self, asked: &Asked, event: Option<&Value>) -> OnEvent {
        (self.event)(asked, event)
    }
}

/// What befalls.
#[derive(Clone, Copy)]
pub enum What {
    /// Requests and answers, by a rule.
    Requests(Befalls),
    /// Events of watches, by a rule.
    Events(Befalls),
    /// The API server is killed, and started again afterwards.
    Killed,
    /// etcd is killed and started again.
    EtcdKilled,
    /// The API server stands still.
    Frozen,
    /// etcd takes no more writes.
    Full,
}

/// Who tells of what befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nobody need: nothing fails that is not put right at once, or the operator ends.
    ByNobody,
    /// One condition of an object: some write fails, and statuses can be written.
    ByCondition,
    /// The operator's metric: a status cannot be written either.
    ByMetric,
}

/// Something that befalls.
#[derive(Clone, Copy)]
pub struct Trouble {
    /// Its name in the report.
    pub name: &'static str,
    /// What it is.
    pub what: What,
    /// How long it lasts at each step.
    pub lasts: Duration,
    /// Who is to tell of it.
    pub told: Told,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// How often it was made.
    pub tried: u64,
    /// The life.
    pub course: Course,
    /// Whether an object told of it.
    pub told: bool,
    /// Most requests while it lasted at one step.
    pub most: u64,
    /// How many reconciliations failed, as the operator counts them.
    pub errors: f64,
}

impl Trouble {
    /// Where its life takes place.
    #[must_use]
    pub fn namespace(&self) -> String {
        self.name.replace('_', "-")
    }

    async fn begin(&self, plane: &ControlPlane, proxy: &Proxy) -> Result<()> {
        proxy.set(Pass);
        match self.what {
            What::Requests(rule) | What::Events(rule) => proxy.set(rule),
            What::Killed => plane.kill_api_server().await?,
            What::EtcdKilled => plane.restart_etcd().await?,
            What::Frozen => plane.freeze_api_server()?,
            What::Full => plane.alarm_no_space(true).await?,
        }
        Ok(())
    }

    /// How often it befell something.
    async fn end(&self, plane: &ControlPlane, proxy: &Proxy) -> Result<u64> {
        match self.what {
            What::Requests(_) | What::Events(_) => {
                let befallen = proxy.tried();
                proxy.set(Pass);
                return Ok(befallen);
            }
            What::Killed => plane.start_api_server().await?,
            What::EtcdKilled => {}
            What::Frozen => plane.thaw_api_server()?,
            What::Full => plane.alarm_no_space(false).await?,
        }
        Ok(1)
    }

    const fn is_made_by_proxy(&self) -> bool {
        matches!(self.what, What::Requests(_) | What::Events(_))
    }

    /// One life with this trouble, in a namespace of its own. Each step is waited for until it has come to what it comes
    /// to otherwise, for a pause after a failure looks like an end.
    pub async fn befall(&self, stage: &Stage<'_>, expected: &Course) -> Result<Outcome> {
        let Stage { site, client, node } = stage;
        let namespace = self.namespace();
        let began = Instant::now();
        site.namespace(client, &namespace).await?;
        site.allow_lease(&namespace).await?;
        let proxy = site.proxy().await?;
        let identity = format!("operator-{namespace}");
        let only = format!("--watch-namespace={namespace}");
        let more = [only.as_str()];
        let launch = Launch {
            server: Some(proxy.url()),
            lease_namespace: &namespace,
            ..Launch::new(&identity, &more)
        };
        let mut operator = site.launch(&launch).await?;
        let player = Player::new(client, &namespace, node);
        let world = World { client, namespace: &namespace, node: node.name(), player: &player };
        let mut outcome = Outcome { tried: 0, course: Course::default(), told: false, most: 0, errors: 0.0 };
        let mut names = Names::new(&namespace, node.name());
        let lived = tokio::select! {
            lived = self.live((stage, &world), (&launch, &proxy, &mut operator), (&mut names, &mut outcome), expected) => lived,
            () = player.play() => bail!("the player has left"),
        };
        lived.with_context(|| format!("{}\n{}", self.name, operator.about(&namespace)))?;
        wait_for("the last answer", LIMIT, async || proxy.is_idle()).await?;
        outcome.errors = operator.metric(ERRORS).await?;
        let course = &mut outcome.course;
        course.writes = proxy.writes();
        course.writes.retain(|write| write.change.is_some());
        course.changes = proxy.changes();
        course.doubles = player.doubles();
        course.counts = Counts::of(&course.writes, &names);
        let volumes: Api<PersistentVolume> = Api::all(client.clone());
        // A life that did not come so far has none.
        drop(volumes.delete(&namespace, &DeleteParams::default()).await);
        course.took = began.elapsed();
        Ok(outcome)
    }

    async fn live(
        &self,
        (stage, world): (&Stage<'_>, &World<'_>),
        (launch, proxy, operator): (&Launch<'_>, &Proxy, &mut Operator),
        (names, outcome): (&mut Names, &mut Outcome),
        expected: &Course,
    ) -> Result<()> {
        let plane = &stage.site.plane;
        for (step, expected) in Step::ALL.into_iter().zip(&expected.states) {
            if !everything() && !BUSY.contains(&step) {
                step.act(world).await?;
            } else if self.is_made_by_proxy() {
                // It is there before anything is asked for.
                self.begin(plane, proxy).await?;
                step.act(world).await?;
                outcome.told |= self.watch(world).await?;
                outcome.most = outcome.most.max(proxy.asked());
                outcome.tried += self.end(plane, proxy).await?;
            } else {
                step.act(world).await?;
                self.begin(plane, proxy).await?;
                tokio::time::sleep(self.lasts).await;
                outcome.most = outcome.most.max(proxy.asked());
                outcome.tried += self.end(plane, proxy).await?;
            }
            let reached = tokio::select! {
                reached = reach(world, names, expected) => reached,
                failed = keep_alive(stage, launch, operator) => failed.map(|never| match never {}),
            };
            let state = reached.with_context(|| format!("{step:?}"))?;
            let differs = state != *expected;
            outcome.course.states.push(state);
            if differs {
                // The next step would begin from something else.
                break;
            }
        }
        Ok(())
    }

    /// Looks at what objects tell as long as it lasts; whether one told of it. None may do so twice.
    async fn watch(&self, world: &World<'_>) -> Result<bool> {
        let (began, mut told) = (Instant::now(), false);
        while began.elapsed() < self.lasts {
            tokio::time::sleep(LOOK).await;
            for kind in ["LlmDeployment", "LlmModel"] {
                for object in ours(world.client, world.namespace, kind).list(&ListParams::default()).await? {
                    let conditions = &object.data["status"]["conditions"];
                    let tells = |condition: &&Value| condition["reason"] == TELLS;
                    let count = conditions.as_array().into_iter().flatten().filter(tells).count();
                    ensure!(count <= 1, "{kind} {} tells {count} times: {conditions}", object.name_any());
                    told |= count == 1;
                }
            }
        }
        Ok(told)
    }

    /// How a life with this trouble differs from one without.
    pub fn compare(&self, outcome: &mut Outcome, expected: &Course) {
        let Outcome { tried, course, told, most, errors } = outcome;
        let pairs = expected.states.iter().zip(&course.states);
        let found = pairs.zip(Step::ALL).flat_map(|((expected, found), step)| {
            let all = differences(expected, found).into_iter();
            all.map(move |one| format!("after {step:?}: {one}")).collect::<Vec<_>>()
        });
        let mut found: Vec<String> = found.collect();
        if *tried == 0 {
            found.push("it was never made".to_owned());
        }
        if self.told == Told::ByCondition && !*told {
            found.push("no object told of it".to_owned());
        }
        if self.told == Told::ByMetric && *errors == 0.0 {
            found.push(format!("{ERRORS} did not tell of it"));
        }
        if *most > AT_ONCE + MOST * self.lasts.as_secs() {
            found.push(format!("a hot loop: {most} requests in {:?}", self.lasts));
        }
        for (expected, found) in expected.states.iter().zip(&course.states) {
            course.orphans += found.keys().filter(|key| !expected.contains_key(*key)).count() as u64;
        }
        course.differences.extend(found);
        course.compare_counts(&expected.counts);
    }
}

/// Who has lost its lease ends, perhaps only when the trouble is over, and is started again.
async fn keep_alive(stage: &Stage<'_>, launch: &Launch<'_>, operator: &mut Operator) -> Result<Infallible> {
    loop {
        if operator.has_ended() {
            *operator = stage.site.launch(launch).await?;
        }
        tokio::time::sleep(LOOK).await;
    }
}
