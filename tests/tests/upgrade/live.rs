//! Models that answer, and whether their pods are still the same.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use contract::http::{ADMIN_PORT, METRICS};
use contract::labels;
use contract::metrics::Metric;
use e2e::bench::{Bench, Case, File, LIMIT, small};
use e2e::lab::Lab;
use e2e::process::wait_for;
use e2e::{install, web};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::releases::OLDER;

/// Claim and file of the model that somebody else put there.
const CLAIM: &str = "weights";
const MODEL: &str = "model.gguf";

/// What a restart, or another pod of the same name, would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    uid: String,
    container: String,
    restarts: i32,
    pub(crate) image: String,
}

/// Pods by namespace and name.
pub(crate) type Pods = BTreeMap<String, Running>;

/// The pods of all LlmDeployments of the cluster.
pub(crate) async fn pods(client: &Client) -> Result<Pods> {
    let all: Api<Pod> = Api::all(client.clone());
    let ours = ListParams::default().labels(labels::DEPLOYMENT);
    let pods = all.list(&ours).await?.into_iter().map(|pod| {
        let status = pod.status.clone().unwrap_or_default();
        let container = status.container_statuses.and_then(|all| all.into_iter().next());
        let container = container.with_context(|| format!("{} does not run", pod.name_any()))?;
        let running = Running {
            uid: pod.uid().unwrap_or_default(),
            container: container.container_id.unwrap_or_default(),
            restarts: container.restart_count,
            image: pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone()).unwrap_or_default(),
        };
        Ok((format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()), running))
    });
    pods.collect()
}

/// Those of `before` that are not the same any more.
pub(crate) fn changed(before: &Pods, now: &Pods) -> Vec<String> {
    let same = |(name, pod): &(&String, &Running)| now.get(*name) == Some(*pod);
    before.iter().filter(|entry| !same(entry)).map(|(name, _)| name.clone()).collect()
}

/// A claim that somebody filled, on a card.
pub(crate) fn claimed() -> Value {
    let mut spec = small(&json!({ "persistentVolumeClaim": { "claimName": CLAIM, "path": MODEL } }));
    spec["accelerator"] = json!({ "class": "Nvidia" });
    spec
}

/// Makes a claim and puts the model on it.
pub(crate) async fn fill_claim(case: &Case<'_>, File { url, sha256 }: &File) -> Result<()> {
    let claim = json!({
        "metadata": { "name": CLAIM },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "256Mi" } } },
    });
    let files = json!({ "files": [{ "url": url, "sha256": sha256, "path": MODEL }] }).to_string();
    let restricted = json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
    let pod = json!({
        "metadata": { "name": "filler" },
        "spec": {
            "restartPolicy": "Never", "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true, "fsGroup": 65532, "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": "filler", "image": format!("{}/llm-fleet/runtime:{OLDER}", install::REGISTRY),
                "args": ["fetch", "--spec", files, "--output", "/models"], "securityContext": restricted,
                "volumeMounts": [{ "name": "weights", "mountPath": "/models" }],
            }],
            "volumes": [{ "name": "weights", "persistentVolumeClaim": { "claimName": CLAIM } }],
        },
    });
    let namespace = &case.namespace;
    let claims: Api<k8s_openapi::api::core::v1::PersistentVolumeClaim> =
        Api::namespaced(case.client.clone(), namespace);
    claims.create(&PostParams::default(), &serde_json::from_value(claim)?).await?;
    let pods: Api<Pod> = Api::namespaced(case.client.clone(), namespace);
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    wait_for("the claim to be filled", LIMIT, async || {
        let status = pods.get("filler").await?.status.unwrap_or_default();
        ensure!(status.phase.as_deref() == Some("Succeeded"), "{status:?}");
        Ok(())
    })
    .await?;
    pods.delete("filler", &kube::api::DeleteParams::default()).await?;
    Ok(())
}

/// The operator's pods that are to stay.
pub(crate) async fn operators(client: &Client) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), install::NAMESPACE);
    let ours = ListParams::default().labels(&format!("{}=operator", labels::APP_COMPONENT));
    let stays = |pod: &Pod| pod.metadata.deletion_timestamp.is_none();
    Ok(pods.list(&ours).await?.into_iter().filter(stays).collect())
}

/// Waits until one operator of the image leads and has looked at every object.
pub(crate) async fn has_looked(bench: &Bench, client: &Client, tag: &str) -> Result<()> {
    let tag = format!(":{tag}");
    let kinds = bench.lab.run_kubectl(&["get", "llm,llmm", "--all-namespaces", "--output", "name"])?;
    let objects = u32::try_from(kinds.lines().count())?;
    wait_for("the operator to look at everything", LIMIT, async || {
        let mut leaders = 0;
        for pod in operators(client).await? {
            let image = pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone());
            ensure!(image.as_ref().is_some_and(|image| image.ends_with(&tag)), "it runs {image:?}");
            let page = metrics(&bench.lab, &pod).await?;
            if figure(&page, Metric::Leader.definition().name) < 1.0 {
                continue;
            }
            let passes = figure(&page, &format!("{}_count", Metric::ReconcileSeconds.definition().name));
            ensure!(passes >= f64::from(objects), "{passes} passes for {objects} objects");
            leaders += 1;
        }
        if leaders == 1 { Ok(()) } else { bail!("{leaders} lead") }
    })
    .await
}

async fn metrics(lab: &Lab, pod: &Pod) -> Result<String> {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).context("it has no address yet")?;
    let way = lab.forward(&format!("{ip}:{ADMIN_PORT}"), ([127, 0, 0, 1], 0).into()).await?;
    Ok(web::get(&format!("http://{}{METRICS}", way.local())).await?.text().await?)
}

/// The sum of a metric's series.
fn figure(page: &str, name: &str) -> f64 {
    let of_metric = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let values = page.lines().filter(of_metric).filter_map(|line| line.rsplit(' ').next());
    values.filter_map(|value| value.parse::<f64>().ok()).sum()
}
