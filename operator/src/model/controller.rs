//! The loop over models: observe ⇒ plan → build ⇒ apply → status ⇒ patch.
//!
//! In: models and what changes around them. Out: writes. It decides nothing.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use tokio::sync::broadcast::Receiver;
use tokio_util::sync::CancellationToken;

use super::build;
use super::claim::claim_name;
use super::observe::{self, Observed, observe};
use super::plan::{Keep, Plan, is_left_alone, plan};
use super::status::{self, STALLED};
use crate::api::condition::ConditionStatus;
use crate::api::{LlmDeployment, LlmModel};
use crate::apply::{self, Desired, has_finalizer, owner_of};
use crate::cache::{Stores, Touched, kind_of};
use crate::context::Context;
use crate::controller::{CHANGED, Loop, Next, REFUSED};
use crate::events::transitions;
use crate::recent::Recent;
use crate::telemetry::chain;

/// When to look again at what is being removed. What is deleted is also told by the watches; what holds it may be told
/// by none.
const GOING: Duration = Duration::from_secs(5);

/// A pass that failed for a passing reason.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// Something could not be read.
    #[error("cannot observe the model")]
    Observe(#[from] observe::Error),
    /// Something could not be written.
    #[error("cannot bring the model further")]
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

/// Looks after all models until shutdown.
pub async fn run(context: Arc<Context>, changes: Receiver<Touched>, shutdown: CancellationToken) {
    let recent = Arc::new(Recent::default());
    let stores = context.stores.clone();
    let this = Loop {
        store: context.stores.models.clone(),
        changes,
        affected: Box::new(move |touched| affected(touched, &stores)),
        shutdown,
    };
    let pass = move |model: Arc<LlmModel>, context: Arc<Context>| reconcile(model, context, recent.clone());
    crate::controller::run(this, context, pass, Error::category).await;
}

/// Which models a change may matter to.
fn affected(touched: &Touched, stores: &Stores) -> Vec<ObjectRef<LlmModel>> {
    let Touched { kind, namespace, name, deployment: _, model, spec_changed, news } = touched;
    let of = |model: &str| ObjectRef::new(model).within(namespace);
    let with_claim = |is_it: &dyn Fn(&String) -> bool| {
        let here =
            |model: &LlmModel| model.namespace().as_ref() == Some(namespace) && is_it(&claim_name(model));
        stores.models.state_filter(here).iter().map(|model| ObjectRef::from_obj(model.as_ref())).collect()
    };
    if *kind == kind_of::<LlmModel>() {
        vec![of(name)]
    } else if let Some(model) = model {
        vec![of(model)]
    } else if *kind == "PersistentVolumeClaim" {
        with_claim(&|claim| claim == name)
    } else if *kind == kind_of::<LlmDeployment>() && *spec_changed {
        news.models.iter().map(|model| of(model)).collect()
    } else if !news.claims.is_empty() {
        with_claim(&|claim| news.claims.contains(claim))
    } else {
        Vec::new()
    }
}

/// Brings the cluster one step closer to what `model` asks for.
///
/// Every pass starts from observation and assumes nothing of why it runs. The status is written on every exit, also
/// when applying was refused or something failed.
async fn reconcile(model: Arc<LlmModel>, context: Arc<Context>, recent: Arc<Recent>) -> Result<Next, Error> {
    let result = pass(model.clone(), &context, &recent).await;
    if let Err(error) = &result {
        tell(&model, &context, error).await;
    }
    result
}

/// Says in the status that a pass failed for a passing reason. Where not even that can be written, the log says so.
async fn tell(model: &LlmModel, context: &Context, error: &Error) {
    let Some(words) = context.trouble(model, error) else { return };
    // The pass may have written a status before it failed.
    let Some(now) = context.stores.models.get(&ObjectRef::from_obj(model)) else { return };
    let status = status::troubled(&now, words, Timestamp::now());
    let written = context.applier.patch_status(now.as_ref(), now.status.as_ref(), &status).await;
    if let Err(error) = written {
        tracing::debug!(error = chain(&error), "the status cannot tell of a failed pass");
    }
}

async fn pass(model: Arc<LlmModel>, context: &Context, recent: &Recent) -> Result<Next, Error> {
    if is_left_alone(&model) {
        return Ok(Next::OnChange);
    }
    if model.meta().deletion_timestamp.is_none() && !has_finalizer(model.as_ref()) {
        context.applier.add_finalizer(model.as_ref()).await?;
        return Ok(Next::OnChange);
    }
    let observed = observe(model.clone(), context, recent).await?;
    if model.meta().deletion_timestamp.is_none() && adopt(&observed, context).await? {
        return Ok(Next::After(CHANGED));
    }
    match plan(&observed, &context.settings) {
        Plan::Retire => {
            // The store may not have the deployment yet that this model was made for.
            let (users, readers) = observe::users_now(&model, context).await?;
            if users.is_empty() && readers.is_empty() {
                context.applier.delete(model.as_ref()).await?;
            }
            Ok(Next::OnChange)
        }
        Plan::Remove { jobs, claim } => {
            if jobs.is_empty() && claim.is_none() {
                context.applier.remove_finalizer(model.as_ref()).await?;
                return Ok(Next::OnChange);
            }
            for job in &jobs {
                context.applier.delete(job.as_ref()).await?;
            }
            if let Some(claim) = claim {
                context.applier.delete(claim.as_ref()).await?;
            }
            let status = status::removing(&observed, Timestamp::now());
            context.applier.patch_status(model.as_ref(), model.status.as_ref(), &status).await?;
            Ok(Next::After(GOING))
        }
        Plan::Keep(keep) => bring_further(&observed, &keep, context).await,
    }
}

/// Takes over what a model of the same name has left. Tells whether there was anything: it is looked at in another pass.
async fn adopt(observed: &Observed, context: &Context) -> Result<bool, Error> {
    let (claim, jobs) = (observed.left_claim(), &observed.left_jobs);
    if claim.is_none() && jobs.is_empty() {
        return Ok(false);
    }
    // Names are unique: as long as this very object is there, the former owner of its name is not.
    if observe::is_current(&observed.model, &context.client).await? {
        let owner = owner_of(observed.model.as_ref());
        if let Some(claim) = claim {
            context.applier.adopt(&owner, claim.as_ref()).await?;
        }
        for job in jobs {
            context.applier.adopt(&owner, job.as_ref()).await?;
        }
    }
    Ok(true)
}

async fn bring_further(observed: &Observed, keep: &Keep, context: &Context) -> Result<Next, Error> {
    let model = observed.model.as_ref();
    let mut desired = Vec::new();
    if keep.make_claim {
        desired.push(Desired::create_only(&build::claim(model), None));
    }
    if let Some((attempt, wishes)) = &keep.start {
        desired.push(Desired::create_only(
            &build::job(model, *attempt, &context.settings, wishes.clone()),
            None,
        ));
    }
    let applied = context.applier.apply(desired).await?;
    let status = status::status(observed, keep, &applied, Timestamp::now());
    let old = model.status.as_ref();
    let discards = applied.refusal().is_none() && !keep.discard.is_empty();
    // What jobs said is written down before they go. Trouble that is told stays until they have gone: taken back before
    // that, it would come and go with every try, and each such change would call for the next one at once.
    let first = if discards { status::still_troubled(status.clone(), model) } else { status.clone() };
    context.applier.patch_status(model, old, &first).await?;
    let before = old.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let stalled = |type_: &str, holds: &str| type_ == STALLED && holds == ConditionStatus::True.name();
    let is_stalled = status.conditions.iter().any(|c| stalled(&c.type_, &c.status));
    let mut notes = transitions(before, &status.conditions, |_| is_stalled);
    // One condition summarises the others.
    notes.retain(|note| note.action == status::READY);
    context.events.publish(&model.object_ref(&()), notes).await;
    if applied.refusal().is_some() {
        return Ok(Next::After(REFUSED));
    }
    for job in &keep.discard {
        context.applier.delete(job.as_ref()).await?;
    }
    context.applier.patch_status(model, Some(&first), &status).await?;
    Ok(keep.next)
}
