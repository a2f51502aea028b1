//! Takes over what a deployment of the same name has left.
//!
//! In: what was observed. Out: owner references, and what was adopted among what was observed. It must not know
//! what becomes of it: from here on it is like everything else that the deployment made.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::Error;
use crate::api::LlmDeployment;
use crate::apply::{Applier, owner_of};
use crate::context::Context;
use crate::deployment::names;
use crate::deployment::observe::{Left, Observed, is_current};

/// Adopts what was left. Tells whether that is done: until it is, a replica could be made that is there already.
pub(super) async fn adopt(
    context: &Context,
    llm: &LlmDeployment,
    observed: &mut Observed,
) -> Result<bool, Error> {
    if observed.left.is_empty() {
        return Ok(true);
    }
    // Names are unique: as long as this very object is there, the former owner of its name is not.
    if !is_current(&context.client, llm).await? {
        return Ok(false);
    }
    let (applier, owner) = (&context.applier, owner_of(llm));
    let Left { pods, config_maps, services } = std::mem::take(&mut observed.left);
    let mut done = each(applier, &owner, pods, &mut observed.pods).await?;
    done &= each(applier, &owner, config_maps, &mut observed.config_maps).await?;
    let mut adopted = BTreeMap::new();
    done &= each(applier, &owner, services, &mut adopted).await?;
    let service = adopted.remove(&names::service(&llm.name_any()));
    observed.service = observed.service.take().or(service);
    Ok(done)
}

async fn each<K>(
    applier: &Applier,
    owner: &OwnerReference,
    left: Vec<Arc<K>>,
    adopted: &mut BTreeMap<String, Arc<K>>,
) -> Result<bool, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    let mut done = true;
    for object in left {
        match applier.adopt(owner, object.as_ref()).await? {
            Some(object) => drop(adopted.insert(object.name_any(), Arc::new(object))),
            None => done = false,
        }
    }
    Ok(done)
}
