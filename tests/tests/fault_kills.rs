//! The operator is killed before and after each of its writes, and another process goes on: to the same end, by the
//! same creations and deletions, without an object too many.
//!
//! `make faults` tries both moments at every write. `make test` has time for every third write, before it and after it
//! in turn.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::collections::BTreeSet;
use std::time::Instant;

use e2e::faults::kill::{Course, Kill, Moment, Stage};
use e2e::faults::report::{Fault, Fragment, everything};
use e2e::operator::Site;
use futures::future::join_all;

/// How many runs take place at once, each with a node of its own.
const STAGES: usize = 4;
/// How often a run is begun anew that did not come to its write.
const ATTEMPTS: usize = 3;
/// Of a hundred writes that all undisturbed runs have, so many come in every run: two changes of a status are told in
/// one write or in two, so that the last ones of one run are more than another has.
const SURE_PERCENT: u64 = 90;

/// A run that is killed at this write, or the last of `attempts` that did not come to it.
async fn killed(stage: &Stage<'_>, kill: Kill, attempts: usize, reference: &Course) -> Course {
    let (change, moment) = kill;
    let when = format!("{moment:?}").to_lowercase();
    let mut attempt = 1;
    loop {
        let namespace = format!("kill-{when}-{change}-{attempt}");
        let course = stage.run(&namespace, Some(kill), Some(reference)).await.unwrap();
        let Course { took, differences, killed, .. } = &course;
        let write = if *killed { reference.nth(change) } else { "which never came".to_owned() };
        println!("{when} write {change} ({write}): {took:.1?} {}", differences.join("; "));
        if *killed || !differences.is_empty() || attempt == attempts {
            return course;
        }
        attempt += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_it_is_killed_it_comes_to_the_same() {
    let site = Site::start("llm-fleet.yaml").await.unwrap();
    let names: Vec<_> = (0..STAGES).map(|n| format!("stage-node-{n}")).collect();
    let stages = Stage::set(&site, &names).await.unwrap();

    let began = Instant::now();
    let reference = stages[0].run("undisturbed", None, None).await.unwrap();
    for change in 1..=reference.changes {
        println!("{change}: {}", reference.nth(change));
    }
    println!("{:?} in {:?}", reference.counts, reference.took);
    let again = stages.iter().enumerate().map(async |(n, stage)| {
        stage.run(&format!("undisturbed-{n}"), None, Some(&reference)).await.unwrap()
    });
    let mut undisturbed = join_all(again).await;
    for control in &undisturbed {
        println!("undisturbed, again: {} writes, {:?}", control.changes, control.took);
        assert!(control.differences.is_empty(), "two undisturbed runs differ: {:?}", control.differences);
    }
    undisturbed.push(reference);
    let reference = undisturbed.last().expect("it was pushed");
    assert!(undisturbed.iter().all(|course| course.doubles == 0));
    let changes = || undisturbed.iter().map(|course| course.changes);
    let most = changes().max().unwrap_or_default();
    let sure = changes().min().unwrap_or_default() * SURE_PERCENT / 100;

    let moments = |change: u64| match (everything(), change % 6) {
        (true, _) => vec![Moment::Before, Moment::After],
        (false, 1) => vec![Moment::Before],
        (false, 4) => vec![Moment::After],
        (false, _) => Vec::new(),
    };
    let kills: Vec<Kill> =
        (1..=most).flat_map(|n| moments(n).into_iter().map(move |moment| (n, moment))).collect();
    let (stages, kills) = (&stages, &kills);
    let courses = join_all((0..STAGES).map(async |n| {
        let mut courses = Vec::new();
        for kill in kills.iter().skip(n).step_by(STAGES) {
            let attempts = if kill.0 > sure { 1 } else { ATTEMPTS };
            courses.push((*kill, killed(&stages[n], *kill, attempts, reference).await));
        }
        courses
    }));
    let courses: Vec<(Kill, Course)> = courses.await.into_iter().flatten().collect();
    let sum = |of: fn(&Course) -> u64| courses.iter().map(|(_, course)| of(course)).sum();
    let fault = |name: &str, moment: Moment| {
        let runs = courses.iter().filter(|((_, at), course)| *at == moment && course.killed);
        let survived = runs.clone().filter(|(_, course)| course.is_as_expected());
        Fault { name: name.to_owned(), tried: runs.count() as u64, survived: survived.count() as u64 }
    };
    let missed: BTreeSet<u64> =
        courses.iter().filter(|(_, course)| !course.killed).map(|((change, _), _)| *change).collect();
    let tried: BTreeSet<u64> = kills.iter().map(|(change, _)| *change).collect();
    let fragment = Fragment {
        writes_enumerated: Some((tried.len() - missed.len()) as u64),
        kills: sum(|course| course.killed.into()),
        divergences: sum(|course| (!course.differences.is_empty()).into()),
        orphans: sum(|course| course.orphans),
        duplicate_creates: sum(|course| course.duplicate_creates),
        two_writers: sum(|course| course.doubles),
        faults: vec![
            fault("killed before a write", Moment::Before),
            fault("killed after a write, before the answer", Moment::After),
        ],
        ..Fragment::default()
    };
    println!("{fragment:?} in {:?}", began.elapsed());
    fragment.leave("kills").unwrap();
    let bad = (fragment.divergences, fragment.orphans, fragment.duplicate_creates, fragment.two_writers);
    assert_eq!(bad, (0, 0, 0, 0));
    assert!(missed.range(..=sure).next().is_none(), "of {most} writes these never came: {missed:?}");
}
