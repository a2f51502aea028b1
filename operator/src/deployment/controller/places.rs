//! Which bookings and pods stay and go, and where what is missing is placed.
//!
//! In: what was observed, and what is asked for. Out: [`Found`], with all bookings recorded. It decides nothing.

use std::collections::BTreeSet;

use contract::inspect::Inspection;
use kube::ResourceExt;

use super::{Error, Found, Scene, revision_of};
use crate::api::condition::{ConditionStatus, find};
use crate::api::deployment::PlacementStatus;
use crate::deployment::build::{Frozen, config_map};
use crate::deployment::demand::{self, Chosen, choose};
use crate::deployment::health::Problem;
use crate::deployment::observe::pods_now;
use crate::deployment::plan::plan;
use crate::deployment::reason::Reason;
use crate::deployment::rebook::{Evidence, Rebooked, rebook, unbooked};
use crate::deployment::revision::{Revision, Weights, revision};
use crate::deployment::rollout::{Situation, steps, strays, unseen};
use crate::deployment::status;
use crate::deployment::validate::Validated;
use crate::fleet::demand::Reach;
use crate::fleet::{Demand, Outcome};
use crate::owner::owns;
use crate::telemetry::chain;

/// What every replica is to be.
struct Target<'a> {
    chosen: Chosen,
    frozen: Frozen,
    inspection: &'a Inspection,
}

impl Scene<'_> {
    /// What every replica is to be, once the model is known, or why that cannot be said.
    fn target(&self, validated: &Validated) -> Option<Result<Target<'_>, Problem>> {
        let model = self.observed.model.as_ref().filter(|_| !self.observed.model_goes());
        let status = model?.status.as_ref()?;
        let (weights, inspection) = (Weights::of(status)?, status.inspection.as_ref()?);
        let ready = find(&status.conditions, status::READY);
        let ready = ready.is_some_and(|c| c.status == ConditionStatus::True.name());
        if !ready && self.recorded().is_empty() && self.observed.pods.is_empty() {
            return None;
        }
        let chosen = choose(&self.llm.spec, validated, inspection, self.simulates());
        let chosen =
            chosen.map_err(|error| Problem { reason: Reason::CannotBePlanned, message: chain(&error) });
        Some(chosen.and_then(|chosen| {
            let revision = revision(&self.llm.name_any(), &self.llm.spec, &weights, chosen.capacity);
            let frozen = self.frozen(revision)?;
            Ok(Target { chosen, frozen, inspection })
        }))
    }

    /// Bookings of pods that no status has: it was lost, or never was this object's. The API server has the last word on
    /// whether such a pod is there.
    async fn rebook(&self) -> Result<Rebooked, Error> {
        let (name, uid) = (self.llm.name_any(), self.llm.uid().unwrap_or_default());
        let model = self.observed.model.as_ref().and_then(|model| model.status.as_ref()?.inspection.as_ref());
        let frozen = config_map::read_all(self.observed.config_maps.values().map(AsRef::as_ref));
        let evidence = Evidence { owner: (&name, &uid), known: self.recorded(), frozen: &frozen, model };
        let names = unbooked(&evidence, &self.observed.pods);
        let namespace = self.llm.namespace().unwrap_or_default();
        let mut pods = pods_now(&self.context.client, &namespace, names.into_iter().collect()).await?;
        pods.retain(|_, pod| owns(self.llm, pod.as_ref()));
        Ok(rebook(&evidence, &pods))
    }

    /// Finds out which bookings and pods stay and go; asks for the bookings that are missing, and records them.
    pub(super) async fn places(&self, validated: &Validated) -> Result<Found, Error> {
        let (target, why_not) = match self.target(validated).transpose() {
            Ok(target) => (target, None),
            Err(why_not) => (None, Some(Err(why_not))),
        };
        let Rebooked { bookings, unclear } = self.rebook().await?;
        let placed: Vec<PlacementStatus> = self.recorded().iter().cloned().chain(bookings).collect();
        let mut situation = Situation {
            owner: (&validated.owner.1, &validated.uid),
            target: target.as_ref().map(|target| target.frozen.revision.hash.as_str()),
            replicas: validated.replicas,
            placement: &placed,
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
        self.context.applier.patch_placement(self.llm, self.recorded(), &plan.placement).await?;
        let recorded = self.recorded() != plan.placement;
        let booked = placed.iter().chain(&plan.placement);
        let mut strays = strays(&validated.owner.1, booked, &self.observed.pods);
        strays.retain(|pod| !unclear.contains(pod));
        let (frozen, chosen) = target.map(|t| (t.frozen, Ok(t.chosen))).unzip();
        let (chosen, wake_at) = (chosen.or(why_not), steps.wake_at);
        Ok(Found { chosen, frozen, plan, strays, refused, unknown, wake_at, recorded })
    }

    /// What the revision's ConfigMap says, if there is one: another operator's image is kept.
    ///
    /// What a newer operator made is beyond this one, be it this revision or another that pods are of: they would be
    /// restarted for reasons that this one does not know.
    fn frozen(&self, revision: Revision) -> Result<Frozen, Problem> {
        let mut used: BTreeSet<&str> =
            self.observed.pods.values().filter_map(|p| revision_of(p.as_ref())).collect();
        used.insert(&revision.hash);
        let maps = self
            .observed
            .config_maps
            .values()
            .filter(|map| revision_of(map.as_ref()).is_some_and(|r| used.contains(r)));
        let mut written = None;
        for map in maps {
            let name = map.name_any();
            match config_map::read(map) {
                Err(error) if error.is_newer() => {
                    let why = chain(&error);
                    let message = format!(
                        "a newer operator made ConfigMap {name}: {why}; pods are left as they are until this operator \
                         is upgraded"
                    );
                    return Err(Problem { reason: Reason::NewerOperator, message });
                }
                Err(error) => {
                    tracing::warn!(
                        name,
                        error = chain(&error),
                        "a revision cannot be read: taking its own values"
                    );
                }
                Ok(frozen) if frozen.revision.hash == revision.hash => written = Some(frozen),
                Ok(_) => {}
            }
        }
        Ok(written.unwrap_or_else(|| Frozen::new(revision, &self.context.settings)))
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
