//! The job that fetches and inspects, or only inspects.

use std::collections::BTreeSet;

use contract::config::MODELS_DIR;
use contract::fetch::{FetchFile, FetchSpec};
use contract::http::{ADMIN_PORT, ADMIN_PORT_NAME};
use contract::labels::{ATTEMPT, MADE_FROM};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EmptyDirVolumeSource, LocalObjectReference, PersistentVolumeClaimVolumeSource,
    PodSpec, PodTemplateSpec, ResourceRequirements, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::{COMPONENT, labels_of};
use crate::api::LlmModel;
use crate::args::RuntimeArgs;
use crate::deployment::build::resources::{EPHEMERAL, TEMPORARY_SIZE};
use crate::deployment::names::digest;
use crate::model::claim::claim_name;
use crate::model::plan::Wishes;
use crate::security;

/// Name of the volume with the weights.
const WEIGHTS: &str = "weights";
/// Name of the volume for temporary files.
const TEMPORARY: &str = "tmp";
/// What a fetch asks for. Its work is waiting for the network and hashing.
const REQUESTS: [(&str, &str); 3] =
    [("cpu", "250m"), ("memory", "128Mi"), ("ephemeral-storage", EPHEMERAL.0)];
/// What a fetch never exceeds. Files are streamed, so it does not depend on their size. Every limit is named, since a
/// quota of limits refuses pods that leave one out, and nobody could name it here; and that of the processor is near what
/// is asked for, since a LimitRange may bound both a limit and its ratio to the request.
const LIMITS: [(&str, &str); 3] = [("cpu", "1"), ("memory", "512Mi"), ("ephemeral-storage", EPHEMERAL.1)];

/// Name of the job of one attempt.
#[must_use]
pub fn job_name(model: &str, attempt: u32) -> String {
    format!("{model}-{COMPONENT}-{attempt}")
}

/// The job of one attempt.
///
/// It tries once: when to try again is decided by who watches it. It cannot be changed, so another attempt is
/// another job.
#[must_use]
pub fn job(model: &LlmModel, attempt: u32, settings: &RuntimeArgs, wishes: Wishes) -> Job {
    let mut metadata = super::metadata(model, job_name(&model.name_any(), attempt));
    metadata.labels.get_or_insert_default().insert(ATTEMPT.to_owned(), attempt.to_string());
    let made_from = made_from(model, settings, wishes.clone());
    metadata.annotations.get_or_insert_default().insert(MADE_FROM.to_owned(), made_from);
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels_of(model)), ..ObjectMeta::default() }),
        spec: Some(pod(model, settings, wishes)),
    };
    Job {
        metadata,
        spec: Some(JobSpec { backoff_limit: Some(0), template, ..JobSpec::default() }),
        status: None,
    }
}

/// What the pod of a job is made from, in short: it tells whether a job made now would be another. The nodes that it must
/// run on are left out: its own pod is among those who read there. Nor are pods compared: what the cluster adds to them
/// would be a difference for ever.
#[must_use]
pub fn made_from(model: &LlmModel, settings: &RuntimeArgs, wishes: Wishes) -> String {
    let pod = pod(model, settings, Wishes { nodes: BTreeSet::new(), ..wishes });
    digest(&serde_json::to_string(&pod).expect("a pod is strings, numbers and lists of them"))
}

fn pod(model: &LlmModel, settings: &RuntimeArgs, wishes: Wishes) -> PodSpec {
    let read_only = model.spec.source.persistent_volume_claim.is_some();
    let affinity = wishes.affinity();
    let Wishes { tolerations, priority_class_name, image_pull_secrets, .. } = wishes;
    let mut secrets = settings.image_pull_secrets.clone();
    secrets.extend(image_pull_secrets.into_iter().filter(|name| !settings.image_pull_secrets.contains(name)));
    let secret = |name: String| LocalObjectReference { name };
    let weights = Volume {
        name: WEIGHTS.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(model),
            read_only: Some(read_only),
        }),
        ..Volume::default()
    };
    let temporary = Volume {
        name: TEMPORARY.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity(TEMPORARY_SIZE.to_owned())),
            medium: None,
        }),
        ..Volume::default()
    };
    PodSpec {
        restart_policy: Some("Never".to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        priority_class_name,
        image_pull_secrets: Some(secrets.into_iter().map(secret).collect()),
        security_context: Some(security::of_pod(settings.pod_identity)),
        affinity,
        tolerations: Some(tolerations),
        containers: vec![container(model, settings, read_only)],
        volumes: Some(vec![weights, temporary]),
        ..PodSpec::default()
    }
}

fn container(model: &LlmModel, settings: &RuntimeArgs, read_only: bool) -> Container {
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(read_only),
        ..VolumeMount::default()
    };
    let amounts = |list: &[(&str, &str)]| {
        Some(list.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect())
    };
    Container {
        name: COMPONENT.to_owned(),
        image: Some(settings.runtime_image.clone()),
        image_pull_policy: Some(settings.image_pull_policy.clone()),
        args: Some(arguments(model)),
        ports: Some(vec![ContainerPort {
            name: Some(ADMIN_PORT_NAME.to_owned()),
            container_port: i32::from(ADMIN_PORT),
            ..ContainerPort::default()
        }]),
        resources: Some(ResourceRequirements {
            requests: amounts(&REQUESTS),
            limits: amounts(&LIMITS),
            ..ResourceRequirements::default()
        }),
        security_context: Some(security::of_container()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(vec![mount(WEIGHTS, MODELS_DIR, read_only), mount(TEMPORARY, "/tmp", false)]),
        ..Container::default()
    }
}

fn arguments(model: &LlmModel) -> Vec<String> {
    let source = &model.spec.source;
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match (&source.http, &source.persistent_volume_claim) {
        (Some(http), _) => {
            let file = |file: &crate::api::shared::HttpFile| FetchFile {
                url: file.url.clone(),
                sha256: file.sha256.clone(),
                path: file.path.clone(),
            };
            let spec = FetchSpec { files: http.files.iter().map(file).collect() }.to_json();
            words(&["fetch", "--spec", &spec, "--output", MODELS_DIR, "--line"])
        }
        (None, claim) => {
            let path = claim.as_ref().map(|claim| claim.path.as_str()).unwrap_or_default();
            let path = format!("{MODELS_DIR}/{path}");
            words(&["inspect", "--line", path.trim_end_matches('/')])
        }
    }
}
