//! What one replica needs: from capacity and geometry to bytes, and from bytes to a demand on the fleet.
//!
//! In: [`Validated`], the model's inspection. Out: [`Chosen`] and [`Demand`]s. It must not know nodes.

use std::collections::BTreeSet;
use std::sync::Arc;

use contract::Bytes;
use contract::device::{CUDA_IMAGE, CudaNeeds, DeviceClass};
use contract::inspect::Inspection;
use contract::memory::{self, Capacity, MemoryPlan, PlanError};
use contract::tensors::largest_bytes;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use super::build::resources::{Load, share};
use super::health;
use super::observe::Observed;
use super::rollout::Book;
use super::validate::Validated;
use crate::api::deployment::{LlmDeploymentSpec, PlacementStatus};
use crate::fleet::demand::Reach;
use crate::fleet::ledger::{booking_of, has_ended, node_of};
use crate::fleet::{Amounts, Demand};
use crate::mounts;

/// Access modes in which a volume can be read from several nodes.
const MANY_NODES: [&str; 2] = ["ReadOnlyMany", "ReadWriteMany"];

/// What one replica holds, and what that takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// What it holds, defaults included.
    pub capacity: Capacity,
    /// Bytes of each component on each device.
    pub memory: MemoryPlan,
    /// The plan's total: the hard budget.
    pub budget: Bytes,
    /// What the pod requests of the node.
    pub amounts: Amounts,
    /// What the image needs of driver and cards; `None` without real ones.
    pub cuda: Option<CudaNeeds>,
}

/// Plans one replica. `simulated`: cards are simulated, so their bytes are the node's.
pub fn choose(
    spec: &LlmDeploymentSpec,
    validated: &Validated,
    model: &Inspection,
    simulated: bool,
) -> Result<Chosen, PlanError> {
    let capacity = Capacity {
        context_length: validated.context_length.unwrap_or(model.geometry.context_length),
        concurrency: validated.concurrency,
        kv_dtype: validated.kv_dtype,
    };
    let memory = memory::plan(&model.geometry, &model.tensors, capacity, validated.class)?;
    let budget = memory.total()?;
    let on_card = validated.class == DeviceClass::Nvidia;
    let devices = u32::from(on_card);
    let largest_tensor = largest_bytes(&model.tensors, validated.class).map_err(PlanError::Weights)?;
    let share = share(spec, &Load { budget, largest_tensor, devices, simulated })?;
    let amounts = Amounts { cpu_millis: share.cpu_millis, memory: share.host_memory, devices, pods: 1 };
    let cuda = (on_card && !simulated).then_some(CUDA_IMAGE);
    Ok(Chosen { capacity, memory, budget, amounts, cuda })
}

/// The demand of one booking.
#[must_use]
pub fn demand(validated: &Validated, chosen: &Chosen, book: &Book, reach: Reach) -> Demand {
    Demand {
        booking: book.booking.clone(),
        owner: validated.owner.clone(),
        replica: book.replica,
        class: validated.class,
        bytes: match validated.class {
            DeviceClass::Nvidia => chosen.budget,
            DeviceClass::Cpu => chosen.amounts.memory,
        },
        amounts: chosen.amounts,
        products: validated.products.clone(),
        cuda: chosen.cuda,
        card_memory: validated.card_memory,
        architecture: Some(architecture().to_owned()),
        node_selector: validated.node_selector.clone(),
        tolerations: validated.tolerations.clone(),
        reach,
        instead_of: book.instead_of.clone(),
        takes_over: book.takes_over.clone(),
        not_on: book.not_on.clone(),
    }
}

/// Both images are built for the same architecture, and Kubernetes has names of its own for them.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// From which nodes the weights can be read; or what has to be known before that can be said, since a volume that is
/// not seen yet may be one of a single node.
pub fn reach(observed: &Observed) -> Result<Reach, String> {
    let Some((claim, volume)) = &observed.claim else {
        return Err("the PersistentVolumeClaim with the weights is not there yet".to_owned());
    };
    let metadata = &claim.metadata;
    let name = metadata.name.clone().unwrap_or_default();
    let Some(volume) = volume.as_ref().and_then(|volume| volume.spec.as_ref()) else {
        return Err(format!("the PersistentVolumeClaim {name} with the weights has no volume yet"));
    };
    let selector = volume.node_affinity.as_ref().and_then(|affinity| affinity.required.clone());
    if !is_of_one_node(claim) {
        return Ok(selector.map_or(Reach::Anywhere, Reach::Nodes));
    }
    let claim = (metadata.namespace.clone().unwrap_or_default(), name);
    Ok(Reach::OneNode { claim, node: observed.readers.first().cloned(), selector })
}

/// Whether a claim can be read from one node at a time.
#[must_use]
pub fn is_of_one_node(claim: &PersistentVolumeClaim) -> bool {
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    !modes.iter().any(|mode| MANY_NODES.contains(&mode.as_str()))
}

/// Nodes that read a claim, whoever it is that does: those of pods that mount it, and those of bookings of who serves
/// from it (`bookings`) whose pods are not seen yet.
pub fn readers<'a>(
    (namespace, claim): (&str, &str),
    pods: &[Arc<Pod>],
    bookings: impl IntoIterator<Item = &'a PlacementStatus>,
) -> BTreeSet<String> {
    let reads = |pod: &&Arc<Pod>| {
        pod.metadata.namespace.as_deref() == Some(namespace)
            && !has_ended(pod)
            // One that the scheduler refuses reads nowhere.
            && health::unschedulable_since(pod).is_none()
            && mounts::claims(pod).any(|mounted| mounted == claim)
    };
    let by_pods = pods.iter().filter(reads).filter_map(|pod| node_of(pod.spec.as_ref()?));
    let seen: BTreeSet<&str> = pods.iter().filter_map(|pod| booking_of(pod)).collect();
    let unseen = bookings.into_iter().filter(|p| !seen.contains(p.booking.as_str()));
    by_pods.chain(unseen.map(|p| p.node.as_str())).map(str::to_owned).collect()
}

/// The longest context whose demand stays within `bytes`, in whole blocks; `None` if not even one block does.
#[must_use]
pub fn largest_context(chosen: &Chosen, class: DeviceClass, model: &Inspection, bytes: Bytes) -> Option<u32> {
    // What the demand has beside the budget stays the same.
    let beside =
        if class == DeviceClass::Cpu { chosen.amounts.memory.minus(chosen.budget) } else { Bytes::ZERO };
    let fits = |blocks: u32| {
        let capacity = Capacity { context_length: blocks * memory::BLOCK_TOKENS, ..chosen.capacity };
        let plan = memory::plan(&model.geometry, &model.tensors, capacity, class);
        plan.is_ok_and(|plan| plan.total().is_ok_and(|total| total <= bytes.minus(beside)))
    };
    let (mut low, mut high) = (0, model.geometry.context_length / memory::BLOCK_TOKENS);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    (low > 0).then_some(low * memory::BLOCK_TOKENS)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NodeSelector;

    use super::*;

    fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> Arc<T> {
        Arc::new(serde_norway::from_str(text).unwrap())
    }

    #[test]
    fn nothing_is_placed_before_the_volume_is_known() {
        let reach_of = |volume: Option<&str>, mode: &str| {
            let claim = yaml(&format!(
                "{{metadata: {{name: w, namespace: a}}, spec: {{accessModes: [{mode}], volumeName: v}}}}"
            ));
            let claim = Some((claim, volume.map(yaml)));
            reach(&Observed { claim, readers: BTreeSet::from(["n".to_owned()]), ..Observed::default() })
        };
        assert!(reach(&Observed::default()).unwrap_err().contains("not there yet"));
        assert!(
            reach_of(None, "ReadWriteMany").unwrap_err().contains("w with the weights has no volume yet")
        );
        assert_eq!(reach_of(Some("{metadata: {}, spec: {}}"), "ReadWriteMany"), Ok(Reach::Anywhere));
        let one =
            |selector| Reach::OneNode { claim: ("a".into(), "w".into()), node: Some("n".into()), selector };
        assert_eq!(reach_of(Some("{metadata: {}, spec: {}}"), "ReadWriteOnce"), Ok(one(None)));
        let zonal = "{metadata: {}, spec: {nodeAffinity: {required: {nodeSelectorTerms: []}}}}";
        let selector = NodeSelector::default();
        assert_eq!(reach_of(Some(zonal), "ReadWriteOnce"), Ok(one(Some(selector.clone()))));
        for many in MANY_NODES {
            assert_eq!(reach_of(Some(zonal), many), Ok(Reach::Nodes(selector.clone())));
        }
    }

    #[test]
    fn everybody_who_mounts_a_claim_reads_it() {
        let pod = |namespace: &str, claim: &str, node: &str, more: &str| -> Arc<Pod> {
            yaml(&format!(
                "{{metadata: {{name: p, namespace: {namespace}{more}}}, spec: {{nodeName: {node}, containers: [], \
                 volumes: [{{name: v, persistentVolumeClaim: {{claimName: {claim}}}}}]}}}}"
            ))
        };
        let booking = |booking: &str, node: &str| PlacementStatus {
            replica: 0,
            revision: "r".into(),
            booking: booking.into(),
            attempt: 0,
            node: node.into(),
            devices: 0,
            concurrency: 1,
            memory: MemoryPlan::default(),
            host_memory: Bytes::ZERO,
            cpu_millis: 0,
        };
        let ours = ", labels: {app.kubernetes.io/managed-by: llm-fleet, llmfleet.dev/booking: b1}";
        let pods = [
            pod("a", "w", "stranger", ""),
            pod("b", "w", "other-namespace", ""),
            pod("a", "x", "other-claim", ours),
        ];
        // The pod of b1 tells that it mounts another claim.
        let bookings = [booking("b1", "old"), booking("b2", "booked")];
        let found = readers(("a", "w"), &pods, &bookings);
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), ["booked", "stranger"]);
    }
}
