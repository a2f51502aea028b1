//! The whole path on a real cluster: from an LlmDeployment to tokens, and what bad input gets.
//!
//! One lab serves all cases, one after the other; each has a namespace of its own, and a healthy deployment beside them
//! must keep its pod through all of it.

mod fleet {
    pub(crate) mod inputs;
}

use anyhow::{Context, Result, ensure};
use e2e::bench::{self, Bench, Case};
use e2e::demo::chat;
use fleet::inputs::{self, cpu, source};
use serde_json::json;

const QUESTION: &str = "What does HTTP stand for?";
const ANSWER: &str = "HTTP stands for Hypertext Transfer Protocol";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_manifest_to_tokens_and_what_bad_input_gets() {
    let program = bench::lab_program().unwrap();
    // A wrong tag first: what a mistyped image leads to, and that it heals by itself.
    let bench = Bench::start("fleet", program, &["runtime.image.tag=nonsense"]).await.unwrap();
    let result = all(&bench).await;
    for (component, version) in e2e::versions(&bench.lab).await.unwrap() {
        println!("{component} {version}");
    }
    if result.is_err() {
        println!("{}", inputs::evidence(&bench));
    }
    bench.stop().await.unwrap();
    result.unwrap();
}

async fn all(bench: &Bench) -> Result<()> {
    let model = std::fs::read(inputs::model_file()?).context("run `make model`")?;
    let good = bench.publish("model.gguf", &model)?;

    let healthy = bench.case("healthy").await?;
    image_that_cannot_be_pulled(bench, &healthy, &good).await?;
    answers_through_the_service(&healthy).await?;
    let pods = healthy.pod_uids("llm").await?;

    missing_file_that_comes_later(bench, &model).await?;
    wrong_digest(bench, &good).await?;
    hostile_files(bench).await?;
    full_volume(bench, &good).await?;
    does_not_fit(bench, &good).await?;
    whole_devices(bench, &good).await?;
    namespace_goes_away(bench, &good).await?;

    ensure!(healthy.pod_uids("llm").await? == pods, "the healthy deployment's pod was replaced");
    scale_and_delete(&healthy, &good).await
}

/// A deployment whose runtime image does not exist says so, and runs once the chart names the right one.
async fn image_that_cannot_be_pulled(bench: &Bench, case: &Case<'_>, good: &(String, String)) -> Result<()> {
    case.apply("llm", &cpu(source(good))).await?;
    case.until_refused("llm", "ModelReady", &["nonsense"]).await?;
    bench.install(&[])?;
    let seconds = case.until_ready("llm").await?;
    println!("  ready {seconds:.1} s after the right image was named");
    Ok(())
}

async fn answers_through_the_service(case: &Case<'_>) -> Result<()> {
    let (url, _way) = case.service("llm").await?;
    let answer = chat::ask(&url, "llm", QUESTION, |_| {}).await?;
    ensure!(answer.text.starts_with(ANSWER), "the answer is {:?}", answer.text);
    println!("  {} tokens through the service", answer.tokens);
    Ok(())
}

/// 404 is a reason, not an end: once the file is there, the deployment gets ready without a hand.
async fn missing_file_that_comes_later(bench: &Bench, model: &[u8]) -> Result<()> {
    let case = bench.case("missing").await?;
    let (_, sha256) = bench.publish("twin.gguf", model)?;
    case.apply("llm", &cpu(source(&(bench.url("late.gguf"), sha256)))).await?;
    case.until_refused("llm", "ModelReady", &["404", "late.gguf"]).await?;
    bench.publish("late.gguf", model)?;
    case.until_ready("llm").await?;
    case.delete("llm").await
}

async fn wrong_digest(bench: &Bench, (url, sha256): &(String, String)) -> Result<()> {
    let case = bench.case("digest").await?;
    let wrong = format!("{:0<64}", "bad0");
    case.apply("llm", &cpu(source(&(url.clone(), wrong.clone())))).await?;
    case.until_refused("llm", "ModelReady", &["DigestMismatch", &wrong, sha256]).await?;
    case.delete("llm").await
}

/// Files whose digest is right and whose content is not.
async fn hostile_files(bench: &Bench) -> Result<()> {
    let case = bench.case("hostile").await?;
    for (name, content, words) in inputs::hostile() {
        let file = bench.publish(&format!("{name}.gguf"), &content)?;
        case.apply(name, &cpu(source(&file))).await?;
        case.until_refused(name, "ModelReady", &[&["WeightsCorrupt"], words].concat()).await?;
        case.delete(name).await?;
    }
    Ok(())
}

async fn full_volume(bench: &Bench, good: &(String, String)) -> Result<()> {
    let case = bench.case("full").await?;
    let mut spec = cpu(source(good));
    spec["volume"] = json!({ "size": "64Mi" });
    case.apply("llm", &spec).await?;
    case.until_refused("llm", "ModelReady", &["VolumeFull"]).await?;
    case.delete("llm").await
}

/// A capacity past every node is refused by bytes; a smaller one is placed without a hand.
async fn does_not_fit(bench: &Bench, good: &(String, String)) -> Result<()> {
    let case = bench.case("toolarge").await?;
    let mut spec = cpu(source(good));
    spec["capacity"] = json!({ "contextLength": 8192, "concurrency": 512 });
    case.apply("llm", &spec).await?;
    case.until_refused("llm", "Placed", &["needs", "GiB"]).await?;
    case.apply("llm", &cpu(source(good))).await?;
    case.until_ready("llm").await?;
    case.delete("llm").await
}

/// Two cards take two deployments; the third is refused until one leaves.
async fn whole_devices(bench: &Bench, good: &(String, String)) -> Result<()> {
    let case = bench.case("cards").await?;
    let mut spec = cpu(source(good));
    spec["accelerator"] = json!({ "class": "Nvidia" });
    for name in ["one", "two"] {
        case.apply(name, &spec).await?;
        case.until_ready(name).await?;
        ensure!(case.status(name).await?["simulated"] == true, "a simulated card must be called so");
    }
    case.apply("three", &spec).await?;
    case.until_refused("three", "Placed", &["card"]).await?;
    case.delete("one").await?;
    case.until_ready("three").await?;
    case.delete("two").await?;
    case.delete("three").await?;
    case.until_empty().await
}

async fn namespace_goes_away(bench: &Bench, good: &(String, String)) -> Result<()> {
    let case = bench.case("leaving").await?;
    case.apply("llm", &cpu(source(good))).await?;
    case.until("llm", "Accepted", |seen| seen.status == "True").await?;
    let wait = ["delete", "namespace", "leaving", "--timeout=120s"];
    bench.lab.run_kubectl(&wait).context("the namespace does not go away")?;
    Ok(())
}

/// Two replicas answer; deleting the object leaves nothing.
async fn scale_and_delete(case: &Case<'_>, good: &(String, String)) -> Result<()> {
    let before = case.pod_uids("llm").await?;
    let mut spec = cpu(source(good));
    spec["replicas"] = json!(2);
    case.apply("llm", &spec).await?;
    e2e::process::wait_for("two replicas", bench::LIMIT, async || {
        let status = case.status("llm").await?;
        ensure!(status["readyReplicas"] == 2, "{}", status["readyReplicas"]);
        Ok(())
    })
    .await?;
    let after = case.pod_uids("llm").await?;
    ensure!(before.iter().all(|uid| after.contains(uid)), "scaling up replaced a pod");
    case.delete("llm").await?;
    case.until_empty().await
}
