//! Whole object sets, compared with files beside this one.
//!
//! After a change that is meant: `UPDATE_GOLDEN=1 cargo test -p llm-fleet-operator --lib deployment::build`, and read
//! the difference.

use std::path::PathBuf;

use contract::bytes::Bytes;
use contract::config::{CONFIG_DIR, CONFIG_FILE, ENV_BUDGET, ENV_SIMULATED_DEVICE, RuntimeConfig};
use contract::dtype::KvDType;
use contract::labels;
use contract::memory::{Capacity, MemoryPlan};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::config_map::{FrozenError, read};
use super::resources::{Load, share};
use super::*;
use crate::api::deployment::PlacementStatus;
use crate::args::RuntimeArgs;
use crate::deployment::names;
use crate::deployment::revision::{Weights, revision};
use crate::fleet::card::GPU_RESOURCE;
use crate::security::Identity;

/// Fixtures: the name of the pair of files, and the bytes of a simulated card.
const FIXTURES: [(&str, Option<Bytes>); 3] =
    [("cpu", None), ("nvidia", None), ("everything", Some(Bytes::mib(24 << 10)))];

struct Case {
    owner: LlmDeployment,
    frozen: Frozen,
    booking: PlacementStatus,
    simulated: Option<Bytes>,
    settings: RuntimeArgs,
}

impl Case {
    fn new(name: &str, simulated: Option<Bytes>) -> Self {
        let yaml = std::fs::read_to_string(file(&format!("{name}.yaml"))).unwrap();
        let owner: LlmDeployment = serde_norway::from_str(&yaml).unwrap();
        let settings = RuntimeArgs {
            runtime_image: "llm-fleet-runtime:1.0.0".to_owned(),
            runtime_cuda_image: Some("llm-fleet-runtime-cuda:1.0.0".to_owned()),
            image_pull_policy: "IfNotPresent".to_owned(),
            image_pull_secrets: vec!["of-the-operator".to_owned()],
            pod_identity: Identity::Fixed,
            no_scrape_annotations: false,
            allow_simulated_devices: simulated.is_some(),
        };
        let weights = Weights {
            claim: "smollm2".to_owned(),
            path: "smollm2.gguf".to_owned(),
            digest: format!("sha256:{}", "0f".repeat(32)),
        };
        let capacity = Capacity {
            context_length: owner.spec.capacity.context_length.unwrap_or(8192),
            concurrency: owner.spec.capacity.concurrency,
            kv_dtype: KvDType::F16,
        };
        let revision = revision(&owner.name_any(), &owner.spec, &weights, capacity);
        let memory = MemoryPlan {
            weights: Bytes(150_000_000),
            kv_cache: Bytes(75_497_472),
            activations: Bytes(20_000_000),
            runtime: Bytes::mib(96),
            reserve: Bytes(10_000_000),
        };
        let load = Load {
            budget: memory.total().unwrap(),
            largest_tensor: Bytes(50_000_000),
            devices: u32::from(owner.spec.accelerator.class != contract::device::DeviceClass::Cpu),
            simulated: simulated.is_some(),
        };
        let share = share(&owner.spec, &load).unwrap();
        let booking = PlacementStatus {
            replica: 2,
            booking: names::booking(&owner.uid().unwrap(), &revision.hash, 2, 1),
            revision: revision.hash.clone(),
            attempt: 1,
            node: "node-a".to_owned(),
            devices: load.devices,
            concurrency: capacity.concurrency,
            memory,
            host_memory: share.host_memory,
            cpu_millis: share.cpu_millis,
        };
        Self { frozen: Frozen::new(revision, &settings), owner, booking, simulated, settings }
    }

    fn plan(&self) -> PodPlan<'_> {
        PodPlan {
            owner: &self.owner,
            frozen: &self.frozen,
            booking: &self.booking,
            simulated: self.simulated,
            runtime_class: Some("nvidia"),
            settings: &self.settings,
        }
    }

    fn pod(&self) -> Pod {
        pod(&self.plan()).unwrap()
    }

    fn container(&self) -> Container {
        self.pod().spec.unwrap().containers.remove(0)
    }

    fn objects(&self) -> String {
        let objects = [
            serde_norway::to_string(&service(&self.owner)),
            serde_norway::to_string(&config_map(&self.owner, &self.frozen)),
            serde_norway::to_string(&self.pod()),
        ];
        objects.map(Result::unwrap).join("---\n")
    }
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/deployment/build/tests").join(name)
}

fn case(name: &str) -> Case {
    let (_, simulated) = FIXTURES.iter().find(|(fixture, _)| *fixture == name).unwrap();
    Case::new(name, *simulated)
}

#[test]
fn objects_are_as_committed() {
    for (name, _) in FIXTURES {
        let (golden, objects) = (file(&format!("{name}.golden.yaml")), case(name).objects());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &objects).unwrap();
        }
        let committed = std::fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(objects, committed, "{}; see the top of this file", golden.display());
    }
}

#[test]
fn the_runtime_reads_what_is_mounted() {
    for (name, _) in FIXTURES {
        let case = case(name);
        let written = config_map(&case.owner, &case.frozen);
        let config = RuntimeConfig::from_json(&written.data.as_ref().unwrap()[CONFIG_FILE]).unwrap();
        assert_eq!(config, case.frozen.revision.config);

        let spec = case.pod().spec.unwrap();
        let args = spec.containers[0].args.clone().unwrap();
        assert_eq!(args, ["serve", "--config", &format!("{CONFIG_DIR}/{CONFIG_FILE}")]);
        let config_volume = spec.volumes.unwrap().into_iter().find_map(|volume| volume.config_map).unwrap();
        assert_eq!(Some(config_volume.name), written.metadata.name);
    }
}

#[test]
fn an_operator_of_another_version_keeps_what_is_frozen() {
    let Case { owner, frozen, .. } = case("everything");
    let written = config_map(&owner, &frozen);
    assert_eq!(written.immutable, Some(true));
    assert_eq!(read(&written).unwrap(), frozen);

    let with = |from: &str, to: &str| {
        let mut changed = written.clone();
        for text in changed.data.as_mut().unwrap().values_mut() {
            *text = text.replace(from, to);
        }
        read(&changed)
    };
    let newer = with("\"version\": 1", "\"version\": 2, \"more\": 0");
    assert!(matches!(newer, Err(FrozenError::Version(2))), "{newer:?}");
    assert!(matches!(with("\"claim\"", "\"clam\""), Err(FrozenError::Malformed(_))));
    assert!(matches!(with("\"servedName\"", "\"name\""), Err(FrozenError::Config(_))));
    let empty = k8s_openapi::api::core::v1::ConfigMap::default();
    assert!(matches!(read(&empty), Err(FrozenError::Missing(_))));
}

#[test]
fn a_new_pod_gets_no_traffic_whatever_the_user_labels_it() {
    let pod = case("everything").pod();
    let labels_of_pod = pod.metadata.labels.unwrap();
    assert!(!labels_of_pod.contains_key(labels::SERVING));
    assert_eq!(labels_of_pod["team"], "search");
    assert_eq!(labels_of_pod[labels::APP_MANAGED_BY], labels::MANAGER);
    assert_eq!(pod.metadata.annotations.unwrap()[labels::SCRAPE], "true");
}

#[test]
fn a_pod_fits_the_booking_and_nothing_else() {
    for (name, _) in FIXTURES {
        let case = case(name);
        let resources = case.container().resources.unwrap();
        let (requests, limits) = (resources.requests.unwrap(), resources.limits.unwrap());
        let mem = case.booking.host_memory.0.to_string();
        assert_eq!(requests["memory"].0, mem, "{name}");
        let cards = (case.booking.devices > 0).then(|| case.booking.devices.to_string());
        assert_eq!(limits.get(GPU_RESOURCE).map(|quantity| quantity.0.clone()), cards, "{name}");
        assert_eq!(limits.get(GPU_RESOURCE), requests.get(GPU_RESOURCE), "{name}");

        let env = case.container().env.unwrap();
        let variable = |name: &str| env.iter().find(|env| env.name == name).and_then(|env| env.value.clone());
        assert_eq!(variable(ENV_BUDGET), Some(case.booking.memory.total().unwrap().0.to_string()));
        assert_eq!(variable(ENV_SIMULATED_DEVICE), case.simulated.map(|bytes| bytes.0.to_string()));
    }
}

#[test]
fn where_the_cluster_assigns_users_a_pod_names_none_and_is_the_same_otherwise() {
    for (name, _) in FIXTURES {
        let mut case = case(name);
        let fixed = case.pod();
        case.settings.pod_identity = Identity::Assigned;
        let mut assigned = case.pod();
        let context = assigned.spec.as_mut().unwrap().security_context.as_mut().unwrap();
        assert_eq!((context.run_as_user, context.run_as_group, context.fs_group), (None, None, None));
        assert_eq!(context.run_as_non_root, Some(true));
        (context.run_as_user, context.run_as_group, context.fs_group) = fixed
            .spec
            .as_ref()
            .unwrap()
            .security_context
            .as_ref()
            .map(|c| (c.run_as_user, c.run_as_group, c.fs_group))
            .unwrap();
        // Its name too: a pod that runs is the one that is wanted, whoever names users now.
        assert_eq!(assigned, fixed);
    }
}

#[test]
fn every_container_gives_up_what_it_could_do() {
    for (name, _) in FIXTURES {
        let pod = case(name).pod().spec.unwrap();
        assert_eq!(pod.automount_service_account_token, Some(false));
        assert!(pod.host_network.is_none() && pod.host_pid.is_none() && pod.host_ipc.is_none());
        for container in pod.containers {
            let context = container.security_context.unwrap();
            assert_eq!(context.read_only_root_filesystem, Some(true));
            assert_eq!(context.allow_privilege_escalation, Some(false));
            assert_eq!(context.capabilities.unwrap().drop, Some(vec!["ALL".to_owned()]));
            assert!(context.privileged.is_none() && context.run_as_user.is_none());
        }
        // All that can be written is temporary and ends at a size.
        for volume in pod.volumes.unwrap() {
            let claim = volume.persistent_volume_claim;
            assert!(claim.is_none_or(|claim| claim.read_only == Some(true)));
            assert!(volume.empty_dir.is_none_or(|folder| folder.size_limit.is_some()));
            assert!(volume.host_path.is_none());
        }
    }
}

#[test]
fn the_image_follows_the_class_and_stays_with_the_revision() {
    for (name, image) in [
        ("cpu", "llm-fleet-runtime:1.0.0"),
        ("nvidia", "llm-fleet-runtime-cuda:1.0.0"),
        ("everything", "llm-fleet-runtime:1.0.0"),
    ] {
        let mut case = case(name);
        assert_eq!(case.container().image.as_deref(), Some(image), "{name}");
        let written = config_map(&case.owner, &case.frozen);
        for other in [None, Some("llm-fleet-runtime-cuda:2.0.0".to_owned())] {
            case.settings.runtime_cuda_image = other;
            case.frozen = read(&written).unwrap();
            assert_eq!(case.container().image.as_deref(), Some(image), "{name}: what is frozen stays");
        }
    }
    let mut nvidia = case("nvidia");
    nvidia.settings.runtime_cuda_image = None;
    let frozen = Frozen::new(nvidia.frozen.revision, &nvidia.settings);
    assert_eq!(frozen.image, "llm-fleet-runtime:1.0.0", "one image may be for both");
}

#[test]
fn several_cards_share_memory_that_is_set_aside() {
    let mut case = case("nvidia");
    let shared = |pod: Pod| {
        let spec = pod.spec.unwrap();
        let mounts = spec.containers[0].volume_mounts.clone().unwrap();
        let name = mounts.into_iter().find(|mount| mount.mount_path == "/dev/shm")?.name;
        spec.volumes.unwrap().into_iter().find(|volume| volume.name == name)?.empty_dir
    };
    assert_eq!(shared(case.pod()), None);
    case.booking.devices = 2;
    let shared = shared(case.pod()).unwrap();
    assert_eq!(
        (shared.medium.as_deref(), shared.size_limit.unwrap().0.as_str()),
        (Some("Memory"), "1073741824")
    );
    let limits = case.container().resources.unwrap().limits.unwrap();
    assert_eq!(limits[GPU_RESOURCE].0, "2");
}

#[test]
fn a_booking_past_64_bits_is_no_pod() {
    let mut case = case("cpu");
    case.booking.memory.reserve = Bytes(u64::MAX);
    assert!(pod(&case.plan()).is_err());
}

#[test]
fn where_a_monitor_names_the_pods_no_annotation_asks_for_a_second_scrape() {
    let mut case = case("cpu");
    assert!(case.pod().metadata.annotations.unwrap_or_default().contains_key(contract::labels::SCRAPE));
    case.settings.no_scrape_annotations = true;
    let annotations = case.pod().metadata.annotations.unwrap_or_default();
    assert!(!annotations.keys().any(|key| key.starts_with("prometheus.io/")));
}

#[test]
fn a_service_that_was_applied_is_settled() {
    let desired = serde_json::to_value(service(&case("cpu").owner)).unwrap();
    let mut observed = desired.clone();
    observed["spec"]["clusterIP"] = "10.0.0.1".into();
    observed["spec"]["sessionAffinity"] = "None".into();
    assert!(crate::apply::differ::contains(&observed, &desired));
    // The API server leaves out what is false, so a desired false would never be there.
    assert!(!desired.to_string().contains("false"));
}
