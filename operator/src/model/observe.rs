//! What is known of a model: the only place of this pipeline that reads.
//!
//! In: stores, and calls where stores do not suffice: the log of a job that ended, events about what does not get on,
//! the progress of a pod. Out: [`Observed`]. It must not decide anything but what is worth a call.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use contract::http::Phase;
use contract::inspect::Inspection;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{ListParams, LogParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Resource, ResourceExt};

use super::attempt::{self, State};
use super::build::job::job_name;
use super::build::marks;
use super::claim::{claim_is_foreign, claim_name};
use super::name;
use super::plan::is_left_alone;
use crate::api::shared::Progress;
use crate::api::{LlmDeployment, LlmModel};
use crate::apply::owner_of;
use crate::context::Context;
use crate::deployment::demand;
use crate::fleet::ledger::has_ended;
use crate::mounts;
use crate::owner::{Standing, owns, standing};
use crate::recent::{Pace, Recent};
use crate::telemetry::chain;
use crate::warnings;
use contract::labels;

/// Bytes of a job's log that are read: the line, and what a program may print beside it.
const LOG_BYTES: i64 = 64 << 10;
/// Lines of a job's log that are read, from its end.
const LOG_LINES: i64 = 20;

/// Label by which Kubernetes names the job of a pod.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";

/// What is known of a model.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The object.
    pub model: Arc<LlmModel>,
    /// The claim of its weights, whoever made it.
    pub claim: Option<Arc<PersistentVolumeClaim>>,
    /// Its jobs, by attempt.
    pub jobs: Vec<Arc<Job>>,
    /// Jobs that nobody controls any more, of a model of this name.
    pub left_jobs: Vec<Arc<Job>>,
    /// The newest pod of its newest job.
    pub pod: Option<Arc<Pod>>,
    /// Deployments that are to serve it or still do, by name.
    pub users: Vec<Arc<LlmDeployment>>,
    /// Names of deployments, there or not, whose pods read what was fetched for it.
    pub readers: BTreeSet<String>,
    /// Nodes that read the claim now, if only one can at a time.
    pub read_on: BTreeSet<String>,
    /// Why events that were asked for are not known.
    pub unread: Option<String>,
    /// Why the claim gets no volume, in the provisioner's words.
    pub claim_warning: Option<String>,
    /// Why the job gets no pod, in the job controller's words.
    pub job_warning: Option<String>,
    /// What the log of the job says, once the job has ended well and it is not recorded yet.
    pub log: Option<Log>,
    /// How far the job is.
    pub progress: Option<Progress>,
    /// For how long this process has known that the newest job is over.
    pub over_for: Duration,
    /// For how long this process has known the newest job.
    pub known_for: Duration,
}

/// What a log says.
#[derive(Clone, Debug)]
pub enum Log {
    /// The line.
    Found(Box<Inspection>),
    /// No line, or one that says nothing.
    Unusable(String),
    /// It cannot be had now.
    Unreadable(String),
}

/// A read that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model itself, deployments that may use it, or what it made.
    #[error("cannot list {0}")]
    List(&'static str, #[source] kube::Error),
}

impl Observed {
    /// A model of which nothing else is known yet.
    #[must_use]
    pub const fn of(model: Arc<LlmModel>) -> Self {
        Self {
            model,
            claim: None,
            jobs: Vec::new(),
            left_jobs: Vec::new(),
            pod: None,
            users: Vec::new(),
            readers: BTreeSet::new(),
            read_on: BTreeSet::new(),
            unread: None,
            claim_warning: None,
            job_warning: None,
            log: None,
            progress: None,
            over_for: Duration::ZERO,
            known_for: Duration::ZERO,
        }
    }

    /// The claim, if a model of this name has left it.
    #[must_use]
    pub fn left_claim(&self) -> Option<&Arc<PersistentVolumeClaim>> {
        let stays = |claim: &&Arc<PersistentVolumeClaim>| claim.meta().deletion_timestamp.is_none();
        let left =
            |claim: &&Arc<PersistentVolumeClaim>| standing_of(&self.model, claim.as_ref()) == Standing::Left;
        self.claim.as_ref().filter(stays).filter(left).filter(|_| !claim_is_foreign(&self.model))
    }

    /// What was read; that nothing could be read is worth knowing too, and no reason not to go on.
    fn known_of<T>(&mut self, read: Result<Option<T>, String>) -> Option<T> {
        read.unwrap_or_else(|error| {
            self.unread = Some(error);
            None
        })
    }
}

/// Reads what is known of a model.
///
/// While it is being deleted, the API server is asked instead of the stores, for what follows destroys data.
pub async fn observe(model: Arc<LlmModel>, context: &Context, recent: &Recent) -> Result<Observed, Error> {
    let namespace = model.namespace().unwrap_or_default();
    let stores = &context.stores;
    let pods = stores.pods.state();
    let readers = readers(&model, &pods);
    let mut observed = Observed {
        users: users(&model, stores.deployments.state(), &readers),
        readers,
        left_jobs: left_jobs(&model, stores.jobs.state()),
        claim: stores.claims.get(&ObjectRef::new(&claim_name(&model)).within(&namespace)),
        jobs: jobs_of(&model, stores.jobs.state()),
        ..Observed::of(model)
    };
    if let Some(claim) = observed.claim.as_deref().filter(|claim| demand::is_of_one_node(claim)) {
        observed.read_on = demand::readers((&namespace, &claim.name_any()), &pods, []);
    }
    if observed.model.meta().deletion_timestamp.is_some() {
        return ask_again(observed, context).await;
    }
    let Some(job) = observed.jobs.last().cloned() else { return Ok(observed) };
    observed.pod = newest_pod(&job, stores.pods.state());
    let uid = job.uid().unwrap_or_default();
    observed.known_for = recent.known_for(&uid);
    let recorded = observed.known().is_some();
    let read = |pod: Option<&Pod>| attempt::read(&job, pod).state;
    let mut state = read(observed.pod.as_deref());
    let is_over = matches!(state, State::Succeeded | State::Failed(_));
    if is_over && !recorded && !observed.pod.as_deref().is_some_and(has_ended) {
        // What the pod found, or why it ended, decides what is made next; and the store may be behind.
        observed.pod = newest_pod(&job, pods_now(context, &job).await?);
        state = read(observed.pod.as_deref());
    }
    match &state {
        State::NoPod => {
            let warning = warning(&context.client, job.as_ref()).await;
            let warning = observed.known_of(warning);
            observed.job_warning = warning.map(|words| warnings::of_any_pod(&words, &job.name_any()));
        }
        State::Starting | State::Blocked(_) => {
            if let Some(claim) = observed.claim.clone().filter(|claim| is_pending(claim)) {
                let warning = warning(&context.client, claim.as_ref()).await;
                observed.claim_warning = observed.known_of(warning);
            }
        }
        State::Running(Some(address)) => {
            observed.progress = recent.pace(&uid, address).await.as_ref().map(progress);
        }
        State::Running(None) => {}
        State::Succeeded if !recorded => {
            observed.log = Some(log(&context.client, &namespace, observed.pod.as_deref()).await);
        }
        State::Succeeded | State::Failed(_) => {}
    }
    if matches!(state, State::Succeeded | State::Failed(_)) {
        observed.over_for = recent.over_for(&uid);
    }
    Ok(observed)
}

async fn ask_again(mut observed: Observed, context: &Context) -> Result<Observed, Error> {
    let namespace = observed.model.namespace().unwrap_or_default();
    (observed.users, observed.readers) = users_now(&observed.model, context).await?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &namespace);
    let claim = claims.get_opt(&claim_name(&observed.model)).await;
    observed.claim = claim.map_err(|error| Error::List("claims", error))?.map(Arc::new);
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &namespace);
    let ours = ListParams::default().labels(&format!("{}={}", labels::MODEL, observed.model.name_any()));
    let jobs = jobs.list(&ours).await.map_err(|error| Error::List("jobs", error))?;
    observed.jobs = jobs_of(&observed.model, jobs.items.into_iter().map(Arc::new).collect());
    Ok(observed)
}

/// Whether the API server has this very model now, neither going nor paused: then no other of its name is there.
pub async fn is_current(model: &LlmModel, client: &Client) -> Result<bool, Error> {
    let api: Api<LlmModel> = Api::namespaced(client.clone(), &model.namespace().unwrap_or_default());
    // All that is known of models is known from lists: this one needs no right of its own.
    let named = ListParams::default().fields(&format!("metadata.name={}", model.name_any()));
    let now = api.list(&named).await.map_err(|error| Error::List("models", error))?;
    let stays = |now: &LlmModel| now.meta().deletion_timestamp.is_none() && !is_left_alone(now);
    Ok(now.iter().any(|now| now.uid() == model.uid() && stays(now)))
}

/// Deployments that use the model, and those whose pods read it, as the API server has them now.
pub async fn users_now(
    model: &LlmModel,
    context: &Context,
) -> Result<(Vec<Arc<LlmDeployment>>, BTreeSet<String>), Error> {
    let namespace = model.namespace().unwrap_or_default();
    let api: Api<LlmDeployment> = Api::namespaced(context.client.clone(), &namespace);
    let all = api.list(&ListParams::default()).await.map_err(|error| Error::List("deployments", error))?;
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &namespace);
    let ours = ListParams::default().labels(labels::DEPLOYMENT);
    let pods = pods.list(&ours).await.map_err(|error| Error::List("pods", error))?;
    let pods: Vec<_> = pods.items.into_iter().map(Arc::new).collect();
    let readers = readers(model, &pods);
    Ok((users(model, all.items.into_iter().map(Arc::new).collect(), &readers), readers))
}

/// Names of deployments, there or not, whose pods still read what was fetched for the model.
fn readers(model: &LlmModel, pods: &[Arc<Pod>]) -> BTreeSet<String> {
    let claim = claim_name(model);
    let reads = |pod: &&Arc<Pod>| {
        !claim_is_foreign(model)
            && pod.namespace() == model.namespace()
            && !has_ended(pod)
            && mounts::claims(pod).any(|mounted| mounted == claim)
    };
    pods.iter().filter(reads).filter_map(|pod| pod.labels().get(labels::DEPLOYMENT)).cloned().collect()
}

/// Deployments whose spec names the model, and those with pods that still read what was fetched for it.
fn users(
    model: &LlmModel,
    all: Vec<Arc<LlmDeployment>>,
    readers: &BTreeSet<String>,
) -> Vec<Arc<LlmDeployment>> {
    let name = model.name_any();
    let uses = |user: &Arc<LlmDeployment>| {
        let named = name::served_by(&user.spec).as_ref() == Some(&name);
        user.namespace() == model.namespace() && (named || readers.contains(&user.name_any()))
    };
    let mut users: Vec<_> = all.into_iter().filter(uses).collect();
    users.sort_by_key(|user| user.name_any());
    users
}

fn jobs_of(model: &LlmModel, all: Vec<Arc<Job>>) -> Vec<Arc<Job>> {
    let mut jobs: Vec<_> = all.into_iter().filter(|job| owns(model, job.as_ref())).collect();
    jobs.sort_by_key(|job| attempt::number(job));
    jobs
}

fn left_jobs(model: &LlmModel, mut all: Vec<Arc<Job>>) -> Vec<Arc<Job>> {
    let name = model.name_any();
    all.retain(|job| {
        job.namespace() == model.namespace()
            // Labels are copied, by people and by tools; names are not.
            && job.name_any() == job_name(&name, attempt::number(job))
            && job.meta().deletion_timestamp.is_none()
            && standing_of(model, job.as_ref()) == Standing::Left
    });
    all
}

fn standing_of<K: Resource>(model: &LlmModel, object: &K) -> Standing {
    standing(&owner_of(model), &marks(&model.name_any()), object.meta())
}

/// Pods of a job, as the API server has them now.
async fn pods_now(context: &Context, job: &Job) -> Result<Vec<Arc<Pod>>, Error> {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &job.namespace().unwrap_or_default());
    let of_job = ListParams::default().labels(&format!("{JOB_NAME}={}", job.name_any()));
    let pods = api.list(&of_job).await.map_err(|error| Error::List("pods", error))?;
    Ok(pods.items.into_iter().map(Arc::new).collect())
}

fn newest_pod(job: &Job, all: Vec<Arc<Pod>>) -> Option<Arc<Pod>> {
    let of_job = |pod: &Arc<Pod>| owns(job, pod.as_ref());
    all.into_iter().filter(of_job).max_by_key(|pod| (pod.creation_timestamp(), pod.name_any()))
}

/// A job that fetches calls that loading.
fn progress(pace: &Pace) -> Progress {
    pace.progress(match pace.reported.phase {
        Phase::Starting => "Starting",
        Phase::Loading => "Fetching",
        Phase::SelfTest | Phase::WarmingUp | Phase::Ready | Phase::Draining => "Inspecting",
    })
}

fn is_pending(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Pending")
}

/// The newest warning about an object.
async fn warning<K: Resource<DynamicType = ()>>(
    client: &Client,
    object: &K,
) -> Result<Option<String>, String> {
    let events = warnings::about(client, object).await.map_err(|error| chain(&error))?;
    Ok(warnings::newest(&events).and_then(|event| event.message.clone()))
}

async fn log(client: &Client, namespace: &str, pod: Option<&Pod>) -> Log {
    let gone = || Log::Unusable("its pod is gone".to_owned());
    let Some(pod) = pod else { return gone() };
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let parameters =
        LogParams { tail_lines: Some(LOG_LINES), limit_bytes: Some(LOG_BYTES), ..LogParams::default() };
    let text = match api.logs(&pod.name_any(), &parameters).await {
        Ok(text) => text,
        Err(kube::Error::Api(status)) if status.code == 404 => return gone(),
        Err(error) => return Log::Unreadable(chain(&error)),
    };
    match Inspection::from_log(&text) {
        Some(Ok(inspection)) => Log::Found(Box::new(inspection)),
        Some(Err(error)) => Log::Unusable(chain(&error)),
        None => Log::Unusable("its log has no such line".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> T {
        serde_norway::from_str(text).unwrap()
    }

    #[test]
    fn who_still_reads_the_weights_is_a_user_whatever_the_spec_says() {
        let model = |source: &str| -> LlmModel {
            yaml(&format!(
                "{{apiVersion: llmfleet.dev/v1alpha1, kind: LlmModel, metadata: {{name: m, namespace: a}}, \
                 spec: {{source: {{{source}}}}}}}"
            ))
        };
        let deployment = |name: &str, model: &str| -> Arc<LlmDeployment> {
            Arc::new(yaml(&format!(
                "{{apiVersion: llmfleet.dev/v1alpha1, kind: LlmDeployment, metadata: {{name: {name}, \
                 namespace: a}}, spec: {{model: {{modelRef: {{name: {model}}}}}}}}}"
            )))
        };
        let pod = |of: &str, claim: &str, phase: &str| -> Arc<Pod> {
            Arc::new(yaml(&format!(
                "{{metadata: {{name: p, namespace: a, labels: {{llmfleet.dev/deployment: {of}}}}}, \
                 spec: {{containers: [], volumes: [{{name: w, persistentVolumeClaim: {{claimName: {claim}}}}}]}}, \
                 status: {{phase: {phase}}}}}"
            )))
        };
        let all = ["names", "edited", "ended", "other"]
            .map(|name| deployment(name, if name == "names" { "m" } else { "n" }));
        let pods = [pod("edited", "m", "Running"), pod("ended", "m", "Failed"), pod("other", "n", "Running")];
        let of = |source: &str| {
            let users = users(&model(source), all.to_vec(), &readers(&model(source), &pods));
            users.iter().map(|user| user.name_any()).collect::<Vec<_>>()
        };
        assert_eq!(of("http: {files: [{url: 'http://h/f', sha256: a, path: f}]}"), ["edited", "names"]);
        assert_eq!(of("persistentVolumeClaim: {claimName: m}"), ["names"], "that claim stays anyway");
    }
}
