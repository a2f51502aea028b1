//! `llm-fleet-operator release`: takes our finalizer off all models, for when there will be no operator to do so.
//!
//! In: namespaces. Out: models that go when they are deleted; what they made is collected by its owner references.
//! It must not know why the operator goes.

use std::time::Duration;

use anyhow::{Context, ensure};
use kube::api::{ListParams, PartialObjectMeta};
use kube::{Api, Client, ResourceExt};
use tokio::time::sleep;

use crate::api::LlmModel;
use crate::apply::{Applier, has_finalizer};
use crate::cache::Keepers;
use crate::metrics::Metrics;
use crate::telemetry::chain;

/// How often all are looked at, and the pause in between: an operator that is still ending may change one meanwhile.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// Releases the models of `namespaces`, of all if there are none.
///
/// # Errors
/// When the API server refuses, or a model has the finalizer at the end.
pub async fn release(namespaces: &[String]) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("there is no way to reach an API server")?;
    let applier = Applier::new(client.clone(), Metrics::default(), Keepers::default());
    let apis: Vec<Api<LlmModel>> = if namespaces.is_empty() {
        vec![Api::all(client)]
    } else {
        namespaces.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
    };
    for _ in 0..ATTEMPTS {
        let held = held(&apis).await?;
        if held.is_empty() {
            println!("no model is held");
            return Ok(());
        }
        for model in &held {
            let name = format!("{}/{}", model.namespace().unwrap_or_default(), model.name_any());
            match applier.remove_finalizer(model).await {
                Ok(_) => println!("released {name}"),
                // It may have changed meanwhile, or somebody refuses this one: the others go on, and what is held at
                // the end tells.
                Err(error) => println!("{name}: {}", chain(&error)),
            }
        }
        sleep(PAUSE).await;
    }
    let held = held(&apis).await?.len();
    ensure!(held == 0, "{held} models are held: see above, or is there another operator?");
    Ok(())
}

/// Models with our finalizer. Where the kind is gone, so are they.
async fn held(apis: &[Api<LlmModel>]) -> anyhow::Result<Vec<PartialObjectMeta<LlmModel>>> {
    let mut held = Vec::new();
    for api in apis {
        match api.list_metadata(&ListParams::default()).await {
            Ok(models) => held.extend(models.into_iter().filter(has_finalizer)),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error).context("cannot list the models"),
        }
    }
    Ok(held)
}
