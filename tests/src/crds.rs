//! Installs the custom resource definitions of `crds/` and waits until the API server serves them.
//!
//! In: a client. Out: kinds that can be used. It must not know what they mean.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, ResourceExt};

use crate::paths::repository;

const LIMIT: Duration = Duration::from_secs(60);

/// Applies every file of `crds/`.
pub async fn install(client: &Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let parameters = PatchParams::apply("e2e").force();
    for entry in std::fs::read_dir(repository().join("crds"))? {
        let path = entry?.path();
        let crd: CustomResourceDefinition = serde_norway::from_str(&std::fs::read_to_string(&path)?)?;
        let name = crd.name_any();
        let applied = api.patch(&name, &parameters, &Patch::Apply(&crd)).await;
        applied.with_context(|| format!("the API server refuses {}", path.display()))?;
        let established = await_condition(api.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(LIMIT, established)
            .await
            .with_context(|| format!("{name} was not served in time"))??;
    }
    Ok(())
}
