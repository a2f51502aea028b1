//! What people read, from the first pass to ready.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::api::LlmModel;

fn llm() -> LlmDeployment {
    let json = json!({
        "apiVersion": "llmfleet.dev/v1alpha1", "kind": "LlmDeployment",
        "metadata": { "name": "a", "namespace": "b", "uid": "c", "generation": 3 },
        "spec": { "model": { "source": { "persistentVolumeClaim": { "claimName": "w" } } } }
    });
    serde_json::from_value(json).unwrap()
}

fn model(ready: &str, reason: &str) -> Arc<LlmModel> {
    let condition = |kind: &str, status: &str| {
        json!({ "type": kind, "status": status, "reason": reason, "message": "because",
                "lastTransitionTime": "2026-01-01T00:00:00Z" })
    };
    let stalled = if ready == "True" { "False" } else { "True" };
    let json = json!({
        "apiVersion": "llmfleet.dev/v1alpha1", "kind": "LlmModel", "metadata": { "name": "w" },
        "spec": { "source": { "persistentVolumeClaim": { "claimName": "w" } } },
        "status": { "conditions": [condition("Ready", ready), condition("Stalled", stalled)] }
    });
    Arc::new(serde_json::from_value(json).unwrap())
}

fn said(
    observed: &Observed,
    target: Option<&str>,
    refused: Option<&str>,
) -> BTreeMap<String, (String, String)> {
    said_of(&llm(), observed, target, refused)
}

fn pass_of<'a>(
    llm: &'a LlmDeployment,
    observed: &'a Observed,
    validated: &'a Validated,
    plan: &'a Plan,
) -> Pass<'a> {
    Pass {
        llm,
        observed,
        validated: Ok(validated),
        model: Some("w"),
        chosen: None,
        target: Some("r"),
        plan,
        refusal: None,
        refused: None,
        unknown: None,
        simulated: false,
        now: Timestamp::UNIX_EPOCH,
    }
}

fn said_of(
    llm: &LlmDeployment,
    observed: &Observed,
    target: Option<&str>,
    refused: Option<&str>,
) -> BTreeMap<String, (String, String)> {
    let validated = super::super::validate::validate(llm).unwrap();
    let plan = Plan::default();
    let status = status(&Pass { target, refused, ..pass_of(llm, observed, &validated, &plan) });
    assert_eq!(status.observed_generation, Some(3));
    status.conditions.into_iter().map(|c| (c.type_, (c.status, c.reason))).collect()
}

#[test]
fn trouble_is_told_by_one_condition_and_leaves_the_others() {
    let mut llm = llm();
    let validated = super::super::validate::validate(&llm).unwrap();
    let (observed, plan) = (Observed::default(), Plan::default());
    let well = status(&pass_of(&llm, &observed, &validated, &plan));
    llm.status = Some(well.clone());
    let troubled = |llm: &LlmDeployment, words: &str| {
        troubled(llm.status.clone().unwrap(), llm, words.to_owned(), Timestamp::UNIX_EPOCH)
    };
    let first = troubled(&llm, "HTTP 500");
    let differ: Vec<_> = first.conditions.iter().filter(|c| !well.conditions.contains(c)).collect();
    assert_eq!(differ.len(), 1, "{differ:?}");
    assert_eq!((differ[0].type_.as_str(), differ[0].reason.as_str()), (RECONCILING, "ApiServerError"));
    assert_eq!(differ[0].message, "HTTP 500");
    assert_eq!(first.conditions.len(), well.conditions.len());
    llm.status = Some(first.clone());
    assert_eq!(troubled(&llm, "HTTP 503"), first, "as long as it lasts, nothing is written");
}

fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn every_condition_is_there_from_the_first_pass() {
    let said = said(&Observed::default(), None, None);
    let types: Vec<_> = said.keys().map(String::as_str).collect();
    let all =
        ["Accepted", "Available", "ModelReady", "Placed", "Progressing", "Ready", "Reconciling", "Stalled"];
    assert_eq!(types, all);
    assert_eq!(said["Ready"], pair("False", "ModelPending"));
    assert_eq!(said["Reconciling"].0, "True");
}

#[test]
fn people_are_told_each_thing_once_and_what_is_wrong_as_a_warning() {
    let of = |observed: &Observed, target: Option<&str>, refused: Option<&str>| {
        let (llm, plan) = (llm(), Plan::default());
        let validated = super::super::validate::validate(&llm).unwrap();
        status(&Pass { target, refused, ..pass_of(&llm, observed, &validated, &plan) }).conditions
    };
    let told = |before: &[Condition], after: &[Condition]| {
        assert!(after.iter().all(|c| !c.message.is_empty()), "{after:?}");
        let notes = notes(before, after).into_iter();
        notes.map(|n| format!("{:?} {} {}", n.severity, n.action, n.reason)).collect::<Vec<_>>()
    };
    let first = of(&Observed::default(), None, None);
    assert_eq!(told(&[], &first), ["Normal Accepted Valid", "Normal Available NoPods"]);
    let ready = Observed { model: Some(model("True", "WeightsVerified")), ..Observed::default() };
    let full = of(&ready, Some("r"), Some("no room"));
    assert_eq!(told(&first, &full), ["Normal ModelReady ModelReady", "Warning Placed DoesNotFit"]);
    let placed = of(&ready, Some("r"), None);
    assert_eq!(told(&full, &placed), ["Normal Placed Placed"]);
    assert!(told(&placed, &placed).is_empty());
}

#[test]
fn a_model_that_cannot_be_had_stalls() {
    let observed = Observed { model: Some(model("False", "DigestMismatch")), ..Observed::default() };
    let said = said(&observed, None, None);
    assert_eq!(said["ModelReady"], pair("False", "DigestMismatch"));
    assert_eq!(said["Ready"], pair("False", "DigestMismatch"));
    assert_eq!((said["Stalled"].0.as_str(), said["Reconciling"].0.as_str()), ("True", "False"));
}

#[test]
fn a_model_that_is_being_removed_is_as_good_as_gone_and_one_that_is_held_serves() {
    let leaving = |ready: &str, reason: &str| {
        let mut model = model(ready, reason);
        Arc::make_mut(&mut model).metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        Observed { model: Some(model), ..Observed::default() }
    };
    assert_eq!(
        said(&leaving("False", "Deleting"), None, None)["ModelReady"],
        pair("Unknown", "ModelPending")
    );
    let mut held = leaving("True", "InUse");
    assert_eq!(said(&held, None, None)["ModelReady"], pair("True", "ModelReady"));
    let claim = json!({ "metadata": { "name": "w", "deletionTimestamp": "2026-01-01T00:00:00Z" } });
    held.claim = Some((Arc::new(serde_json::from_value(claim).unwrap()), None));
    assert_eq!(said(&held, None, None)["ModelReady"], pair("Unknown", "ModelPending"));
}

#[test]
fn a_refused_place_gives_the_summary_its_reason() {
    let observed = Observed { model: Some(model("True", "WeightsVerified")), ..Observed::default() };
    let said = said(&observed, Some("r"), Some("n: needs 2 GiB"));
    assert_eq!(said["Ready"], pair("False", "DoesNotFit"));
    assert_eq!(said["Stalled"], pair("True", "DoesNotFit"));
}

#[test]
fn a_volume_that_is_not_known_yet_is_waited_for() {
    let observed = Observed { model: Some(model("True", "WeightsVerified")), ..Observed::default() };
    let (llm, plan) = (llm(), Plan::default());
    let validated = super::super::validate::validate(&llm).unwrap();
    let pass = Pass { unknown: Some("no volume yet"), ..pass_of(&llm, &observed, &validated, &plan) };
    let conditions = status(&pass).conditions;
    let of = |type_: &str| find(&conditions, type_).map(|c| (c.status.clone(), c.reason.clone())).unwrap();
    assert_eq!(of("Placed"), pair("Unknown", "VolumePending"));
    assert_eq!(of("Ready"), pair("False", "VolumePending"));
    assert_eq!((of("Stalled").0.as_str(), of("Reconciling").0.as_str()), ("False", "True"));
}

#[test]
fn nothing_is_in_progress_once_a_suspended_deployment_has_no_pods_left() {
    let mut llm = llm();
    llm.spec.suspend = true;
    let mut observed = Observed { model: Some(model("True", "WeightsVerified")), ..Observed::default() };
    for target in [Some("r"), None] {
        let said = said_of(&llm, &observed, target, None);
        assert_eq!(said["Progressing"], pair("False", "Settled"));
        assert_eq!((said["Reconciling"].0.as_str(), said["Stalled"].0.as_str()), ("False", "False"));
        assert_eq!(said["Available"], pair("False", "Suspended"));
    }
    let pod = json!({ "metadata": { "name": "p", "labels": { "llmfleet.dev/revision": "r" } } });
    observed.pods = BTreeMap::from([("p".to_owned(), Arc::new(serde_json::from_value(pod).unwrap()))]);
    assert_eq!(said_of(&llm, &observed, Some("r"), None)["Reconciling"].0, "True", "a pod is left");
}

#[test]
fn what_the_events_of_a_pod_tell_is_its_reason() {
    let pod = json!({ "metadata": { "name": "p", "labels": { "llmfleet.dev/revision": "r" } } });
    let observed = Observed {
        model: Some(model("True", "WeightsVerified")),
        pods: BTreeMap::from([("p".to_owned(), Arc::new(serde_json::from_value(pod).unwrap()))]),
        warnings: BTreeMap::from([("p".to_owned(), "FailedCreatePodSandBox: no runtime".to_owned())]),
        ..Observed::default()
    };
    let said = said(&observed, Some("r"), None);
    assert_eq!(said["Available"], pair("False", "ContainerNotCreated"));
    assert_eq!(said["Ready"], pair("False", "ContainerNotCreated"));
    assert_eq!(said["Stalled"], pair("True", "ContainerNotCreated"));
}

#[test]
fn a_pod_in_a_queue_is_waited_for_and_hides_no_trouble_of_another() {
    let pod = |name: &str, reason: &str| {
        let condition = json!({ "type": "PodScheduled", "status": "False", "reason": reason });
        let metadata = json!({ "name": name, "labels": { "llmfleet.dev/revision": "r" } });
        let pod = json!({ "metadata": metadata, "status": { "conditions": [condition] } });
        (name.to_owned(), Arc::new(serde_json::from_value(pod).unwrap()))
    };
    let mut observed = Observed {
        model: Some(model("True", "WeightsVerified")),
        pods: BTreeMap::from([pod("p", "SchedulingGated")]),
        ..Observed::default()
    };
    let waits = said(&observed, Some("r"), None);
    assert_eq!(waits["Available"], pair("False", "SchedulingGated"));
    assert_eq!(waits["Ready"], pair("False", "SchedulingGated"));
    assert_eq!((waits["Stalled"].0.as_str(), waits["Reconciling"].0.as_str()), ("False", "True"));
    observed.pods.extend([pod("q", "Unschedulable")]);
    let stalled = said(&observed, Some("r"), None);
    assert_eq!(stalled["Available"], pair("False", "Unschedulable"));
    assert_eq!(stalled["Stalled"], pair("True", "Unschedulable"));
}

#[test]
fn a_ready_pod_of_the_target_makes_it_ready() {
    let pod = json!({
        "metadata": { "name": "p", "labels": { "llmfleet.dev/revision": "r" } },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] }
    });
    let pods = BTreeMap::from([("p".to_owned(), Arc::new(serde_json::from_value(pod).unwrap()))]);
    let observed = Observed { model: Some(model("True", "WeightsVerified")), pods, ..Observed::default() };
    let settled = said(&observed, Some("r"), None);
    assert_eq!(settled["Ready"], pair("True", "Ready"));
    assert_eq!(settled["Reconciling"].0, "False");
    let edited = said(&observed, Some("s"), None);
    assert_eq!(edited["Ready"], pair("False", "RollingOut"));
    assert_eq!(edited["Available"].0, "True");
}
