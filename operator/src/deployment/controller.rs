//! The loop over deployments: observe ⇒ validate → demand → rollout ⇒ placement ⇒ plan → build ⇒ apply → status.
//!
//! In: deployments and what changes around them. Out: writes. It decides nothing.
//!
//! # Flow of a pass
//! 1. What a deployment of the same name has left is adopted. The model of an inline source is made.
//! 2. Which bookings and pods stay is found out. Once the model is known, bookings that are missing are asked for and
//!    recorded, before any pod exists.
//! 3. Configuration, service and pods are applied; pods that go are deleted; ready pods get traffic.
//! 4. The status is written, also when a write before was refused.
//!
//! # Guarantees
//! A pass that is repeated writes nothing. A pass on an old view cannot make a second pod: bookings are recorded
//! against the resourceVersion that was seen, names of pods follow from bookings, and nothing is made again before the
//! API server was asked whether the deployment is still as it was seen.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use contract::device::DeviceClass;
use contract::{Bytes, labels};
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};
use tokio::sync::broadcast::Receiver;
use tokio_util::sync::CancellationToken;

use super::build::{self, Frozen, PodPlan};
use super::demand::Chosen;
use super::health::Problem;
use super::observe::{self, Observed, is_left_alone, observe};
use super::plan::Plan;
use super::rollout::strays;
use super::status::{self, Pass};
use super::validate::{Validated, validate};
use super::wake::affected;
use super::{health, names};
use crate::api::deployment::{LlmDeploymentStatus, PlacementStatus};
use crate::api::model::LlmModelSpec;
use crate::api::{LlmDeployment, LlmModel};
use crate::apply::{self, Applied, Desired};
use crate::cache::Touched;
use crate::context::Context;
use crate::controller::{CHANGED, Loop, Next, REFUSED};
use crate::model::name::{name_of, served_by};
use crate::recent::Recent;
use crate::telemetry::chain;

mod adopt;
mod places;

/// How often a pod that loads is asked how far it is.
const LOADING: Duration = Duration::from_secs(5);
/// How often a pod that serves is asked what it measures.
const SETTLED: Duration = Duration::from_secs(60);

/// A pass that failed for a passing reason.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something could not be read.
    #[error("cannot observe the deployment")]
    Observe(#[from] observe::Error),
    /// Something could not be written.
    #[error("cannot bring the deployment further")]
    Apply(#[from] apply::Error),
}

impl Error {
    fn category(&self) -> &'static str {
        match self {
            Self::Observe(_) => "observe",
            Self::Apply(_) => "apply",
        }
    }
}

/// Looks after all deployments until shutdown.
pub async fn run(context: Arc<Context>, changes: Receiver<Touched>, shutdown: CancellationToken) {
    let stores = context.stores.clone();
    let this = Loop {
        store: context.stores.deployments.clone(),
        changes,
        affected: Box::new(move |touched| affected(touched, &stores)),
        shutdown,
    };
    let recent = Arc::new(Recent::default());
    let pass = move |llm, context| pass(llm, context, recent.clone());
    crate::controller::run(this, context, pass, Error::category).await;
}

/// What a pass finds out before it writes pods.
#[derive(Default)]
struct Found {
    chosen: Option<Result<Chosen, Problem>>,
    frozen: Option<Frozen>,
    plan: Plan,
    /// Pods that no booking is for, as far as the stores know.
    strays: BTreeSet<String>,
    refused: Option<String>,
    unknown: Option<String>,
    wake_at: Option<Timestamp>,
    /// Whether bookings were written, which fails if the deployment has changed since it was seen.
    recorded: bool,
}

/// All that the steps of a pass look at.
struct Scene<'a> {
    context: &'a Context,
    llm: &'a LlmDeployment,
    observed: &'a Observed,
    now: Timestamp,
}

async fn pass(llm: Arc<LlmDeployment>, context: Arc<Context>, recent: Arc<Recent>) -> Result<Next, Error> {
    if is_left_alone(&llm) {
        return Ok(Next::OnChange);
    }
    let now = Timestamp::now();
    let mut observed = observe(&context, &recent, &llm, now).await;
    let adopted = adopt::adopt(&context, &llm, &mut observed).await;
    let scene = Scene { context: &context, llm: &llm, observed: &observed, now };
    let validated = validate(&llm).map_err(|error| chain(&error));
    let prepared = match adopted {
        Ok(true) => scene.prepare(validated.as_ref().ok()).await,
        Ok(false) => return Ok(Next::After(CHANGED)),
        Err(error) => Err(error),
    };
    let (found, desired) = match prepared {
        Ok(Some(prepared)) => prepared,
        Ok(None) => return Ok(Next::OnChange),
        Err(error) => {
            scene.tell(&error).await;
            return Err(error);
        }
    };
    let written = match context.applier.apply(desired).await {
        Ok(applied) => scene.promote_and_delete(&found).await.map(|()| applied),
        Err(error) => Err(error.into()),
    };
    let reported = scene.report(&validated, &found, &written).await;
    let refused = written?.refusal().is_some();
    reported?;
    let next = scene.next(&found);
    Ok(if refused { next.min(Next::After(REFUSED)) } else { next })
}

impl Scene<'_> {
    /// Books what is missing, and says what should exist. `None` when the deployment has gone or changed since it was
    /// seen, which the store will tell.
    async fn prepare(&self, validated: Option<&Validated>) -> Result<Option<(Found, Vec<Desired>)>, Error> {
        let Some(validated) = validated else { return Ok(Some(Default::default())) };
        let found = self.places(validated).await?;
        let service = Desired::converge(&build::service(self.llm), self.observed.service.as_deref());
        let mut desired: Vec<Desired> = self.model().into_iter().chain([service]).collect();
        desired.extend(self.revision_and_pods(&found));
        // What went with its owner must not be made again for an owner that has gone, or that wants it no more.
        let certain = found.recorded || !desired.iter().any(Desired::is_new);
        let current = certain || observe::is_unchanged(&self.context.client, self.llm).await?;
        Ok(current.then_some((found, desired)))
    }

    /// The model of an inline source. It outlives the deployment if others use it, so it has no owner.
    fn model(&self) -> Option<Desired> {
        let source = self.llm.spec.model.source.clone()?;
        let name = name_of(&source, self.llm.spec.volume.as_ref());
        let spec = LlmModelSpec { source, volume: self.llm.spec.volume.clone() };
        let mut model = LlmModel::new(&name, spec);
        model.metadata.namespace = self.llm.namespace();
        let labels = [(labels::APP_NAME, labels::MANAGER), (labels::APP_MANAGED_BY, labels::MANAGER)];
        model.metadata.labels = Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        Some(Desired::create_only(&model, self.observed.model.as_deref()))
    }

    fn simulates(&self) -> bool {
        self.context.settings.allow_simulated_devices
            && self.llm.spec.accelerator.class == DeviceClass::Nvidia
    }

    /// The target's ConfigMap, and a pod for each of its bookings that has none.
    fn revision_and_pods(&self, found: &Found) -> Vec<Desired> {
        let Some(frozen) = &found.frozen else { return Vec::new() };
        let map = build::config_map(self.llm, frozen);
        let seen = self.observed.config_maps.get(&map.name_any()).map(AsRef::as_ref);
        let mut desired = vec![Desired::create_only(&map, seen)];
        let of_target = |p: &&PlacementStatus| p.revision == frozen.revision.hash;
        for booking in found.plan.placement.iter().filter(of_target) {
            let pod = build::pod(&PodPlan {
                owner: self.llm,
                frozen,
                booking,
                simulated: self.simulates().then(|| self.card(&booking.node)),
                runtime_class: self.observed.runtime_class.as_deref(),
                settings: &self.context.settings,
            });
            // A booking whose bytes do not fit in 64 bits was refused by every node.
            let Ok(pod) = pod else { continue };
            let seen = self.observed.pods.get(&pod.name_any()).map(AsRef::as_ref);
            desired.push(Desired::create_only(&pod, seen));
        }
        desired
    }

    fn card(&self, node: &str) -> Bytes {
        self.observed.cards.get(node).copied().unwrap_or_default()
    }

    /// Bookings as the store has them.
    fn recorded(&self) -> &[PlacementStatus] {
        self.llm.status.as_ref().map(|s| s.placement.as_slice()).unwrap_or_default()
    }

    /// Pods that no booking is for. The store may have a pod before it has the status with the pod's booking, so the
    /// API server has the last word.
    async fn strays(&self, found: &Found) -> Result<BTreeSet<String>, Error> {
        let mut all = found.strays.clone();
        if !all.is_empty() {
            let booked = observe::placement_now(&self.context.client, self.llm).await?;
            let still = |booked: Vec<_>| strays(&self.llm.name_any(), &booked, &self.observed.pods);
            let still = booked.map(still).unwrap_or_default();
            all.retain(|name| still.contains(name));
        }
        Ok(all)
    }

    /// Gives traffic to ready pods; deletes pods that go, and configuration that no pod uses any more.
    async fn promote_and_delete(&self, found: &Found) -> Result<(), Error> {
        let applier = &self.context.applier;
        let strays = self.strays(found).await?;
        for (name, pod) in &self.observed.pods {
            if found.plan.delete.contains(name) || strays.contains(name) {
                applier.delete(pod.as_ref()).await?;
            } else if health::is_ready(pod) {
                applier.label(pod.as_ref(), labels::SERVING, names::SERVING).await?;
            }
        }
        let Some(frozen) = &found.frozen else { return Ok(()) };
        let used: BTreeSet<&str> = found.plan.placement.iter().map(|p| p.revision.as_str()).collect();
        for map in self.observed.config_maps.values() {
            let of = revision_of(map.as_ref()).unwrap_or_default();
            if of != frozen.revision.hash && !used.contains(of) {
                applier.delete(map.as_ref()).await?;
            }
        }
        Ok(())
    }

    /// Writes the status and tells people what changed.
    async fn report(
        &self,
        validated: &Result<Validated, String>,
        found: &Found,
        written: &Result<Applied, Error>,
    ) -> Result<(), Error> {
        let model = served_by(&self.llm.spec);
        let mut status = status::status(&Pass {
            llm: self.llm,
            observed: self.observed,
            validated: validated.as_ref().map_err(String::as_str),
            model: model.as_deref(),
            chosen: found.chosen.as_ref().map(Result::as_ref),
            target: found.frozen.as_ref().map(|frozen| frozen.revision.hash.as_str()),
            plan: &found.plan,
            refusal: written.as_ref().ok().and_then(Applied::refusal).map(|(_, _, refusal)| refusal),
            refused: found.refused.as_deref(),
            unknown: found.unknown.as_deref(),
            simulated: self.simulates(),
            now: self.now,
        });
        if let Some(words) = written.as_ref().err().and_then(|error| self.context.trouble(self.llm, error)) {
            status = status::troubled(status, self.llm, words, self.now);
        }
        let old = self.status();
        self.context.applier.patch_status(self.llm, old.as_ref(), &status).await?;
        let before = old.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let notes = status::notes(before, &status.conditions);
        self.context.events.publish(&self.llm.object_ref(&()), notes).await;
        Ok(())
    }

    /// Says in the status that a pass failed for a passing reason, and leaves the rest as it was. Where not even that can
    /// be written, the log says so.
    async fn tell(&self, error: &Error) {
        let Some(words) = self.context.trouble(self.llm, error) else { return };
        let old = self.status();
        let status = status::troubled(old.clone().unwrap_or_default(), self.llm, words, self.now);
        if let Err(error) = self.context.applier.patch_status(self.llm, old.as_ref(), &status).await {
            tracing::debug!(error = chain(&error), "the status cannot tell of a failed pass");
        }
    }

    /// The status without its bookings, which have a writer of their own.
    fn status(&self) -> Option<LlmDeploymentStatus> {
        let status = self.llm.status.clone()?;
        Some(LlmDeploymentStatus { placement: Vec::new(), ..status })
    }

    fn next(&self, found: &Found) -> Next {
        let due = found.wake_at.map(|at| Duration::try_from(at.duration_since(self.now)).unwrap_or_default());
        // A pod that does not answer yet soon will, and no watch tells.
        let loading = self.observed.pods.values().any(|pod| !health::is_ready(pod));
        let usual = if loading { LOADING } else { SETTLED };
        if found.unknown.is_some() {
            return Next::After(LOADING);
        }
        if self.observed.pods.is_empty() && found.wake_at.is_none() && found.refused.is_none() {
            return Next::OnChange;
        }
        Next::After(due.map_or(usual, |due| due.min(usual)))
    }
}

/// The revision that an object carries.
fn revision_of<K: Resource>(object: &K) -> Option<&str> {
    object.labels().get(labels::REVISION).map(String::as_str)
}
