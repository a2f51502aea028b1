//! The life of a deployment, in steps: what a person does, and what is true when the fleet has followed.
//!
//! In: a namespace whose pods a player runs. Out: wishes, and whether a state fulfils them. It must not know what befalls
//! the operator meanwhile.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::player::{Gates, Player};
use super::state::State;
use crate::operator::scene::{ours, wish};

/// Kind of what lives.
const KIND: &str = "LlmDeployment";
/// Its name.
const NAME: &str = "chat";

/// Where a life takes place.
pub struct World<'a> {
    /// A client with all rights.
    pub client: &'a Client,
    /// The namespace.
    pub namespace: &'a str,
    /// The node that pods are to run on.
    pub node: &'a str,
    /// Who runs them.
    pub player: &'a Player<'a>,
}

/// What a person does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Asks for a model that nobody has yet.
    Create,
    /// Gives it a volume, on which its files are fetched.
    Fetch,
    /// Waits until it is loaded.
    Load,
    /// Asks for one replica more.
    ScaleUp,
    /// And for one less.
    ScaleDown,
    /// Asks for a new revision.
    Change,
    /// Suspends it.
    Suspend,
    /// Deletes it.
    Delete,
}

impl Step {
    /// All, in order.
    pub const ALL: [Self; 8] = [
        Self::Create,
        Self::Fetch,
        Self::Load,
        Self::ScaleUp,
        Self::ScaleDown,
        Self::Change,
        Self::Suspend,
        Self::Delete,
    ];

    /// Does it.
    pub async fn act(self, world: &World<'_>) -> Result<()> {
        let World { client, namespace, node, player } = world;
        let all = ours(client, namespace, KIND);
        let change = async |spec: Value| {
            let patch = Patch::Merge(json!({ "spec": spec }));
            all.patch(NAME, &PatchParams::default(), &patch).await.map(drop)
        };
        match self {
            Self::Create => {
                let file = json!({ "url": "http://models.invalid/m.gguf", "sha256": "0f".repeat(32), "path": "m.gguf" });
                let spec = json!({
                    "model": { "source": { "http": { "files": [file] } } },
                    "volume": { "size": "1Gi", "storageClassName": "none" },
                    "placement": { "nodeSelector": { "kubernetes.io/hostname": node } },
                });
                let object: DynamicObject = serde_json::from_value(wish(KIND, NAME, &spec))?;
                all.create(&PostParams::default(), &object).await?;
            }
            Self::Fetch => {
                volume(client, namespace).await?;
                player.open(Gates { jobs: true, ready: false });
            }
            Self::Load => player.open(Gates { jobs: true, ready: true }),
            Self::ScaleUp => {
                let scale = Patch::Merge(json!({ "spec": { "replicas": 2 } }));
                all.patch_scale(NAME, &PatchParams::default(), &scale).await?;
            }
            Self::ScaleDown => change(json!({ "replicas": 1 })).await?,
            Self::Change => change(json!({ "restart": "once" })).await?,
            Self::Suspend => change(json!({ "suspend": true })).await?,
            Self::Delete => drop(all.delete(NAME, &DeleteParams::default()).await?),
        }
        Ok(())
    }

    /// Whether the fleet has followed, in a run that nothing befell.
    #[must_use]
    pub fn is_followed(self, state: &State) -> bool {
        let count = |kind: &str| state.keys().filter(|key| key.starts_with(&format!("{kind}/"))).count();
        let llm = state.get(&format!("{KIND}/{NAME}")).unwrap_or(&Value::Null);
        let says = |type_: &str, reason: &str| {
            let conditions = llm["status"]["conditions"].as_array().into_iter().flatten();
            conditions.into_iter().any(|one| one["type"] == type_ && one["reason"] == reason)
        };
        let ready = |pods: usize| {
            says("Ready", "Ready") && llm["status"]["readyReplicas"] == pods && count("Pod") == pods
        };
        match self {
            Self::Create => says("ModelReady", "Starting") && count("Pod") == 1 && count("Job") == 1,
            Self::Fetch => says("Available", "Loading") && count("Job") == 0,
            Self::Load | Self::ScaleDown => ready(1),
            Self::ScaleUp => ready(2),
            Self::Change => ready(1) && count("ConfigMap") == 1,
            Self::Suspend => says("Ready", "Suspended") && count("Pod") == 0,
            Self::Delete => state.is_empty(),
        }
    }
}

/// Gives the only claim of the namespace a volume that every node reads.
async fn volume(client: &Client, namespace: &str) -> Result<()> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let claim = claims.list(&ListParams::default()).await?.items.pop().context("no claim")?.name_any();
    let volume = json!({
        "metadata": { "name": namespace },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" }, "storageClassName": "none",
            "claimRef": { "namespace": namespace, "name": claim }, "hostPath": { "path": "/none" },
        },
    });
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    volumes.create(&PostParams::default(), &serde_json::from_value(volume)?).await?;
    // The controller looks at a claim that changes at once, and at others after seconds.
    let bound = Patch::Merge(json!({ "spec": { "volumeName": namespace } }));
    claims.patch(&claim, &PatchParams::default(), &bound).await?;
    Ok(())
}
