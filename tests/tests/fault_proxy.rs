//! The fault proxy itself, between an operator and a real API server: that each fault is what its name says.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::time::Duration;

use anyhow::{bail, ensure};
use e2e::faults::proxy::Proxy;
use e2e::faults::rule::{After, Answer, Asked, Before, OnEvent, Pass, Rule};
use e2e::operator::scene::Scene;
use e2e::operator::{Launch, Site};
use e2e::process::wait_for;
use k8s_openapi::api::core::v1::Service;
use kube::api::DeleteParams;
use serde_json::{Value, json};

const KIND: &str = "LlmModel";
const MODELS: &str = "llmmodels";
const NAMESPACE: &str = "default";
/// How long the operator has for what it must not do.
const SOON: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(30);

/// What befalls writes of the status of models.
#[derive(Clone)]
enum OfStatus {
    Before(Before),
    After(After),
}

impl Rule for OfStatus {
    fn before(&self, asked: &Asked) -> Before {
        match self {
            Self::Before(action) if is_first(asked) => action.clone(),
            _ => Before::Pass,
        }
    }

    fn after(&self, asked: &Asked, code: u16) -> After {
        assert!(code < 500, "{asked:?}: {code}");
        match self {
            Self::After(action) if is_first(asked) => action.clone(),
            _ => After::Pass,
        }
    }
}

fn is_first(asked: &Asked) -> bool {
    asked.call.resource == "llmmodels/status" && asked.times == 1
}

/// What befalls events about objects of one kind.
struct Events(&'static str, OnEvent);

impl Rule for Events {
    fn event(&self, asked: &Asked, event: Option<&Value>) -> OnEvent {
        let about_one = event.is_none_or(|event| event["object"]["metadata"]["name"].is_string());
        if asked.call.resource == self.0 && about_one { self.1.clone() } else { OnEvent::Pass }
    }
}

async fn make(scene: &Scene<'_>, name: &str) {
    let spec = json!({ "source": { "persistentVolumeClaim": { "claimName": "absent" } } });
    scene.apply(KIND, name, &spec).await.unwrap();
}

async fn is_told(scene: &Scene<'_>, name: &str) {
    scene.condition((KIND, name), "Ready", "ClaimNotFound").await.unwrap();
}

/// A status is written in spite of what befalls the first write, and the fault has been made.
async fn survives(scene: &Scene<'_>, proxy: &Proxy, name: &str, rule: OfStatus) {
    proxy.set(rule);
    make(scene, name).await;
    is_told(scene, name).await;
    assert_eq!(proxy.tried(), 1, "{name}");
    proxy.set(Pass);
}

#[tokio::test]
async fn an_operator_works_behind_a_proxy_whatever_that_does() {
    let site = Site::start("llm-fleet.yaml").await.unwrap();
    let proxy = site.proxy().await.unwrap();
    let launch = Launch { server: Some(proxy.url()), ..Launch::new("operator-behind", &[]) };
    let operator = site.launch(&launch).await.unwrap();
    let scene = site.scene(&operator, NAMESPACE).await.unwrap();
    make(&scene, "first").await;
    is_told(&scene, "first").await;
    // The finalizer, and the status.
    wait_for("answers", LIMIT, async || proxy.is_idle()).await.unwrap();
    let writes = proxy.writes();
    let changes: Vec<_> = writes.iter().filter(|write| write.change.is_some()).collect();
    assert_eq!(changes.len(), 2, "{writes:?}");
    assert!(
        changes
            .iter()
            .all(|w| w.call.name == "first" && w.call.user == "operator-behind" && w.call.code == 200)
    );
    assert_eq!(changes[1].change, Some(proxy.changes()));
    scene.settles().await.unwrap();

    let once = |code| OfStatus::Before(Before::Answer(Answer::new(code, "Once")));
    for (name, rule) in [
        ("conflict", once(409)),
        ("internal", once(500)),
        (
            "patient",
            OfStatus::Before(Before::Answer(Answer {
                retry_after: Some(1),
                ..Answer::new(429, "TooManyRequests")
            })),
        ),
        ("slow", OfStatus::Before(Before::Delay(Duration::from_secs(1)))),
        ("dropped", OfStatus::Before(Before::Drop)),
        ("withheld", OfStatus::After(After::Withhold)),
        ("late", OfStatus::After(After::Delay(Duration::from_secs(1)))),
        ("truncated", OfStatus::After(After::Truncate)),
    ] {
        survives(&scene, &proxy, name, rule).await;
    }
    frozen(&scene, &proxy).await;
    watches(&scene, &proxy).await;
    nothing_is_made_for_what_has_gone(&scene, &proxy).await;
}

/// The garbage collector's deletions are seen, and that of the deployment is not yet.
async fn nothing_is_made_for_what_has_gone(scene: &Scene<'_>, proxy: &Proxy) {
    let services = scene.all::<Service>();
    let spec = json!({ "model": { "modelRef": { "name": "absent" } } });
    scene.apply("LlmDeployment", "late", &spec).await.unwrap();
    let made = scene.wait("the service", async || Ok(services.get("late").await.map(drop)?));
    made.await.unwrap();
    scene.settles().await.unwrap();
    proxy.set(Events("llmdeployments", OnEvent::Hold));
    scene.ours("LlmDeployment").delete("late", &DeleteParams::default()).await.unwrap();
    let gone = scene.wait("the service to go", async || match services.get_opt("late").await? {
        None => Ok(()),
        Some(_) => bail!("it is there"),
    });
    gone.await.unwrap();
    tokio::time::sleep(SOON).await;
    let writes = proxy.writes();
    let made = writes.iter().filter(|w| w.call.resource == "services" && w.call.code == 201);
    assert_eq!(made.count(), 1, "{writes:?}");
    proxy.set(Pass);
}

/// A request that is not answered ends with its rule, and is asked again.
async fn frozen(scene: &Scene<'_>, proxy: &Proxy) {
    proxy.set(OfStatus::Before(Before::Freeze));
    make(scene, "frozen").await;
    wait_for("a write to freeze", LIMIT, async || {
        ensure!(proxy.tried() == 1, "{}", proxy.tried());
        Ok(())
    })
    .await
    .unwrap();
    proxy.set(Pass);
    is_told(scene, "frozen").await;
}

/// Events that are held come later, those that are lost come with the next list, and a watch that is gone begins anew.
async fn watches(scene: &Scene<'_>, proxy: &Proxy) {
    proxy.set(Events(MODELS, OnEvent::Hold));
    make(scene, "held").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let unseen = scene.ours(KIND).get("held").await.unwrap();
    assert!(unseen.data["status"].is_null(), "{:?}", unseen.data);
    assert!(proxy.tried() > 0);
    proxy.set(Pass);
    is_told(scene, "held").await;

    proxy.set(Events(MODELS, OnEvent::Repeat(100)));
    make(scene, "repeated").await;
    is_told(scene, "repeated").await;

    proxy.set(Events(MODELS, OnEvent::Lose));
    make(scene, "lost").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(scene.ours(KIND).get("lost").await.unwrap().data["status"].is_null());
    for end in [OnEvent::Gone, OnEvent::Drop] {
        proxy.set(Events(MODELS, end));
        let ended = wait_for("the watch to end", LIMIT, async || {
            ensure!(proxy.tried() > 0, "it is as it was");
            Ok(())
        });
        ended.await.unwrap();
        proxy.set(Pass);
        is_told(scene, "lost").await;
    }

    let models = scene.ours(KIND);
    models.delete("first", &DeleteParams::default()).await.unwrap();
    let gone = scene.wait("a model to go", async || match models.get_opt("first").await? {
        None => Ok(()),
        Some(_) => bail!("it is there"),
    });
    gone.await.unwrap();
}
