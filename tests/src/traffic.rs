//! What the pods of a cluster try to reach, by what each of them is for.
//!
//! In: a lab whose packets are counted, and its pods as they come and go. Out: the pods that were seen, and targets by
//! what the pod runs. It must not know what a pod may reach.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

use crate::lab::Lab;
use crate::lab::packets::{self, Target};

/// Remembers pods, most of which are gone when somebody asks.
#[derive(Debug)]
pub struct Witness {
    network: std::path::PathBuf,
    seen: UnboundedReceiver<Pod>,
    task: JoinHandle<()>,
}

/// What was seen.
#[derive(Debug)]
pub struct Testimony {
    /// The last that was known of every pod that had an address, by that address.
    pub pods: BTreeMap<Ipv4Addr, Pod>,
    /// First packets, by command and target.
    pub attempts: BTreeMap<(String, Target), u64>,
}

impl Witness {
    /// Begins with the pods that are there.
    pub async fn of(lab: &Lab) -> Result<Self> {
        let pods: Api<Pod> = Api::all(lab.client().await?);
        let (sender, seen) = unbounded_channel();
        let task = tokio::spawn(async move {
            let mut pods = std::pin::pin!(watcher(pods, watcher::Config::default()).default_backoff());
            // The watcher begins again by itself after an error, with a list of what is there.
            while let Some(next) = pods.next().await {
                if let Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) = next
                    && sender.send(pod).is_err()
                {
                    return;
                }
            }
        });
        Ok(Self { network: lab.supervisor().network(), seen, task })
    }

    /// Ends it.
    pub fn tells(mut self) -> Result<Testimony> {
        self.task.abort();
        let mut pods: BTreeMap<Ipv4Addr, Pod> = BTreeMap::new();
        while let Ok(pod) = self.seen.try_recv() {
            let Some(address) = pod.status.as_ref().and_then(|status| status.pod_ip.clone()) else {
                continue;
            };
            if let Some(before) = pods.insert(address.parse()?, pod) {
                let now = &pods[&address.parse()?];
                if command(&before) != command(now) {
                    bail!("{address} was {}'s and then {}'s", before.name_any(), now.name_any());
                }
            }
        }
        let mut attempts = BTreeMap::new();
        for ((from, target), packets) in packets::attempts(&self.network)? {
            let pod = pods.get(&from).with_context(|| format!("no pod had the address {from}: {target}"))?;
            *attempts.entry((command(pod).to_owned(), target)).or_default() += packets;
        }
        Ok(Testimony { pods, attempts })
    }
}

impl Testimony {
    /// The pods that ran this command.
    pub fn running<'a>(&'a self, wanted: &'a str) -> impl Iterator<Item = (&'a Ipv4Addr, &'a Pod)> {
        self.pods.iter().filter(move |(_, pod)| command(pod) == wanted)
    }

    /// What pods with this command tried to reach.
    #[must_use]
    pub fn targets(&self, wanted: &str) -> BTreeSet<&Target> {
        self.attempts.keys().filter(|(command, _)| command == wanted).map(|(_, target)| target).collect()
    }
}

/// What a pod is for: the first argument of its only container, which for ours is a command.
fn command(pod: &Pod) -> &str {
    let container = pod.spec.iter().flat_map(|spec| &spec.containers).next();
    container.and_then(|container| container.args.iter().flatten().next()).map_or("", String::as_str)
}

/// Whether a pod can prove to the API server who it is: by a token that is mounted into it.
#[must_use]
pub fn has_token(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let projects = |volume: &k8s_openapi::api::core::v1::Volume| {
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        sources.into_iter().any(|source| source.service_account_token.is_some()) || volume.secret.is_some()
    };
    spec.automount_service_account_token != Some(false) || spec.volumes.iter().flatten().any(projects)
}
