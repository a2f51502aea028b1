//! The ConfigMap of a revision: what the runtime reads, and what an operator of another version must keep.
//!
//! In: frozen values. Out: an immutable ConfigMap, and the values back from one. It must not know how they were
//! chosen.

use std::collections::BTreeMap;

use contract::config::{CONFIG_FILE, ConfigError, RuntimeConfig};
use contract::device::DeviceClass;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

use crate::api::LlmDeployment;
use crate::args::RuntimeArgs;
use crate::deployment::names;
use crate::deployment::revision::Revision;

/// Key of what is frozen for the operator. It is not mounted.
const FROZEN_KEY: &str = "operator.json";
/// Version that this code writes; older ones are read.
///
/// A field that an older operator may leave aside is added without another version. Whatever it must not leave aside
/// is another version, and so is another way to hash: an older operator then leaves the pods of the revision alone.
const FROZEN_VERSION: u32 = 1;

/// A revision with everything that its pods are made of, whatever version of the operator makes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// What is served.
    pub revision: Revision,
    /// Image reference of the runtime.
    pub image: String,
    /// When kubelets pull it.
    pub image_pull_policy: String,
}

impl Frozen {
    /// Freezes a revision with the image that this operator was given for its class. Cards that are simulated need
    /// nothing of CUDA.
    #[must_use]
    pub fn new(revision: Revision, settings: &RuntimeArgs) -> Self {
        let on_card = revision.config.device == DeviceClass::Nvidia && !settings.allow_simulated_devices;
        let for_cards = settings.runtime_cuda_image.as_ref().filter(|_| on_card);
        Self {
            revision,
            image: for_cards.unwrap_or(&settings.runtime_image).clone(),
            image_pull_policy: settings.image_pull_policy.clone(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    version: u32,
    revision: String,
    claim: String,
    image: String,
    image_pull_policy: String,
}

/// A ConfigMap that is not what an operator of this or an older version wrote.
#[derive(Debug, thiserror::Error)]
pub enum FrozenError {
    /// A key is missing.
    #[error("the ConfigMap has no {0}")]
    Missing(&'static str),
    /// The operator's part cannot be read.
    #[error("{FROZEN_KEY} is not valid")]
    Malformed(#[source] serde_json::Error),
    /// Written by a newer operator.
    #[error("{FROZEN_KEY} has version {0}; this operator reads up to {FROZEN_VERSION}")]
    Version(u32),
    /// The runtime's part cannot be read.
    #[error("{CONFIG_FILE} cannot be used")]
    Config(#[source] ConfigError),
}

impl FrozenError {
    /// Whether a newer operator wrote it.
    #[must_use]
    pub const fn is_newer(&self) -> bool {
        matches!(self, Self::Version(_) | Self::Config(ConfigError::Version(_)))
    }
}

/// The ConfigMap that freezes a revision. It is made once: what it says never changes.
#[must_use]
pub fn config_map(owner: &LlmDeployment, frozen: &Frozen) -> ConfigMap {
    let Frozen { revision: Revision { hash, config, claim }, image, image_pull_policy } = frozen;
    let name = owner.name_any();
    let written = Written {
        version: FROZEN_VERSION,
        revision: hash.clone(),
        claim: claim.clone(),
        image: image.clone(),
        image_pull_policy: image_pull_policy.clone(),
    };
    let written = serde_json::to_string_pretty(&written).expect("strings and numbers serialize");
    let data = [(CONFIG_FILE, config.to_json()), (FROZEN_KEY, written)];
    ConfigMap {
        metadata: super::metadata(owner, names::config_map(&name, hash), names::revision_labels(&name, hash)),
        immutable: Some(true),
        data: Some(data.map(|(key, json)| (key.to_owned(), json)).into()),
        binary_data: None,
    }
}

/// What ConfigMaps have frozen, by revision; without those that cannot be read.
pub fn read_all<'a>(maps: impl IntoIterator<Item = &'a ConfigMap>) -> BTreeMap<String, Frozen> {
    let frozen = maps.into_iter().filter_map(|map| read(map).ok());
    frozen.map(|frozen| (frozen.revision.hash.clone(), frozen)).collect()
}

/// What a ConfigMap has frozen.
pub fn read(config_map: &ConfigMap) -> Result<Frozen, FrozenError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let text = |key: &'static str| {
        let data = config_map.data.as_ref();
        data.and_then(|data| data.get(key)).ok_or(FrozenError::Missing(key))
    };
    let frozen = text(FROZEN_KEY)?;
    // The version comes first: what a newer operator wrote is called so, not malformed.
    let Versioned { version } = serde_json::from_str(frozen).map_err(FrozenError::Malformed)?;
    if version > FROZEN_VERSION {
        return Err(FrozenError::Version(version));
    }
    let Written { version: _, revision: hash, claim, image, image_pull_policy } =
        serde_json::from_str(frozen).map_err(FrozenError::Malformed)?;
    let config = RuntimeConfig::from_json(text(CONFIG_FILE)?).map_err(FrozenError::Config)?;
    Ok(Frozen { revision: Revision { hash, config, claim }, image, image_pull_policy })
}
