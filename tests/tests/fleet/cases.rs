//! What bad input gets: a precise reason, nothing half-written, no hot loop, and recovery when the cause goes.

use anyhow::{Context, Result, ensure};
use e2e::bench::{self, Bench, File, cpu, small};
use serde_json::json;

use super::inputs;

/// 404 is a reason, not an end: once the file is there, the deployment gets ready without a hand.
pub(crate) async fn missing_file_that_comes_later(bench: &Bench, model: &[u8]) -> Result<()> {
    let case = bench.case("missing").await?;
    case.apply("llm", &cpu(&File { url: bench.url("late.gguf"), sha256: inputs::sha256(model) })).await?;
    case.until_said("llm", "ModelReady", "SourceUnavailable", &["404", "late.gguf"]).await?;
    case.until_said("llm", "Ready", "SourceUnavailable", &["404"]).await?;
    case.stays_calm().await?;
    bench.publish("late.gguf", model)?;
    case.until_ready("llm").await?;
    case.delete("llm").await
}

/// The server's copy is half of the file: nothing of it stays, and once the server has all of it, the same claim
/// gets all of it.
pub(crate) async fn wrong_digest(bench: &Bench, model: &[u8]) -> Result<()> {
    let case = bench.case("digest").await?;
    let half = bench.publish("half.gguf", &model[..model.len() / 2])?;
    let whole = inputs::sha256(model);
    case.apply("llm", &cpu(&File { url: half.url, sha256: whole.clone() })).await?;
    case.until_said("llm", "ModelReady", "DigestMismatch", &[&whole, &half.sha256]).await?;
    case.until_said("llm", "Ready", "DigestMismatch", &[]).await?;
    case.until_nothing_on_volumes().await?;
    case.stays_calm().await?;
    let claims = case.claims().await?;
    bench.publish("half.gguf", model)?;
    case.until_ready("llm").await?;
    ensure!(case.claims().await? == claims, "the claim was replaced");
    case.delete("llm").await
}

/// Files whose digest is right and whose content is not.
pub(crate) async fn hostile_files(bench: &Bench) -> Result<()> {
    let case = bench.case("hostile").await?;
    for (name, content, words) in inputs::hostile() {
        let file = bench.publish(&format!("{name}.gguf"), &content)?;
        case.apply(name, &cpu(&file)).await?;
        case.until_said(name, "ModelReady", "WeightsCorrupt", words).await?;
        case.until_nothing_on_volumes().await?;
        case.delete(name).await?;
    }
    case.until_empty().await
}

/// A volume without room gets nothing; when the spec asks for more room, another one gets the model.
///
/// Then the deployment is made anew while the model of the first is still going.
pub(crate) async fn full_volume(bench: &Bench, good: &File) -> Result<()> {
    let case = bench.case("full").await?;
    let mut spec = cpu(good);
    spec["volume"] = json!({ "size": "64Mi" });
    case.apply("llm", &spec).await?;
    case.until_said("llm", "ModelReady", "VolumeFull", &["are needed", "larger volume.size"]).await?;
    case.until_said("llm", "Ready", "VolumeFull", &[]).await?;
    case.until_nothing_on_volumes().await?;
    case.stays_calm().await?;
    case.apply("llm", &cpu(good)).await?;
    case.until_ready("llm").await?;
    case.delete("llm").await?;
    case.apply("llm", &cpu(good)).await?;
    case.until_ready("llm").await?;
    case.delete("llm").await?;
    case.until_empty().await
}

/// Weights that were verified and then damaged keep the pod from starting, until they are whole again.
pub(crate) async fn damaged_weights(bench: &Bench, good: &File, model: &[u8]) -> Result<()> {
    let case = bench.case("damaged").await?;
    let mut spec = cpu(good);
    spec["replicas"] = json!(0);
    case.apply("llm", &spec).await?;
    case.until_said("llm", "ModelReady", "ModelReady", &[]).await?;
    let volume = case.volumes().await?.pop().context("the model has no volume")?;
    let file = volume.join("model.gguf");
    std::fs::write(&file, &model[..model.len() / 2])?;
    case.apply("llm", &cpu(good)).await?;
    for condition in ["Available", "Ready", "Stalled"] {
        case.until_said("llm", condition, "WeightsCorrupt", &["model.gguf"]).await?;
    }
    case.stays_calm().await?;
    std::fs::write(&file, model)?;
    case.until_ready("llm").await?;
    case.delete("llm").await
}

/// A capacity past every node is refused by bytes; a smaller one is placed without a hand.
pub(crate) async fn does_not_fit(bench: &Bench, good: &File) -> Result<()> {
    let case = bench.case("toolarge").await?;
    let mut spec = cpu(good);
    spec["capacity"] = json!({ "contextLength": 8192, "concurrency": 512 });
    case.apply("llm", &spec).await?;
    let words = ["needs", "GiB", "are free", "contextLength of"];
    case.until_said("llm", "Placed", "DoesNotFit", &words).await?;
    case.until_said("llm", "Ready", "DoesNotFit", &words).await?;
    ensure!(case.pod_uids("llm").await?.is_empty(), "a pod was made for what does not fit");
    case.stays_calm().await?;
    case.apply("llm", &cpu(good)).await?;
    case.until_ready("llm").await?;
    case.delete("llm").await
}

/// Two cards take two deployments; the third is refused until one leaves.
pub(crate) async fn whole_devices(bench: &Bench, good: &File) -> Result<()> {
    let case = bench.case("cards").await?;
    let mut spec = cpu(good);
    spec["accelerator"] = json!({ "class": "Nvidia" });
    for name in ["one", "two"] {
        case.apply(name, &spec).await?;
        case.until_ready(name).await?;
        ensure!(case.status(name).await?["simulated"] == true, "a simulated card must be called so");
    }
    case.apply("three", &spec).await?;
    case.until_said("three", "Placed", "DoesNotFit", &["all 2 cards are taken"]).await?;
    case.stays_calm().await?;
    case.delete("one").await?;
    case.until_ready("three").await?;
    case.delete("two").await?;
    case.delete("three").await?;
    case.until_empty().await
}

/// A namespace that is being deleted, and is held by something else, is left alone until it has gone.
pub(crate) async fn namespace_goes_away(bench: &Bench, good: &File) -> Result<()> {
    let case = bench.case("leaving").await?;
    let (claim, missing) = (json!({ "claimName": "absent" }), bench.url("absent.gguf"));
    case.apply("runs", &cpu(good)).await?;
    case.apply("waits", &small(&json!({ "persistentVolumeClaim": claim }))).await?;
    case.apply("fails", &cpu(&File { url: missing, sha256: good.sha256.clone() })).await?;
    case.until_said("waits", "ModelReady", "ClaimNotFound", &["absent"]).await?;
    case.until_ready("runs").await?;
    case.hold().await?;
    bench.lab.run_kubectl(&["delete", "namespace", &case.namespace, "--wait=false"])?;
    case.until_empty().await?;
    case.stays_calm().await?;
    case.release().await?;
    let gone =
        ["wait", "--for=delete", "namespace/leaving", &format!("--timeout={}s", bench::LIMIT.as_secs())];
    bench.lab.run_kubectl(&gone).context("the namespace does not go away")?;
    Ok(())
}
