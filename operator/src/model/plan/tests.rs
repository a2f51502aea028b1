//! Decisions on models, from minimal YAML.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::*;
use crate::api::LlmDeployment;
use crate::api::condition::find;
use crate::apply::Applied;
use crate::model::observe::Log;
use crate::model::{build, status};
use crate::security::Identity;
use k8s_openapi::jiff::Timestamp;

const HTTP: &str = "http: {files: [{url: 'http://h/m.gguf', sha256: 'ab', path: m.gguf}]}";
const CLAIM: &str = "persistentVolumeClaim: {claimName: weights, path: tiny}";
const IMAGE: &str = "runtime:1";

fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_norway::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn arc<T: DeserializeOwned>(text: &str) -> Arc<T> {
    Arc::new(yaml(text))
}

fn settings(image: &str) -> RuntimeArgs {
    RuntimeArgs {
        runtime_image: image.into(),
        runtime_cuda_image: Some("runtime-cuda:1".into()),
        image_pull_policy: "IfNotPresent".into(),
        image_pull_secrets: vec!["registry".into()],
        pod_identity: Identity::Fixed,
        no_scrape_annotations: false,
        allow_simulated_devices: false,
    }
}

fn observed(source: &str) -> Observed {
    let model = format!(
        "{{apiVersion: llmfleet.dev/v1alpha1, kind: LlmModel, metadata: {{name: m, namespace: a, uid: u, \
         generation: 1}}, spec: {{source: {{{source}}}}}}}"
    );
    Observed::of(arc(&model))
}

fn claim(owner: &str, extra: &str) -> Option<Arc<PersistentVolumeClaim>> {
    let owner = format!("ownerReferences: [{{apiVersion: v1, kind: K, name: m, uid: {owner}}}]");
    Some(arc(&format!("{{metadata: {{name: m, {owner}{extra}}}, status: {{phase: Bound}}}}")))
}

fn job(attempt: u32, condition: &str) -> Arc<Job> {
    let conditions =
        if condition.is_empty() { String::new() } else { format!("{{type: {condition}, status: 'True'}}") };
    arc(&format!(
        "{{metadata: {{name: m-fetch-{attempt}, labels: {{llmfleet.dev/attempt: '{attempt}'}}}}, \
         spec: {{template: {{spec: {{containers: [{{name: c, image: '{IMAGE}'}}]}}}}}}, \
         status: {{conditions: [{conditions}]}}}}"
    ))
}

fn failed_pod(reason: &str) -> Option<Arc<k8s_openapi::api::core::v1::Pod>> {
    let report = format!("{{\"reason\":\"{reason}\",\"message\":\"words\"}}");
    Some(arc(&format!(
        "{{metadata: {{name: p}}, status: {{phase: Failed, containerStatuses: [{{name: c, image: i, imageID: i, \
         ready: false, restartCount: 0, state: {{terminated: {{exitCode: 1, message: '{report}'}}}}}}]}}}}"
    )))
}

fn inspection() -> Inspection {
    yaml(
        "{format: gguf, digest: 'sha256:aa', bytes: 1024, files: 1, parameters: 10, tensors: [], geometry: \
         {family: llama, layers: [], hidden: 1, heads: 1, ffn: 1, vocab: 1, contextLength: 1}}",
    )
}

fn keep(observed: &Observed) -> Keep {
    match plan(observed, &settings(IMAGE)) {
        Plan::Keep(keep) => *keep,
        other => panic!("{other:?}"),
    }
}

/// Reason, whether the claim is made, the attempt that begins, how many jobs are discarded.
fn step(observed: &Observed) -> (&'static str, bool, Option<u32>, usize) {
    let keep = keep(observed);
    let started = keep.start.as_ref().map(|(attempt, _)| *attempt);
    (keep.cause.reason.name(), keep.make_claim, started, keep.discard.len())
}

fn with_inspection(mut observed: Observed) -> Observed {
    let mut model = observed.model.as_ref().clone();
    model.status =
        Some(crate::api::model::LlmModelStatus { inspection: Some(inspection()), ..Default::default() });
    observed.model = Arc::new(model);
    observed
}

#[test]
fn a_fetch_goes_from_nothing_to_verified() {
    let mut o = observed(HTTP);
    assert_eq!(step(&o), ("Starting", true, Some(1), 0));
    o.claim = claim("u", "");
    o.jobs = vec![job(1, "")];
    assert_eq!(step(&o), ("Starting", false, None, 0));
    o.pod = Some(arc("{metadata: {name: p}, spec: {containers: [], nodeName: n}, status: {phase: Running}}"));
    assert_eq!(step(&o), ("Fetching", false, None, 0));
    assert!(keep(&o).cause.message.contains("on node n"));
    o.jobs = vec![job(1, "Complete")];
    o.log = Some(Log::Found(Box::new(inspection())));
    let keep_it = keep(&o);
    assert!(keep_it.inspection.is_some() && keep_it.discard.is_empty(), "the job goes once it is recorded");
    assert_eq!(step(&with_inspection(o)), ("WeightsVerified", false, None, 1));
}

#[test]
fn failures_are_tried_again_after_a_pause_that_grows() {
    let mut o = observed(HTTP);
    o.claim = claim("u", "");
    o.pod = failed_pod("SourceUnavailable");
    for (attempt, pause) in [(1, 5), (2, 10), (4, 40), (20, 300)] {
        o.jobs = vec![job(attempt, "Failed")];
        o.over_for = Duration::from_secs(pause - 1);
        assert_eq!(step(&o), ("SourceUnavailable", false, None, 0));
        assert_eq!(keep(&o).next, Next::After(Duration::from_secs(1)));
        let waiting = keep(&o).cause.message;
        o.over_for = Duration::from_secs(pause);
        assert_eq!(step(&o), ("SourceUnavailable", false, Some(attempt + 1), 1));
        assert_eq!(keep(&o).cause.message, waiting, "the message does not change with time");
    }
}

#[test]
fn what_cannot_change_is_not_tried_again_but_another_image_is() {
    let mut o = observed(HTTP);
    o.claim = claim("u", "");
    o.jobs = vec![job(1, "Failed")];
    o.pod = failed_pod("ModelUnsupported");
    o.over_for = Duration::from_secs(10_000);
    assert_eq!((step(&o), keep(&o).next), (("ModelUnsupported", false, None, 0), Next::OnChange));
    let Plan::Keep(other) = plan(&o, &settings("runtime:2")) else { panic!("kept") };
    assert_eq!(other.start.map(|(attempt, _)| attempt), Some(2));
    // Files on a claim of somebody else may be replaced.
    let mut o = Observed { model: observed(CLAIM).model, ..o };
    o.claim = claim("x", "");
    assert_eq!(step(&o), ("ModelUnsupported", false, Some(2), 1));
}

#[test]
fn a_full_volume_says_what_to_do() {
    let mut o = observed(HTTP);
    o.claim = claim("u", "");
    o.jobs = vec![job(1, "Failed")];
    o.pod = failed_pod("VolumeFull");
    assert!(keep(&o).cause.message.contains("make the PersistentVolumeClaim m larger"));
}

#[test]
fn a_job_without_a_line_failed() {
    let mut o = observed(HTTP);
    o.claim = claim("u", "");
    o.jobs = vec![job(1, "Complete")];
    o.log = Some(Log::Unusable("no line".into()));
    assert_eq!(step(&o), ("InspectionMissing", false, None, 0));
    o.over_for = Duration::from_secs(5);
    assert_eq!(step(&o), ("InspectionMissing", false, Some(2), 1));
}

#[test]
fn what_cannot_be_read_is_told_and_read_again() {
    let mut o = observed(HTTP);
    o.claim = claim("u", "");
    o.jobs = vec![job(1, "")];
    o.unread = Some("events is forbidden".into());
    assert_eq!(step(&o), ("Starting", false, None, 0));
    assert!(keep(&o).cause.message.ends_with("events is forbidden"));
    o.jobs = vec![job(1, "Complete")];
    o.log = Some(Log::Unreadable("the kubelet does not answer".into()));
    o.over_for = Duration::from_secs(1000);
    assert_eq!(step(&o), ("InspectionMissing", false, None, 0), "no file is fetched again for that");
    assert!(keep(&o).cause.message.ends_with("the kubelet does not answer"));
    assert_eq!(keep(&o).next, Next::After(Duration::from_secs(5)));
}

#[test]
fn claims_are_never_confused() {
    // Missing, of a source that names it; and back.
    let mut o = observed(CLAIM);
    assert_eq!(step(&o), ("ClaimNotFound", false, None, 0));
    o.claim = claim("x", "");
    assert_eq!(step(&o), ("Starting", false, Some(1), 0));
    // One of our name that is not ours.
    let mut o = observed(HTTP);
    o.claim = claim("x", "");
    assert_eq!(step(&o), ("NameTaken", false, None, 0));
    o.claim = claim("u", ", deletionTimestamp: '2026-01-01T00:00:00Z'");
    assert_eq!(step(&o), ("ClaimTerminating", false, None, 0));
    // Verified weights whose claim is gone: first forget, then fetch.
    let mut o = with_inspection(observed(HTTP));
    assert_eq!(step(&o), ("ClaimLost", false, None, 0));
    assert!(keep(&o).inspection.is_none());
    o.model = observed(HTTP).model;
    assert_eq!(step(&o), ("Starting", true, Some(1), 0));
}

#[test]
fn what_blocks_a_pod_is_told_in_the_words_of_who_blocks() {
    let mut o = observed(HTTP);
    o.claim = claim("u", "");
    o.jobs = vec![job(1, "")];
    o.job_warning = Some("exceeded quota".into());
    assert_eq!(step(&o), ("PodRefused", false, None, 0));
    o.pod = Some(arc(
        "{metadata: {name: p}, status: {phase: Pending, conditions: [{type: PodScheduled, status: 'False', message: \
         unbound claims}]}}",
    ));
    assert_eq!(step(&o), ("Unschedulable", false, None, 0));
    o.claim_warning = Some("no storage class x".into());
    assert_eq!(step(&o), ("ProvisioningFailed", false, None, 0));
    assert!(keep(&o).cause.message.ends_with("no storage class x"));
}

#[test]
fn use_holds_a_model_and_the_end_of_use_ends_it() {
    let user: LlmDeployment = yaml(
        "{apiVersion: llmfleet.dev/v1alpha1, kind: LlmDeployment, metadata: {name: d, namespace: a}, spec: {model: \
         {modelRef: {name: m}}}}",
    );
    let edited = |deleted: bool, made: bool, used: bool| {
        let mut o = with_inspection(observed(HTTP));
        let mut model = o.model.as_ref().clone();
        if deleted {
            model.metadata.deletion_timestamp = yaml("'2026-01-01T00:00:00Z'");
        }
        if made {
            model.labels_mut().insert(labels::APP_MANAGED_BY.into(), labels::MANAGER.into());
        }
        o.model = Arc::new(model);
        o.claim = claim("u", "");
        o.jobs = vec![job(1, "Complete")];
        o.users = if used { vec![Arc::new(user.clone())] } else { vec![] };
        o
    };
    assert!(matches!(plan(&edited(false, true, false), &settings(IMAGE)), Plan::Retire));
    assert_eq!(step(&edited(false, true, true)).0, "WeightsVerified");
    assert_eq!(step(&edited(false, false, false)).0, "WeightsVerified");
    let held = edited(true, true, true);
    let now = Timestamp::UNIX_EPOCH;
    let status = status::status(&held, &keep(&held), &Applied::default(), now);
    let ready = find(&status.conditions, status::READY).unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("True", "InUse"));
    assert!(ready.message.ends_with(": d") && status.inspection.is_some());
    let Plan::Remove { jobs, claim } = plan(&edited(true, true, false), &settings(IMAGE)) else {
        panic!("removed")
    };
    assert!(jobs.len() == 1 && claim.is_some());
    // Who comes when the claim is going, or gone, waits for another model.
    let mut late = edited(true, true, true);
    late.claim = super::tests::claim("u", ", deletionTimestamp: '2026-01-01T00:00:00Z'");
    assert!(matches!(plan(&late, &settings(IMAGE)), Plan::Remove { claim: Some(_), .. }));
    late.claim = None;
    assert!(matches!(plan(&late, &settings(IMAGE)), Plan::Remove { claim: None, .. }));
    // Pods whose deployment went without them read on, also when the status has lost what they read.
    let mut left = edited(false, true, false);
    left.readers = BTreeSet::from(["gone".to_owned()]);
    assert_eq!(step(&left).0, "WeightsVerified");
    left.model = edited(true, true, false).model;
    Arc::make_mut(&mut left.model).status = None;
    assert!(keep(&left).cause.message.ends_with(": gone"));
    // A claim that somebody else made stays.
    let mut foreign = edited(true, false, false);
    foreign.claim = super::tests::claim("x", "");
    assert!(matches!(plan(&foreign, &settings(IMAGE)), Plan::Remove { claim: None, .. }));
}

#[test]
fn a_pause_does_not_hold_what_is_being_deleted() {
    let model = |paused: bool, deleted: bool, held: bool| {
        let mut model = observed(HTTP).model.as_ref().clone();
        if paused {
            model.annotations_mut().insert(labels::PAUSED.into(), String::new());
        }
        model.metadata.deletion_timestamp = deleted.then(|| yaml("'2026-01-01T00:00:00Z'"));
        model.metadata.finalizers = held.then(|| vec![labels::FINALIZER.to_owned()]);
        model
    };
    for (paused, deleted, held, left_alone) in [
        (false, false, false, false),
        (true, false, true, true),
        (true, true, true, false),
        (true, true, false, true),
        (false, true, false, true),
    ] {
        assert_eq!(is_left_alone(&model(paused, deleted, held)), left_alone, "{paused} {deleted} {held}");
    }
}

#[test]
fn a_status_is_the_same_as_long_as_nothing_changes() {
    let mut o = observed(HTTP);
    let first = status::status(&o, &keep(&o), &Applied::default(), Timestamp::UNIX_EPOCH);
    let mut model = o.model.as_ref().clone();
    model.status = Some(first.clone());
    o.model = Arc::new(model);
    let later = Timestamp::from_second(100).unwrap();
    assert_eq!(status::status(&o, &keep(&o), &Applied::default(), later), first);
    let types: Vec<&str> = first.conditions.iter().map(|c| c.type_.as_str()).collect();
    assert_eq!(types, ["Ready", "Reconciling", "Stalled"]);
    assert!(first.conditions.iter().all(|c| !c.reason.is_empty() && !c.message.is_empty()));
}

#[test]
fn pods_of_jobs_are_restricted_and_read_foreign_claims_only() {
    let model = observed(HTTP).model;
    let job = build::job(&model, 3, &settings(IMAGE), Wishes::default());
    assert_eq!(job.metadata.name.as_deref(), Some("m-fetch-3"));
    let pod = job.spec.unwrap().template.spec.unwrap();
    let json = serde_json::to_value(&pod).unwrap();
    assert_eq!(json["securityContext"]["runAsNonRoot"], true);
    assert_eq!(json["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(json["automountServiceAccountToken"], false);
    assert_eq!(json["imagePullSecrets"][0]["name"], "registry");
    let container = &json["containers"][0];
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["args"][0], "fetch");
    assert_eq!(container["volumeMounts"][0]["readOnly"], false);

    let foreign = observed(CLAIM).model;
    let pod =
        build::job(&foreign, 1, &settings(IMAGE), Wishes::default()).spec.unwrap().template.spec.unwrap();
    let json = serde_json::to_value(&pod).unwrap();
    assert_eq!(json["containers"][0]["args"], serde_json::json!(["inspect", "--line", "/models/tiny"]));
    assert_eq!(json["volumes"][0]["persistentVolumeClaim"]["readOnly"], true);
    assert_eq!(build::claim(&model).spec.unwrap().resources.unwrap().requests.unwrap()["storage"].0, "10Gi");
}

#[test]
fn a_job_that_does_not_get_on_is_made_anew_once_it_would_be_another() {
    let pod = |status: &str| Some(arc(&format!("{{metadata: {{name: p}}, status: {{{status}}}}}")));
    let stuck = "phase: Pending, conditions: [{type: PodScheduled, status: 'False', message: no node}]";
    let user = "{apiVersion: llmfleet.dev/v1alpha1, kind: LlmDeployment, metadata: {name: d, namespace: a}, spec: \
                {model: {modelRef: {name: m}}, serving: {imagePullSecrets: [{name: s}]}}}";
    let made = |o: &Observed| {
        let wishes = Wishes::of(&o.users, &o.read_on);
        vec![Arc::new(build::job(&o.model, 1, &settings(IMAGE), wishes))]
    };
    let on = |nodes: &[&str]| nodes.iter().map(|node| (*node).to_owned()).collect::<BTreeSet<String>>();
    let mut o = observed(HTTP);
    o.claim = claim("u", "");
    o.known_for = Duration::from_secs(5);
    let (plain, old) = (made(&o), vec![job(1, "")]);
    o.users = vec![arc(user)];
    // The job, its pod, who reads where: which attempt begins.
    let with_secret = made(&o);
    o.read_on = on(&["n", "o"]);
    let pinned = made(&o);
    for (jobs, state, read_on, started) in [
        (&plain, None, on(&[]), Some(2)),
        (&plain, Some(stuck), on(&[]), Some(2)),
        (&plain, Some("phase: Pending"), on(&[]), None),
        (&plain, Some("phase: Running"), on(&[]), None),
        (&with_secret, None, on(&[]), None),
        (&with_secret, Some(stuck), on(&[]), None),
        // Its own pod is there.
        (&with_secret, Some(stuck), on(&["n"]), None),
        (&pinned, Some(stuck), on(&["o"]), None),
        (&pinned, Some(stuck), on(&[]), Some(2)),
        (&pinned, None, on(&["p"]), Some(2)),
        (&pinned, Some("phase: Running"), on(&["p"]), None),
        // An earlier operator made it.
        (&old, Some(stuck), on(&[]), Some(2)),
        (&old, Some("phase: Pending"), on(&[]), None),
        (&old, Some("phase: Running"), on(&[]), None),
    ] {
        (o.jobs, o.pod, o.read_on) = (jobs.clone(), state.and_then(pod), read_on);
        let (_, _, begins, discarded) = step(&o);
        assert_eq!((begins, discarded), (started, started.iter().len()), "{state:?} {:?}", o.read_on);
        let soon = Observed { known_for: Duration::from_secs(4), ..o.clone() };
        assert_eq!(step(&soon).2, None, "a pause lies between two");
    }
}
