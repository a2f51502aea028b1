//! An LlmModel on a real API server: what is made, that it is made once, what its job reports, and that nothing is
//! left.
//!
//! The operator serves two namespaces, with the rights that the chart gives it there. The job controller makes the
//! pods; the test plays the node that they run on. Scenes of different namespaces run at once.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use contract::exit::{ExitReason, ExitReport};
use contract::labels;
use e2e::operator::audit::Call;
use e2e::operator::kubelet::{Node, serve_log};
use e2e::operator::scene::{Scene, inspection, only};
use e2e::operator::{RUNTIME_IMAGE, Site, is_owned};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, ResourceQuota};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

const KIND: &str = "LlmModel";

fn http() -> Value {
    let file = json!({ "url": "http://models.invalid/m.gguf", "sha256": "0f".repeat(32), "path": "m.gguf" });
    json!({ "source": { "http": { "files": [file] } }, "volume": { "size": "1Gi" } })
}

/// Waits until the model is ready or not for this reason; the message.
async fn reason(scene: &Scene<'_>, name: &str, reason: &str) -> String {
    scene.condition((KIND, name), "Ready", reason).await.unwrap().1
}

async fn delete(scene: &Scene<'_>, name: &str) {
    scene.ours(KIND).delete(name, &DeleteParams::default()).await.unwrap();
    gone(scene, name).await;
}

/// Waits until neither the model is there nor anything that it made.
async fn gone(scene: &Scene<'_>, name: &str) {
    let of_model = ListParams::default().labels(&format!("{}={name}", labels::MODEL));
    let (claims, jobs) = (scene.all::<PersistentVolumeClaim>(), scene.all::<Job>());
    let gone = scene.wait(format!("{name} to be gone"), async || {
        ensure!(scene.ours(KIND).get_opt(name).await?.is_none(), "the model is there");
        let (claims, jobs) = (claims.list(&of_model).await?.items, jobs.list(&of_model).await?.items);
        ensure!(claims.len() + jobs.len() == 0, "{} claims and {} jobs are there", claims.len(), jobs.len());
        Ok(())
    });
    gone.await.unwrap();
}

async fn claim(scene: &Scene<'_>, name: &str) {
    let claim = json!({ "metadata": { "name": name }, "spec": { "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": "1Gi" } } } });
    let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
    scene.all().create(&PostParams::default(), &claim).await.unwrap();
}

/// Waits for the pod of an attempt, and runs it.
async fn runs(scene: &Scene<'_>, node: &Node, job: &str) -> Pod {
    let pods: Api<Pod> = scene.all();
    let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
    let pod = scene.wait(format!("the pod of {job}"), async || {
        pods.list(&of_job).await?.items.pop().context("there is none")
    });
    let pod = pod.await.unwrap();
    node.bind(&pod).await.unwrap();
    node.runs(&pod, true).await.unwrap();
    pod
}

async fn ends(node: &Node, pod: &Pod, phase: &str, code: u8, message: &str) {
    let state = json!({ "terminated": { "exitCode": code, "reason": "Done", "message": message } });
    node.report(pod, phase, false, &state).await.unwrap();
}

/// From files to a known model, each thing once; then it goes with all that it made.
async fn a_model_becomes_known_and_goes(scene: &Scene<'_>, node: &Node) {
    let model = scene.apply(KIND, "tiny", &http()).await.unwrap();
    reason(scene, "tiny", "Starting").await;
    let job =
        scene.wait("the job", async || Ok(scene.all::<Job>().get("tiny-fetch-1").await?)).await.unwrap();
    let container = job.spec.clone().unwrap().template.spec.unwrap().containers.remove(0);
    assert_eq!(container.image.as_deref(), Some(RUNTIME_IMAGE));
    let arguments = container.args.unwrap();
    assert!(
        arguments[0] == "fetch" && arguments[2].contains("http://models.invalid/m.gguf"),
        "{arguments:?}"
    );
    let claim: PersistentVolumeClaim = scene.all().get("tiny").await.unwrap();
    assert_eq!(claim.spec.clone().unwrap().resources.unwrap().requests.unwrap()["storage"].0, "1Gi");
    assert!(is_owned(&job, &model) && is_owned(&claim, &model));
    scene.settles().await.unwrap();

    let pod = runs(scene, node, "tiny-fetch-1").await;
    reason(scene, "tiny", "Fetching").await;
    ends(node, &pod, "Succeeded", 0, "").await;
    let words = reason(scene, "tiny", "WeightsVerified").await;
    println!("the job reports: {words}");
    let expected = inspection().unwrap();
    let status = scene.ours(KIND).get("tiny").await.unwrap().data["status"].clone();
    assert_eq!(status["inspection"], serde_json::to_value(&expected).unwrap());
    assert_eq!((&status["claimName"], &status["size"]), (&json!("tiny"), &json!(expected.bytes.to_string())));
    let jobs = scene.all::<Job>();
    let discarded =
        scene.wait("the job to be discarded", async || match jobs.get_opt("tiny-fetch-1").await? {
            None => Ok(()),
            Some(_) => bail!("it is there"),
        });
    discarded.await.unwrap();
    scene.settles().await.unwrap();
    let writes = scene.writes().unwrap();
    for (resource, name) in [("persistentvolumeclaims", "tiny"), ("jobs", "tiny-fetch-1")] {
        let applied = |w: &&Call| w.resource == resource && w.name == name && w.verb == "patch";
        assert_eq!(writes.iter().filter(applied).count(), 1, "{resource} {name}: {writes:?}");
    }
    delete(scene, "tiny").await;
}

/// An inline source makes a model, which goes when the last who uses it has gone.
async fn an_inline_source_makes_a_model(scene: &Scene<'_>) {
    let inline = json!({ "model": { "source": http()["source"] }, "accelerator": { "class": "CPU" } });
    for name in ["one", "two"] {
        scene.apply("LlmDeployment", name, &inline).await.unwrap();
    }
    let (_, words) = scene.condition(("LlmDeployment", "two"), "ModelReady", "Starting").await.unwrap();
    let model = only(scene.ours(KIND).list(&ListParams::default()).await.unwrap().items);
    let name = model.name_any();
    assert!(words.contains(&name) && name.starts_with("m-"), "{name}: {words}");
    assert_eq!(model.data["spec"]["source"], http()["source"]);
    reason(scene, &name, "Starting").await;
    scene.settles().await.unwrap();

    // Deleted by hand before it is verified it serves nobody: it goes, and its users get another.
    scene.ours(KIND).delete(&name, &DeleteParams::default()).await.unwrap();
    let another = scene.wait("another model", async || {
        let now = scene.ours(KIND).get_opt(&name).await?.context("none yet")?;
        ensure!(now.uid() != model.uid(), "it is the same");
        Ok(())
    });
    another.await.unwrap();
    reason(scene, &name, "Starting").await;
    for user in ["one", "two"] {
        scene.ours("LlmDeployment").delete(user, &DeleteParams::default()).await.unwrap();
    }
    gone(scene, &name).await;

    // Without anybody's help it goes too.
    scene.apply("LlmDeployment", "one", &inline).await.unwrap();
    reason(scene, &name, "Starting").await;
    scene.ours("LlmDeployment").delete("one", &DeleteParams::default()).await.unwrap();
    gone(scene, &name).await;
}

/// A job that fails says why, and is tried again.
async fn a_failed_job_is_tried_again(scene: &Scene<'_>, node: &Node) {
    scene.apply(KIND, "torn", &http()).await.unwrap();
    let pod = runs(scene, node, "torn-fetch-1").await;
    let report = ExitReport { reason: ExitReason::DigestMismatch, message: "m.gguf is another file".into() };
    ends(node, &pod, "Failed", 1, &report.to_line()).await;
    let words = reason(scene, "torn", "DigestMismatch").await;
    assert!(words.contains("m.gguf is another file") && words.contains("5 s later"), "{words}");
    let since = Instant::now();
    let pod = runs(scene, node, "torn-fetch-2").await;
    println!("the next attempt begins {:?} after the last was told of", since.elapsed());
    reason(scene, "torn", "Fetching").await;
    // The claim is kept until the last pod that uses it has gone.
    scene.ours(KIND).delete("torn", &DeleteParams::default()).await.unwrap();
    node.lets_go(&pod).await.unwrap();
    gone(scene, "torn").await;
}

/// What stands in the way is told in words, and the model gets on by itself when it is gone.
async fn refusals_are_told_and_end_by_themselves(scene: &Scene<'_>) {
    // A claim of somebody else under the name that the model needs.
    claim(scene, "taken").await;
    scene.apply(KIND, "taken", &http()).await.unwrap();
    assert!(reason(scene, "taken", "NameTaken").await.contains("delete it"));
    scene.all::<PersistentVolumeClaim>().delete("taken", &DeleteParams::default()).await.unwrap();
    reason(scene, "taken", "Starting").await;
    delete(scene, "taken").await;

    // A claim that is not there yet, and stays when the model goes.
    let late = json!({ "source": { "persistentVolumeClaim": { "claimName": "late" } } });
    scene.apply(KIND, "late", &late).await.unwrap();
    assert!(reason(scene, "late", "ClaimNotFound").await.contains("late"));
    claim(scene, "late").await;
    reason(scene, "late", "Starting").await;
    delete(scene, "late").await;
    let kept: PersistentVolumeClaim = scene.all().get("late").await.unwrap();
    assert!(kept.metadata.deletion_timestamp.is_none(), "the claim of somebody else stays");
    a_quota(scene).await.unwrap();
}

async fn a_quota(scene: &Scene<'_>) -> Result<()> {
    let quotas: Api<ResourceQuota> = scene.all();
    let none = json!({ "metadata": { "name": "none" }, "spec": { "hard": { "count/jobs.batch": "0" } } });
    quotas.create(&PostParams::default(), &serde_json::from_value(none)?).await?;
    let counted = scene.wait("the quota to be in force", async || {
        quotas.get("none").await?.status.and_then(|status| status.hard).map(drop).context("not yet")
    });
    counted.await?;
    scene.apply(KIND, "poor", &http()).await?;
    assert!(reason(scene, "poor", "QuotaExceeded").await.contains("exceeded quota"));
    scene.settles().await?;
    quotas.delete("none", &DeleteParams::default()).await?;
    let since = Instant::now();
    reason(scene, "poor", "Starting").await;
    println!("the job is made {:?} after the quota was lifted", since.elapsed());
    let events = scene.all::<Event>().list(&ListParams::default()).await?;
    let told = events.iter().find(|event| event.reason.as_deref() == Some("QuotaExceeded"));
    assert_eq!(told.context("no event")?.type_.as_deref(), Some("Warning"));
    delete(scene, "poor").await;
    Ok(())
}

#[tokio::test]
async fn models_become_known_fail_and_go() {
    let site = Site::start("llm-fleet-full.yaml").await.unwrap();
    let operator = site.operator("operator", &["--watch-namespace=team-a,team-b"]).await.unwrap();
    println!("{}", operator.first_line().unwrap());
    let a = site.scene(&operator, "team-a").await.unwrap();
    let b = site.scene(&operator, "team-b").await.unwrap();
    let elsewhere = site.scene(&operator, "default").await.unwrap();
    elsewhere.apply(KIND, "elsewhere", &http()).await.unwrap();
    let (certificate, key) = site.plane.server_certificate();
    let log = serve_log(&certificate, &key, inspection().unwrap().to_line().unwrap() + "\n").unwrap();
    let node = Node::join(&a.client, "worker", 0, log).await.unwrap();
    tokio::join!(
        async {
            a_model_becomes_known_and_goes(&a, &node).await;
            a_failed_job_is_tried_again(&a, &node).await;
            an_inline_source_makes_a_model(&a).await;
        },
        refusals_are_told_and_end_by_themselves(&b),
    );
    let left_alone = elsewhere.ours(KIND).get("elsewhere").await.unwrap();
    assert!(left_alone.data["status"].is_null() && left_alone.finalizers().is_empty());
    site.check_rights().unwrap();
}
