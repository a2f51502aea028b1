//! Whatever befalls the API server, or what it answers: the operator comes to the same end by the same creations and
//! deletions, asks for nothing without a pause, and says by one condition what is the matter.
//!
//! Each trouble befalls a whole life of a deployment, from before each step on for some seconds. `make test` leaves out
//! the quiet steps, and what takes longest.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::time::Duration;

use e2e::faults::befall::{Befalls, NOTHING, Outcome, Told, Trouble, What};
use e2e::faults::kill::{Course, Stage};
use e2e::faults::report::{Fault, Fragment, everything};
use e2e::faults::rule::{After, Answer, Asked, Before, OnEvent};
use e2e::operator::Site;
use futures::{StreamExt, stream};

/// How many lives take place at once. With more of them a busy machine gives none the time that it is watched for.
const AT_ONCE: usize = 8;
/// How long most of them last.
const SECONDS: Duration = Duration::from_secs(5);

/// Writes of what a deployment is made of, but for its model: statuses can still be written.
fn is_child(asked: &Asked) -> bool {
    asked.call.changes() && !asked.call.resource.starts_with("llm")
}

fn is_lease(asked: &Asked) -> bool {
    asked.call.resource == "leases"
}

fn answered(asked: &Asked, code: u16, reason: &'static str) -> Before {
    if is_child(asked) { Before::Answer(Answer::new(code, reason)) } else { Before::Pass }
}

const fn requests(name: &'static str, told: Told, before: fn(&Asked) -> Before) -> Trouble {
    Trouble { name, what: What::Requests(Befalls { before, ..NOTHING }), lasts: SECONDS, told }
}

const fn answers(name: &'static str, after: fn(&Asked, u16) -> After) -> Trouble {
    Trouble { name, what: What::Requests(Befalls { after, ..NOTHING }), lasts: SECONDS, told: Told::ByNobody }
}

const fn events(name: &'static str, event: fn(&Asked, Option<&serde_json::Value>) -> OnEvent) -> Trouble {
    Trouble { name, what: What::Events(Befalls { event, ..NOTHING }), lasts: SECONDS, told: Told::ByNobody }
}

fn held(asked: &Asked, resource: &str) -> OnEvent {
    if asked.call.resource == resource { OnEvent::Hold } else { OnEvent::Pass }
}

/// What befalls requests, answers and watches.
fn by_proxy() -> Vec<Trouble> {
    let slow = requests("slow_api_server", Told::ByNobody, |asked| {
        if is_lease(asked) { Before::Pass } else { Before::Delay(Duration::from_secs(5)) }
    });
    let half_open = requests("half_open_connection", Told::ByMetric, |asked| {
        if is_lease(asked) { Before::Pass } else { Before::Freeze }
    });
    let mut all = vec![
        requests("conflict_409", Told::ByCondition, |asked| answered(asked, 409, "Conflict")),
        requests("too_many_requests_429", Told::ByCondition, |asked| {
            let answer = Answer { retry_after: Some(1), ..Answer::new(429, "TooManyRequests") };
            if is_child(asked) { Before::Answer(answer) } else { Before::Pass }
        }),
        requests("internal_error_500", Told::ByCondition, |asked| answered(asked, 500, "InternalError")),
        requests("unavailable_503", Told::ByCondition, |asked| answered(asked, 503, "ServiceUnavailable")),
        requests("nothing_can_be_written_503", Told::ByMetric, |asked| {
            let answer = Answer::new(503, "ServiceUnavailable");
            if asked.call.changes() { Before::Answer(answer) } else { Before::Pass }
        }),
        Trouble { lasts: 2 * SECONDS, ..slow },
        Trouble { lasts: 2 * SECONDS, ..half_open },
        answers("truncated_json", |asked, _| if is_lease(asked) { After::Pass } else { After::Truncate }),
        answers("answer_lost", |asked, _| {
            if asked.call.changes() && asked.times == 1 { After::Withhold } else { After::Pass }
        }),
        events("watch_held", |_, _| OnEvent::Hold),
        events("watch_held_of_deployments", |asked, _| held(asked, "llmdeployments")),
        events("watch_held_of_pods", |asked, _| held(asked, "pods")),
        events("watch_replayed", |_, _| OnEvent::Replay),
        events("watch_cut", |_, _| OnEvent::Cut),
        events("watch_410", |_, _| OnEvent::Gone),
    ];
    if everything() {
        let long = |trouble: &mut Trouble| trouble.lasts = 4 * SECONDS;
        all.iter_mut().filter(|trouble| trouble.name.starts_with("watch_held")).for_each(long);
        all.extend([
            events("watch_held_of_models", |asked, _| held(asked, "llmmodels")),
            events("watch_held_of_jobs", |asked, _| held(asked, "jobs")),
        ]);
    }
    all
}

/// What befalls the control plane itself, and so whoever uses it: one after the other.
fn by_control_plane() -> Vec<Trouble> {
    let whole = |name, what, seconds| Trouble {
        name,
        what,
        lasts: Duration::from_secs(seconds),
        told: Told::ByNobody,
    };
    let mut all =
        vec![whole("api_server_restarted", What::Killed, 1), whole("etcd_restarted", What::EtcdKilled, 1)];
    if everything() {
        all.extend([
            whole("dead_api_server", What::Killed, 30),
            whole("api_server_frozen", What::Frozen, 20),
            whole("etcd_full", What::Full, 8),
        ]);
    }
    all
}

fn told(trouble: &Trouble, mut outcome: Outcome, expected: &Course) -> (Fault, Course) {
    trouble.compare(&mut outcome, expected);
    let Outcome { tried, course, told, most, errors } = outcome;
    let well = course.is_as_expected();
    println!(
        "{}: {tried} times, at most {most} requests at a step, told: {told}, {errors} errors, {} writes, {:.0?}: {}",
        trouble.name,
        course.changes,
        course.took,
        if well { "survived".to_owned() } else { format!("{:#?}", course.differences) }
    );
    (Fault { name: trouble.name.to_owned(), tried, survived: if well { tried } else { 0 } }, course)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_befalls_the_api_server_it_comes_to_the_same() {
    let site = Site::start("llm-fleet.yaml").await.unwrap();
    let (by_proxy, by_control_plane) = (by_proxy(), by_control_plane());
    let all = by_proxy.iter().chain(&by_control_plane);
    let names: Vec<_> =
        std::iter::once("undisturbed".to_owned()).chain(all.map(Trouble::namespace)).collect();
    let stages = Stage::set(&site, &names).await.unwrap();
    let (first, stages) = stages.split_first().unwrap();
    let reference = first.run("undisturbed", None, None).await.unwrap();
    let reference = &reference;
    let lives = by_proxy
        .iter()
        .zip(stages)
        .map(async |(trouble, stage)| (trouble, trouble.befall(stage, reference).await));
    let mut outcomes: Vec<_> = stream::iter(lives).buffered(AT_ONCE).collect().await;
    for (trouble, stage) in by_control_plane.iter().zip(&stages[by_proxy.len()..]) {
        outcomes.push((trouble, trouble.befall(stage, reference).await));
    }
    let mut failed = Vec::new();
    let mut all = Vec::new();
    for (trouble, outcome) in outcomes {
        match outcome {
            Ok(outcome) => all.push(told(trouble, outcome, reference)),
            Err(error) => {
                failed.push(format!("{error:?}"));
                all.push((Fault { name: trouble.name.to_owned(), tried: 1, survived: 0 }, Course::default()));
            }
        }
    }
    let sum = |of: fn(&Course) -> u64| all.iter().map(|(_, course)| of(course)).sum();
    let fragment = Fragment {
        divergences: sum(|course| (!course.differences.is_empty()).into()),
        orphans: sum(|course| course.orphans),
        duplicate_creates: sum(|course| course.duplicate_creates),
        two_writers: sum(|course| course.doubles),
        faults: all.iter().map(|(fault, _)| fault.clone()).collect(),
        ..Fragment::default()
    };
    fragment.leave("matrix").unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    assert!(all.iter().all(|(_, course)| course.is_as_expected()), "see above");
}
