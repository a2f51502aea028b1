//! The whole path on a real cluster: from an LlmDeployment to tokens, and what bad input gets.
//!
//! One lab serves all cases, each in a namespace of its own. A healthy deployment beside them keeps its pod throughout,
//! and after it has answered once, all bad input comes at the same time.

mod fleet {
    pub(crate) mod cases;
    pub(crate) mod inputs;
    pub(crate) mod traffic;
}

use anyhow::{Context, Result, ensure};
use e2e::bench::{self, Bench, Case, File, cpu, small};
use e2e::demo::chat;
use e2e::install::NAMESPACE;
use e2e::operator::audit;
use e2e::operator::rights::{self, Rights};
use e2e::traffic::Witness;
use fleet::{cases, traffic};
use serde_json::json;

const QUESTION: &str = "What does HTTP stand for?";
const ANSWER: &str = "HTTP stands for Hypertext Transfer Protocol";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_manifest_to_tokens_and_what_bad_input_gets() {
    // A wrong tag first: what a mistyped image leads to, and that it heals by itself.
    let program = env!("CARGO_BIN_EXE_lab").into();
    let bench = Bench::start("fleet", program, &["runtime.image.tag=nonsense"]).await.unwrap();
    let witness = Witness::of(&bench.lab).await.unwrap();
    let result = all(&bench).await.and_then(|()| {
        traffic::is_what_it_must_be(witness)?;
        rights_are_enough(&bench)
    });
    bench.finish(result).await.unwrap();
}

/// Nothing was refused to the operator, and nothing was done that no rule of the chart is for.
fn rights_are_enough(bench: &Bench) -> Result<()> {
    let mut helm = bench.lab.helm();
    helm.args(["get", "manifest", "llm-fleet", "--namespace", NAMESPACE]);
    let rights = Rights::read(&e2e::process::output(&mut helm)?)?;
    let operator = format!("system:serviceaccount:{NAMESPACE}:llm-fleet");
    rights::check(&rights, &audit::calls(&bench.lab.audit_log(), &operator)?).map(drop)
}

async fn all(bench: &Bench) -> Result<()> {
    let model = bench::model()?;
    let good = bench.publish("model.gguf", &model)?;
    let healthy = bench.case("healthy").await?;
    image_that_cannot_be_pulled(bench, &healthy, &good).await?;
    answers_through_the_service(&healthy).await?;
    let pods = healthy.pod_uids("llm").await?;

    tokio::try_join!(
        cases::missing_file_that_comes_later(bench, &model),
        cases::wrong_digest(bench, &model),
        cases::hostile_files(bench),
        cases::full_volume(bench, &good),
        cases::damaged_weights(bench, &good, &model),
        cases::does_not_fit(bench, &good),
        cases::whole_devices(bench, &good),
        cases::namespace_goes_away(bench, &good),
    )?;
    serves_from_a_claim(&healthy).await?;
    ensure!(healthy.pod_uids("llm").await? == pods, "the healthy deployment's pod was replaced");
    scale_and_delete(&healthy, &good).await
}

/// A deployment whose runtime image does not exist says so, and runs once the chart names the right one.
async fn image_that_cannot_be_pulled(bench: &Bench, case: &Case<'_>, good: &File) -> Result<()> {
    case.apply("llm", &cpu(good)).await?;
    for condition in ["ModelReady", "Ready", "Stalled"] {
        case.until_said("llm", condition, "ImagePullFailed", &["runtime:nonsense"]).await?;
    }
    case.stays_calm().await?;
    bench.install(&[])?;
    case.until_ready("llm").await.map(drop)
}

async fn answers_through_the_service(case: &Case<'_>) -> Result<()> {
    let (url, _way) = case.service("llm").await?;
    chat::until_reached(&url).await?;
    let answer = chat::ask(&url, "llm", QUESTION, |_| {}).await?;
    ensure!(answer.text.starts_with(ANSWER), "the answer is {:?}", answer.text);
    println!("  {} tokens through the service: {:?}", answer.tokens, answer.text);
    Ok(())
}

/// What another model fetched is read where it lies, and not fetched again.
async fn serves_from_a_claim(case: &Case<'_>) -> Result<()> {
    let claim = case.claims().await?.into_keys().next().context("the model has no claim")?;
    let source = json!({ "claimName": claim, "path": "model.gguf" });
    case.apply("other", &small(&json!({ "persistentVolumeClaim": source }))).await?;
    case.until_ready("other").await?;
    case.delete("other").await
}

/// Two replicas, the first of which is the pod that was there; deleting the object leaves nothing.
async fn scale_and_delete(case: &Case<'_>, good: &File) -> Result<()> {
    let before = case.pod_uids("llm").await?;
    let mut spec = cpu(good);
    spec["replicas"] = json!(2);
    case.apply("llm", &spec).await?;
    e2e::process::wait_for("two replicas", bench::LIMIT, async || {
        let status = case.status("llm").await?;
        ensure!(status["readyReplicas"] == 2, "{}", status["conditions"]);
        Ok(())
    })
    .await?;
    let after = case.pod_uids("llm").await?;
    ensure!(before.iter().all(|uid| after.contains(uid)), "scaling up replaced a pod");
    answers_through_the_service(case).await?;
    case.delete("llm").await?;
    case.until_empty().await
}
