//! What a node has and what a pod takes, in whole numbers.
//!
//! In: allocatable resources of nodes, containers of pods. Out: [`Amounts`].

use std::collections::BTreeMap;

use contract::Bytes;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::card::GPU_RESOURCE;
use super::quantity::{bytes, count, cpu_millis};

/// Cores, memory, cards and pod slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Memory of the node.
    pub memory: Bytes,
    /// Whole cards.
    pub devices: u32,
    /// Pods.
    pub pods: u32,
}

type Resources = BTreeMap<String, Quantity>;

impl Amounts {
    /// Reads a node's allocatable resources, or what a container requests.
    #[must_use]
    pub fn read(resources: &Resources) -> Self {
        Self {
            cpu_millis: resources.get("cpu").map_or(0, cpu_millis),
            memory: resources.get("memory").map_or(Bytes::ZERO, bytes),
            devices: resources.get(GPU_RESOURCE).map_or(0, count),
            pods: resources.get("pods").map_or(0, count),
        }
    }

    /// What kube-scheduler sets aside for a pod: the sum of its containers and sidecars, or its largest moment of
    /// initialisation where that is more, and what the runtime class adds.
    #[must_use]
    pub fn of_pod(pod: &PodSpec) -> Self {
        let (mut sidecars, mut start) = (Self::default(), Self::default());
        for container in pod.init_containers.iter().flatten() {
            let request = of_container(container);
            if container.restart_policy.as_deref() == Some("Always") {
                sidecars = sidecars.plus(request);
                start = start.most(sidecars);
            } else {
                start = start.most(sidecars.plus(request));
            }
        }
        let running = pod.containers.iter().map(of_container).fold(sidecars, Self::plus);
        let mut sum = running.most(start);
        // Requests of the pod as a whole replace those of its containers.
        let whole = pod.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        if let Some(quantity) = whole.and_then(|requests| requests.get("cpu")) {
            sum.cpu_millis = cpu_millis(quantity);
        }
        if let Some(quantity) = whole.and_then(|requests| requests.get("memory")) {
            sum.memory = bytes(quantity);
        }
        Self { pods: 1, ..sum.plus(pod.overhead.as_ref().map(Self::read).unwrap_or_default()) }
    }

    /// Sum; what does not fit is the largest number, so that too much is never taken for little.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory: Bytes(self.memory.0.saturating_add(other.memory.0)),
            devices: self.devices.saturating_add(other.devices),
            pods: self.pods.saturating_add(other.pods),
        }
    }

    /// Difference, never below nothing: a node may have been given more than it has.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_sub(other.cpu_millis),
            memory: self.memory.minus(other.memory),
            devices: self.devices.saturating_sub(other.devices),
            pods: self.pods.saturating_sub(other.pods),
        }
    }

    fn most(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.max(other.cpu_millis),
            memory: self.memory.max(other.memory),
            devices: self.devices.max(other.devices),
            pods: self.pods.max(other.pods),
        }
    }
}

/// A limit without a request is the request, for devices always.
fn of_container(container: &Container) -> Amounts {
    let Some(resources) = &container.resources else { return Amounts::default() };
    let mut all = resources.limits.clone().unwrap_or_default();
    all.extend(resources.requests.clone().unwrap_or_default());
    Amounts::read(&all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_takes_what_the_scheduler_sets_aside() {
        let container = |cpu: &str, always: bool| {
            let policy = always.then_some("Always");
            json!({ "name": "x", "restartPolicy": policy, "resources": { "requests": { "cpu": cpu } } })
        };
        let pod = |init: Vec<serde_json::Value>, overhead: &str| {
            let containers = vec![container("1", false), container("500m", false)];
            let spec =
                json!({ "initContainers": init, "containers": containers, "overhead": { "cpu": overhead } });
            Amounts::of_pod(&serde_json::from_value(spec).unwrap()).cpu_millis
        };
        assert_eq!(pod(vec![], "0"), 1500);
        assert_eq!(pod(vec![container("3", false)], "250m"), 3250);
        assert_eq!(pod(vec![container("1", true), container("1", false)], "0"), 2500);
        assert_eq!(pod(vec![container("1", true), container("2", false)], "0"), 3000);
        let limits =
            json!({ "containers": [{ "name": "x", "resources": { "limits": { "nvidia.com/gpu": "2" } } }] });
        let limits = Amounts::of_pod(&serde_json::from_value(limits).unwrap());
        assert_eq!((limits.devices, limits.pods), (2, 1));
    }
}
