//! The loop over deployments: observe ⇒ validate → demand → rollout ⇒ placement ⇒ plan → build ⇒ apply → status.
//!
//! In: deployments and what changes around them. Out: writes. It decides nothing.
//!
//! # Flow of a pass
//! 1. The model of an inline source is made.
//! 2. Which bookings and pods stay is found out. Once the model is known, bookings that are missing are asked for and
//!    recorded, before any pod exists.
//! 3. Configuration, service and pods are applied; pods that go are deleted; ready pods get traffic.
//! 4. The status is written, also when a write before was refused.
//!
//! # Guarantees
//! A pass that is repeated writes nothing. A pass on an old view cannot make a second pod: bookings are recorded
//! against the resourceVersion that was seen, and names of pods follow from bookings.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use contract::device::DeviceClass;
use contract::inspect::Inspection;
use contract::{Bytes, labels};
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};
use tokio::sync::broadcast::Receiver;
use tokio_util::sync::CancellationToken;

use super::build::{self, Frozen, PodPlan, config_map};
use super::demand::{self, Chosen, choose};
use super::observe::{self, Observed, observe, pods_now};
use super::plan::{Plan, plan};
use super::revision::{Revision, Weights, revision};
use super::rollout::{Situation, steps, strays, unseen};
use super::status::{self, Pass};
use super::validate::{Validated, validate};
use super::wake::affected;
use super::{health, names};
use crate::api::condition::{ConditionStatus, find};
use crate::api::deployment::PlacementStatus;
use crate::api::model::LlmModelSpec;
use crate::api::{LlmDeployment, LlmModel};
use crate::apply::{self, Applied, Desired};
use crate::cache::Touched;
use crate::context::Context;
use crate::controller::{Loop, Next, REFUSED};
use crate::fleet::demand::Reach;
use crate::fleet::{Demand, Outcome};
use crate::model::name::{name_of, served_by};
use crate::recent::Recent;
use crate::telemetry::chain;

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

/// What every replica is to be.
struct Target<'a> {
    chosen: Chosen,
    revision: Revision,
    inspection: &'a Inspection,
}

/// What a pass finds out before it writes pods.
#[derive(Default)]
struct Found {
    chosen: Option<Result<Chosen, String>>,
    frozen: Option<Frozen>,
    plan: Plan,
    refused: Option<String>,
    unknown: Option<String>,
    wake_at: Option<Timestamp>,
}

/// All that the steps of a pass look at.
struct Scene<'a> {
    context: &'a Context,
    llm: &'a LlmDeployment,
    observed: &'a Observed,
    now: Timestamp,
}

async fn pass(llm: Arc<LlmDeployment>, context: Arc<Context>, recent: Arc<Recent>) -> Result<Next, Error> {
    let deleted = llm.meta().deletion_timestamp.is_some();
    if deleted || llm.annotations().contains_key(labels::PAUSED) {
        // What the deployment owns goes with it: the API server's garbage collector follows the owner references.
        return Ok(Next::OnChange);
    }
    let now = Timestamp::now();
    let observed = observe(&context, &recent, &llm, now).await;
    let scene = Scene { context: &context, llm: &llm, observed: &observed, now };
    let validated = validate(&llm).map_err(|error| chain(&error));
    let mut found = Found::default();
    let mut desired = Vec::new();
    if let Ok(validated) = &validated {
        desired.extend(scene.model());
        desired.push(Desired::converge(&build::service(&llm), observed.service.as_deref()));
        found = scene.places(validated).await?;
        desired.extend(scene.revision_and_pods(&found));
    }
    let applied = context.applier.apply(desired).await;
    let written = match &applied {
        Ok(_) => scene.promote_and_delete(&found).await,
        Err(_) => Ok(()),
    };
    scene.report(&validated, &found, applied.as_ref().ok()).await?;
    let refused = applied?.refusal().is_some();
    written?;
    let next = scene.next(&found);
    Ok(if refused { next.min(Next::After(REFUSED)) } else { next })
}

impl Scene<'_> {
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

    /// What every replica is to be, once the model is known, or why that cannot be said.
    fn target(&self, validated: &Validated) -> Option<Result<Target<'_>, String>> {
        let model = self.observed.model.as_ref().filter(|_| !self.observed.model_goes());
        let status = model?.status.as_ref()?;
        let (weights, inspection) = (Weights::of(status)?, status.inspection.as_ref()?);
        let ready = find(&status.conditions, status::READY);
        let ready = ready.is_some_and(|c| c.status == ConditionStatus::True.name());
        if !ready && self.placed().is_empty() {
            return None;
        }
        let chosen = choose(&self.llm.spec, validated, inspection, self.simulates());
        Some(chosen.map_err(|error| chain(&error)).map(|chosen| {
            let revision = revision(&self.llm.name_any(), &self.llm.spec, &weights, chosen.capacity);
            Target { chosen, revision, inspection }
        }))
    }

    /// Finds out which bookings and pods stay and go; asks for the bookings that are missing, and records them.
    async fn places(&self, validated: &Validated) -> Result<Found, Error> {
        let (target, why_not) = match self.target(validated).transpose() {
            Ok(target) => (target, None),
            Err(why_not) => (None, Some(Err(why_not))),
        };
        let placed = self.placed();
        let mut situation = Situation {
            owner: (&validated.owner.1, &validated.uid),
            target: target.as_ref().map(|target| target.revision.hash.as_str()),
            replicas: validated.replicas,
            placement: placed,
            pods: &self.observed.pods,
            usable_nodes: &self.observed.usable_nodes,
            now: self.now,
        };
        let mut pods = pods_now(&self.context.client, &validated.owner.0, unseen(&situation)).await?;
        pods.extend(self.observed.pods.clone());
        situation.pods = &pods;
        let steps = steps(&situation);
        let reach = (!steps.book.is_empty()).then(|| demand::reach(self.observed)).transpose();
        let (reach, unknown) = reach.map_or_else(|why| (None, Some(why)), |reach| (reach, None));
        let demand = |(target, reach): (&Target, &Reach)| {
            let demand = |book| demand::demand(validated, &target.chosen, book, reach.clone());
            steps.book.iter().map(demand).collect::<Vec<Demand>>()
        };
        let demands = target.as_ref().zip(reach.as_ref()).map(demand).unwrap_or_default();
        let outcomes = self.context.placement.place(validated.owner.clone(), demands.clone()).await;
        let refused = target.as_ref().and_then(|t| refusal(&demands, &outcomes, &t.chosen, t.inspection));
        let decided = target.as_ref().map(|target| (&target.chosen, outcomes));
        let plan = plan(&situation, &steps, decided);
        self.context.applier.patch_placement(self.llm, placed, &plan.placement).await?;
        let (frozen, chosen) = target.map(|t| (self.frozen(t.revision), Ok(t.chosen))).unzip();
        Ok(Found { chosen: chosen.or(why_not), frozen, plan, refused, unknown, wake_at: steps.wake_at })
    }

    fn simulates(&self) -> bool {
        self.context.settings.allow_simulated_devices
            && self.llm.spec.accelerator.class == DeviceClass::Nvidia
    }

    /// What the revision's ConfigMap says, if there is one: another operator's image is kept.
    fn frozen(&self, revision: Revision) -> Frozen {
        let name = names::config_map(&self.llm.name_any(), &revision.hash);
        let written = self.observed.config_maps.get(&name).map(|map| config_map::read(map));
        match written {
            Some(Ok(frozen)) => frozen,
            Some(Err(error)) => {
                tracing::warn!(
                    name,
                    error = chain(&error),
                    "a revision cannot be read: taking its own values"
                );
                Frozen::new(revision, &self.context.settings)
            }
            None => Frozen::new(revision, &self.context.settings),
        }
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
    fn placed(&self) -> &[PlacementStatus] {
        self.llm.status.as_ref().map(|s| s.placement.as_slice()).unwrap_or_default()
    }

    /// Pods that no booking is for. The store may have a pod before it has the status with the pod's booking, so the
    /// API server has the last word.
    async fn strays(&self, found: &Found) -> Result<BTreeSet<String>, Error> {
        let (name, pods) = (self.llm.name_any(), &self.observed.pods);
        let mut all = strays(&name, self.placed().iter().chain(&found.plan.placement), pods);
        if !all.is_empty() {
            let booked = observe::placement_now(&self.context.client, self.llm).await?;
            let still = booked.map(|booked| strays(&name, &booked, pods)).unwrap_or_default();
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
            let of = map.labels().get(labels::REVISION).map_or("", String::as_str);
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
        applied: Option<&Applied>,
    ) -> Result<(), Error> {
        let model = served_by(&self.llm.spec);
        let status = status::status(&Pass {
            llm: self.llm,
            observed: self.observed,
            validated: validated.as_ref().map_err(String::as_str),
            model: model.as_deref(),
            chosen: found.chosen.as_ref().map(|c| c.as_ref().map_err(String::as_str)),
            target: found.frozen.as_ref().map(|frozen| frozen.revision.hash.as_str()),
            plan: &found.plan,
            refusal: applied.and_then(Applied::refusal).map(|(_, _, refusal)| refusal),
            refused: found.refused.as_deref(),
            unknown: found.unknown.as_deref(),
            simulated: self.simulates(),
            now: self.now,
        });
        let mut old = self.llm.status.clone();
        let before = old.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        // Bookings have a writer of their own.
        old.iter_mut().for_each(|status| status.placement.clear());
        self.context.applier.patch_status(self.llm, old.as_ref(), &status).await?;
        let notes = status::notes(&before, &status.conditions);
        self.context.events.publish(&self.llm.object_ref(&()), notes).await;
        Ok(())
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

/// What is said of replicas that fit nowhere, with the context that would fit.
fn refusal(demands: &[Demand], outcomes: &[Outcome], chosen: &Chosen, model: &Inspection) -> Option<String> {
    let refused = demands.iter().zip(outcomes).find_map(|(demand, outcome)| match outcome {
        // It has a place, and its pod tells why the scheduler refuses that.
        Outcome::Refused(_) if demand.not_on.is_some() => None,
        Outcome::Refused(refusal) => Some((demand, refusal)),
        Outcome::Placed(_) | Outcome::AfterRelease(_) => None,
    });
    let (demand, refusal) = refused?;
    let would_fit =
        refusal.largest_fit(demand).and_then(|b| demand::largest_context(chosen, demand.class, model, b));
    let advice = would_fit.map(|tokens| {
        format!(
            "; a capacity.contextLength of {tokens} would fit with {} sequences",
            chosen.capacity.concurrency
        )
    });
    Some(format!("replica {}: {refusal}{}", demand.replica, advice.unwrap_or_default()))
}
