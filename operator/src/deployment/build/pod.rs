//! The pod of one booking.
//!
//! In: the deployment, a frozen revision, a booking. Out: a pod that Pod Security `restricted` admits. It must not
//! know why the booking was made.

use contract::bytes::BytesError;
use contract::config::{
    CONFIG_DIR, CONFIG_FILE, ENV_BUDGET, ENV_CONCURRENCY, ENV_SIMULATED_DEVICE, MODELS_DIR,
};
use contract::device::DeviceClass;
use contract::exit::TERMINATION_LOG;
use contract::http::{ADMIN_PORT, ADMIN_PORT_NAME, API_PORT, API_PORT_NAME, HEALTHZ, METRICS, READYZ};
use contract::{Bytes, labels};
use k8s_openapi::api::core::v1::{
    Affinity, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, HTTPGetAction,
    KeyToPath, LocalObjectReference, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    PersistentVolumeClaimVolumeSource, Pod, PodSpec, Probe, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::config_map::Frozen;
use super::resources;
use crate::api::LlmDeployment;
use crate::api::deployment::{self as api, LlmDeploymentSpec, PlacementStatus};
use crate::args::RuntimeArgs;
use crate::deployment::names::{self, COMPONENT, Labels};
use crate::fleet::card::GPU_RESOURCE;
use crate::security;

/// Names of the volumes.
const WEIGHTS: &str = "weights";
const CONFIG: &str = "config";
const TEMPORARY: &str = "tmp";
const SHARED_MEMORY: &str = "shm";
/// Seconds past draining before the kubelet kills: the runtime still accepts for a few seconds while endpoints
/// converge, and then gives its memory back.
const GRACE_MARGIN_SECONDS: u32 = 30;

/// All that a pod follows from.
#[derive(Clone, Copy, Debug)]
pub struct PodPlan<'a> {
    /// Whose pod it is, and what it asks its pods to carry.
    pub owner: &'a LlmDeployment,
    /// The revision that the pod serves.
    pub frozen: &'a Frozen,
    /// What it spends, and where.
    pub booking: &'a PlacementStatus,
    /// Bytes of the card that is simulated; `None` on a real one.
    pub simulated: Option<Bytes>,
    /// RuntimeClass of pods with cards, where the cluster has one.
    pub runtime_class: Option<&'a str>,
    /// What the operator was given for all pods.
    pub settings: &'a RuntimeArgs,
}

/// The pod of a booking.
///
/// The kubelet restarts its container, with a growing delay: most causes of an exit go by themselves (a card that is
/// still being freed, a volume that comes back), the booking stays as it is meanwhile, and the exit report stays
/// readable as the last state of the container. A pod that failed as a whole (evicted, rejected) is never restarted,
/// and its replica gets another booking.
///
/// # Errors
/// A booking whose bytes do not fit in 64 bits.
pub fn pod(plan: &PodPlan) -> Result<Pod, BytesError> {
    let PodPlan { owner, frozen, booking, runtime_class, .. } = plan;
    let (name, revision) = (owner.name_any(), &frozen.revision);
    let serving = owner.spec.serving.clone().unwrap_or_default();
    let mut pod_labels = names::foreign(&serving.pod_labels);
    pod_labels.extend(names::pod_labels(&name, &revision.hash, booking.replica, &booking.booking));
    let pod_name = names::pod(&name, &revision.hash, booking.replica, &booking.booking);
    let mut metadata = super::metadata(owner, pod_name, pod_labels);
    let mut annotations = names::foreign(&serving.pod_annotations);
    if !plan.settings.no_scrape_annotations {
        annotations.extend(scrape());
    }
    annotations.insert(labels::BOOKED.to_owned(), super::booked::write(booking));
    metadata.annotations = Some(annotations);
    let placement = owner.spec.placement.clone().unwrap_or_default();
    let on_card = revision.config.device == DeviceClass::Nvidia;
    let grace = revision.config.drain_seconds.saturating_add(GRACE_MARGIN_SECONDS);
    let spec = PodSpec {
        restart_policy: Some("Always".to_owned()),
        termination_grace_period_seconds: Some(grace.into()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        image_pull_secrets: Some(pull_secrets(&plan.settings.image_pull_secrets, &serving)),
        runtime_class_name: runtime_class.filter(|_| on_card).map(str::to_owned),
        priority_class_name: placement.priority_class_name,
        security_context: Some(security::of_pod(plan.settings.pod_identity)),
        affinity: Some(on_node(&booking.node)),
        tolerations: Some(tolerations(&owner.spec)),
        containers: vec![container(plan)?],
        volumes: Some(volumes(&names::config_map(&name, &revision.hash), &revision.claim, booking.devices)),
        ..PodSpec::default()
    };
    Ok(Pod { metadata, spec: Some(spec), status: None })
}

/// The taints that pods of this spec tolerate; those of nodes with cards among them, if it takes cards.
#[must_use]
pub fn tolerations(spec: &LlmDeploymentSpec) -> Vec<Toleration> {
    let asked = spec.placement.iter().flat_map(|placement| &placement.tolerations).map(toleration);
    let cards = (spec.accelerator.class == DeviceClass::Nvidia).then(|| Toleration {
        key: Some(GPU_RESOURCE.to_owned()),
        operator: Some("Exists".to_owned()),
        ..Toleration::default()
    });
    let mut all: Vec<Toleration> = Vec::new();
    for toleration in asked.chain(cards) {
        if !all.contains(&toleration) {
            all.push(toleration);
        }
    }
    all
}

fn toleration(asked: &api::Toleration) -> Toleration {
    let api::Toleration { key, operator, value, effect, toleration_seconds } = asked;
    let operator = match operator {
        api::TolerationOperator::Equal => "Equal",
        api::TolerationOperator::Exists => "Exists",
    };
    let effect = effect.map(|effect| match effect {
        api::TaintEffect::NoSchedule => "NoSchedule",
        api::TaintEffect::PreferNoSchedule => "PreferNoSchedule",
        api::TaintEffect::NoExecute => "NoExecute",
    });
    Toleration {
        key: key.clone(),
        operator: Some(operator.to_owned()),
        value: value.clone(),
        effect: effect.map(str::to_owned),
        toleration_seconds: *toleration_seconds,
    }
}

fn container(plan: &PodPlan) -> Result<Container, BytesError> {
    let PodPlan { owner, frozen, booking, simulated, .. } = plan;
    let budget = booking.memory.total()?;
    let variable = |(name, value): (&str, u64)| EnvVar {
        name: name.to_owned(),
        value: Some(value.to_string()),
        value_from: None,
    };
    let of_booking = [(ENV_BUDGET, budget.0), (ENV_CONCURRENCY, u64::from(booking.concurrency))];
    let of_device = simulated.map(|bytes| (ENV_SIMULATED_DEVICE, bytes.0));
    Ok(Container {
        name: COMPONENT.to_owned(),
        image: Some(frozen.image.clone()),
        image_pull_policy: Some(frozen.image_pull_policy.clone()),
        args: Some(["serve", "--config", &format!("{CONFIG_DIR}/{CONFIG_FILE}")].map(str::to_owned).into()),
        env: Some(of_booking.into_iter().chain(of_device).map(variable).collect()),
        ports: Some(vec![port(API_PORT_NAME, API_PORT), port(ADMIN_PORT_NAME, ADMIN_PORT)]),
        resources: Some(resources::requirements(&owner.spec, booking, simulated.is_some())),
        // The process answers before it loads, so neither probe has anything to do with how long loading takes.
        startup_probe: Some(probe(HEALTHZ, 1, 120)),
        readiness_probe: Some(probe(READYZ, 1, 3)),
        // A busy process may be slow to answer; a minute without any answer is no longer that.
        liveness_probe: Some(probe(HEALTHZ, 10, 6)),
        security_context: Some(security::of_container()),
        termination_message_path: Some(TERMINATION_LOG.to_owned()),
        termination_message_policy: Some("File".to_owned()),
        volume_mounts: Some(mounts(booking.devices)),
        ..Container::default()
    })
}

fn port(name: &str, port: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(port),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(ADMIN_PORT_NAME.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        // Computing takes all cores, so an answer may take longer than the usual second.
        timeout_seconds: Some(5),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(read_only),
        ..VolumeMount::default()
    }
}

fn mounts(devices: u32) -> Vec<VolumeMount> {
    let mut mounts = vec![
        mount(CONFIG, CONFIG_DIR, true),
        mount(WEIGHTS, MODELS_DIR, true),
        mount(TEMPORARY, "/tmp", false),
    ];
    mounts.extend(resources::shared_memory(devices).map(|_| mount(SHARED_MEMORY, "/dev/shm", false)));
    mounts
}

/// The claim is read-only as a volume too: the kubelet then changes nobody's files to the pod's group.
fn volumes(config_map: &str, claim: &str, devices: u32) -> Vec<Volume> {
    let shared_memory = resources::shared_memory(devices).map(|size| Volume {
        name: SHARED_MEMORY.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: Some("Memory".to_owned()),
            size_limit: Some(Quantity(size.0.to_string())),
        }),
        ..Volume::default()
    });
    let runtime_file = KeyToPath { key: CONFIG_FILE.to_owned(), path: CONFIG_FILE.to_owned(), mode: None };
    let mut volumes = vec![
        Volume {
            name: CONFIG.to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: config_map.to_owned(),
                items: Some(vec![runtime_file]),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: WEIGHTS.to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.to_owned(),
                read_only: Some(true),
            }),
            ..Volume::default()
        },
        Volume {
            name: TEMPORARY.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(Quantity(resources::TEMPORARY_SIZE.to_owned())),
                medium: None,
            }),
            ..Volume::default()
        },
    ];
    volumes.extend(shared_memory);
    volumes
}

/// By the node's name as a field: its hostname label may be another, and anybody may change it.
fn on_node(node: &str) -> Affinity {
    let requirement = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![requirement]), match_expressions: None };
    Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: vec![term],
            }),
            preferred_during_scheduling_ignored_during_execution: None,
        }),
        ..Affinity::default()
    }
}

fn pull_secrets(settings: &[String], serving: &api::ServingSpec) -> Vec<LocalObjectReference> {
    let mut names: Vec<&String> = Vec::new();
    for name in settings.iter().chain(serving.image_pull_secrets.iter().map(|secret| &secret.name)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.into_iter().map(|name| LocalObjectReference { name: name.clone() }).collect()
}

fn scrape() -> Labels {
    [
        (labels::SCRAPE, "true".to_owned()),
        (labels::SCRAPE_PORT, ADMIN_PORT.to_string()),
        (labels::SCRAPE_PATH, METRICS.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}
