//! Gives every claim a volume whose size is enforced: an ext4 image of the asked size, mounted through a loop device.
//!
//! In: claims and volumes as the API server has them, images and mounts as this machine has them. Out: the difference
//! made good. Each pass starts from observation, so a provisioner that was killed goes on where it was.

pub mod plan;
pub mod quantity;
pub mod volume;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};

use crate::kubeconfig;
use crate::lab::site::{Site, identity};
use crate::supervisor::protocol::Spec;
use plan::{Claim, Step};

/// The process's name and the subcommand.
pub const NAME: &str = "provisioner";
/// How storage classes name it.
pub const PROVISIONER: &str = "lab.llmfleet.dev/loop";
/// Below the lab's folder, where volumes are mounted, each under its name.
pub const FOLDER: &str = "volumes";
/// What failed is tried again after this long, even if nothing is heard.
const RETRY: Duration = Duration::from_secs(5);
/// As many changes as are answered by one pass.
const BATCH: usize = 100;

/// Its process.
pub fn process(site: &Site<'_>, program: &Path) -> Spec {
    let paths = [site.paths.inside_kubeconfig(identity::PROVISIONER), site.paths.join(FOLDER)];
    let arguments =
        [NAME.to_owned()].into_iter().chain(paths.map(|path| path.to_string_lossy().into_owned()));
    site.process(NAME, program, arguments.collect())
}

/// Provisions until it is killed.
pub async fn run(kubeconfig: &Path, folder: &Path) -> Result<()> {
    let client = kubeconfig::client(kubeconfig).await?;
    let reporter = Reporter { controller: PROVISIONER.to_owned(), instance: None };
    let provisioner = Provisioner {
        claims: Api::all(client.clone()),
        volumes: Api::all(client.clone()),
        recorder: Recorder::new(client, reporter),
        folder: folder.to_owned(),
    };
    std::fs::create_dir_all(folder)?;
    let changes = futures::stream::select(
        watcher(provisioner.claims.clone(), watcher::Config::default()).default_backoff().map(drop),
        watcher(provisioner.volumes.clone(), watcher::Config::default()).default_backoff().map(drop),
    );
    let mut changes = std::pin::pin!(changes.ready_chunks(BATCH));
    loop {
        if let Err(error) = provisioner.pass().await {
            tracing::warn!("{error:#}");
        }
        // Elapsed or not, the next pass sees everything.
        let _ = tokio::time::timeout(RETRY, changes.next()).await;
    }
}

struct Provisioner {
    claims: Api<PersistentVolumeClaim>,
    volumes: Api<PersistentVolume>,
    recorder: Recorder,
    folder: PathBuf,
}

impl Provisioner {
    async fn pass(&self) -> Result<()> {
        let claims = self.claims.list(&ListParams::default()).await?.items;
        let volumes = self.volumes.list(&ListParams::default()).await?.items;
        let images = volume::images(&self.folder)?;
        let mounted = volume::mounted(&self.folder)?;
        for step in plan::plan(&claims, &volumes, &images, &mounted) {
            if let Err(error) = self.take(&step).await {
                tracing::warn!(?step, "{error:#}");
                if let Step::Provision(claim) = &step {
                    self.tell(claim, &format!("{error:#}"), &claims).await?;
                }
            }
        }
        Ok(())
    }

    async fn take(&self, step: &Step) -> Result<()> {
        match step {
            Step::Provision(claim) => {
                volume::create(&self.folder, &claim.volume, claim.bytes)?;
                let object = plan::object(claim, &self.folder);
                self.volumes
                    .create(&PostParams::default(), &object)
                    .await
                    .context("cannot create the volume")?;
            }
            Step::Mount(name) => volume::mount(&self.folder, name)?,
            Step::Reclaim(name) => {
                volume::remove(&self.folder, name)?;
                self.volumes.delete(name, &DeleteParams::default()).await?;
            }
            Step::Discard(name) => volume::remove(&self.folder, name)?,
        }
        tracing::info!(?step, "done");
        Ok(())
    }

    /// Says on the claim why it waits.
    async fn tell(&self, claim: &Claim, why: &str, claims: &[PersistentVolumeClaim]) -> Result<()> {
        let object = claims.iter().find(|object| object.uid().as_deref() == Some(&claim.uid));
        let reference: ObjectReference = object.map(|object| object.object_ref(&())).unwrap_or_default();
        let event = Event {
            type_: EventType::Warning,
            reason: "ProvisioningFailed".to_owned(),
            note: Some(why.to_owned()),
            action: "Provision".to_owned(),
            secondary: None,
        };
        Ok(self.recorder.publish(&event, &reference).await?)
    }
}
