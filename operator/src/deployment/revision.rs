//! A revision: what a deployment serves, resolved, with the hash that names it.
//!
//! In: the spec, the weights, the capacity that was resolved. Out: the runtime's configuration and a hash of all that
//! changes the answer or the memory. It must not know where replicas run, nor what image they run.

use contract::config::{CONFIG_VERSION, DEFAULT_DRAIN_SECONDS, MODELS_DIR, RuntimeConfig};
use contract::device::DeviceClass;
use contract::dtype::KvDType;
use contract::memory::Capacity;
use serde::Serialize;

use super::names;
use crate::api::deployment::LlmDeploymentSpec;
use crate::api::model::LlmModelStatus;

/// Changes when equal values must give new revisions, which restarts every model of the fleet. The version of what is
/// frozen changes with it, so that an older operator does not restart them back.
const HASH_VERSION: u32 = 1;

/// Verified weights, and where they lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights {
    /// Name of the claim that holds them.
    pub claim: String,
    /// Folder or file below the claim's root; empty for the root itself.
    pub path: String,
    /// Digest of their manifest.
    pub digest: String,
}

impl Weights {
    /// The weights of a model that has been inspected.
    #[must_use]
    pub fn of(model: &LlmModelStatus) -> Option<Self> {
        Some(Self {
            claim: model.claim_name.clone()?,
            path: model.path.clone().unwrap_or_default(),
            digest: model.inspection.as_ref()?.digest.clone(),
        })
    }
}

/// What a deployment serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Eight hex digits.
    pub hash: String,
    /// What the runtime is told.
    pub config: RuntimeConfig,
    /// Name of the claim that holds the weights.
    pub claim: String,
}

/// What is hashed: named one by one, so that a new field or another default of this program renames no revision.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Hashed<'a> {
    hash_version: u32,
    claim: &'a str,
    context_length: Option<u32>,
    device: DeviceClass,
    digest: Option<&'a str>,
    kv_dtype: KvDType,
    model_path: &'a str,
    restart: &'a str,
    served_name: &'a str,
}

/// The revision that the spec of the deployment of this name asks for.
///
/// The claim counts although the digest says what the weights are: pods of a revision mount the claim that its
/// ConfigMap names, and that claim goes when the deployment is pointed elsewhere.
#[must_use]
pub fn revision(name: &str, spec: &LlmDeploymentSpec, weights: &Weights, capacity: Capacity) -> Revision {
    // Concurrency belongs to a booking.
    let Capacity { context_length, concurrency: _, kv_dtype } = capacity;
    let config = RuntimeConfig {
        version: CONFIG_VERSION,
        served_name: served_name(name, spec),
        model_path: model_path(&weights.path),
        digest: Some(weights.digest.clone()),
        device: spec.accelerator.class,
        context_length: Some(context_length),
        kv_dtype,
        drain_seconds: DEFAULT_DRAIN_SECONDS,
    };
    let hash = hash(&config, &weights.claim, &spec.restart);
    Revision { hash, config, claim: weights.claim.clone() }
}

/// Name that clients ask for.
#[must_use]
pub fn served_name(name: &str, spec: &LlmDeploymentSpec) -> String {
    spec.model.served_name.clone().unwrap_or_else(|| name.to_owned())
}

/// The whole volume is mounted and the path is the runtime's, as it is the inspection's: a mounted sub path would
/// refuse symbolic links out of it, which caches of models are made of, and would hide the name of a single file.
fn model_path(path: &str) -> String {
    if path.is_empty() { MODELS_DIR.to_owned() } else { format!("{MODELS_DIR}/{path}") }
}

fn hash(config: &RuntimeConfig, claim: &str, restart: &str) -> String {
    // Exhaustive: a new field needs a decision. The format's version and the time for draining change no answer.
    let RuntimeConfig {
        version: _,
        served_name,
        model_path,
        digest,
        device,
        context_length,
        kv_dtype,
        drain_seconds: _,
    } = config;
    let hashed = Hashed {
        hash_version: HASH_VERSION,
        claim,
        context_length: *context_length,
        device: *device,
        digest: digest.as_deref(),
        kv_dtype: *kv_dtype,
        model_path,
        restart,
        served_name,
    };
    names::digest(&serde_json::to_string(&hashed).expect("strings and numbers serialize"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = "model: {modelRef: {name: weights}}";

    fn weights() -> Weights {
        Weights {
            claim: "weights".into(),
            path: "tiny.gguf".into(),
            digest: format!("sha256:{}", "0f".repeat(32)),
        }
    }

    fn capacity() -> Capacity {
        Capacity { context_length: 2048, concurrency: 4, kv_dtype: KvDType::F32 }
    }

    fn of(yaml: &str) -> Revision {
        revision("chat", &serde_norway::from_str(yaml).unwrap(), &weights(), capacity())
    }

    #[test]
    fn the_hash_of_given_values_never_changes() {
        // A new hash restarts every model of every cluster when the operator is upgraded.
        assert_eq!(of(SPEC).hash, "d30d1630");
        assert_eq!(
            of("model: {modelRef: {name: w}, servedName: a/b}\nrestart: again\naccelerator: {class: CPU}")
                .hash,
            "8adaf933"
        );
    }

    #[test]
    fn what_changes_no_answer_changes_no_revision() {
        for more in [
            "replicas: 7",
            "suspend: true",
            "placement: {nodeSelector: {a: b}, priorityClassName: high, tolerations: [{operator: Exists}]}",
            "accelerator: {products: [NVIDIA-H200], memory: 24Gi}",
            "serving: {podLabels: {a: b}, podAnnotations: {a: b}, imagePullSecrets: [{name: s}]}",
            "serving: {resources: {requests: {cpu: '2'}}}",
            "capacity: {concurrency: 9}",
        ] {
            assert_eq!(of(&format!("{SPEC}\n{more}")), of(SPEC), "{more}");
        }
        let spec = serde_norway::from_str(SPEC).unwrap();
        let wider = Capacity { concurrency: 64, ..capacity() };
        assert_eq!(revision("chat", &spec, &weights(), wider), of(SPEC));
        let config = of(SPEC).config;
        let later = RuntimeConfig { version: 2, drain_seconds: 1, ..config.clone() };
        assert_eq!(hash(&later, "weights", ""), hash(&config, "weights", ""));
    }

    #[test]
    fn what_changes_the_answer_or_the_memory_changes_the_revision() {
        let spec: LlmDeploymentSpec = serde_norway::from_str(SPEC).unwrap();
        let with = |weights: &Weights, capacity| revision("chat", &spec, weights, capacity).hash;
        let (w, c) = (weights(), capacity());
        let all = [
            of(SPEC).hash,
            of(&format!("{SPEC}\nrestart: again")).hash,
            of(&format!("{SPEC}\naccelerator: {{class: CPU}}")).hash,
            of("model: {modelRef: {name: weights}, servedName: other}").hash,
            with(&Weights { digest: "sha256:other".into(), ..w.clone() }, c),
            with(&Weights { claim: "other".into(), ..w.clone() }, c),
            with(&Weights { path: String::new(), ..w.clone() }, c),
            with(&w, Capacity { context_length: 4096, ..c }),
            with(&w, Capacity { kv_dtype: KvDType::F16, ..c }),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert!(all.iter().all(|hash| hash.len() == 8));
    }

    #[test]
    fn weights_are_those_that_were_inspected() {
        assert_eq!(
            Weights::of(&LlmModelStatus { claim_name: Some("c".into()), ..LlmModelStatus::default() }),
            None
        );
        assert_eq!(of(SPEC).config.model_path, "/models/tiny.gguf");
        assert_eq!(model_path(""), MODELS_DIR);
        assert_eq!(of(SPEC).config.served_name, "chat");
    }
}
