//! What one replica needs: from capacity and geometry to bytes, and from bytes to a demand on the fleet.
//!
//! In: [`Validated`], the model's inspection. Out: [`Chosen`] and [`Demand`]s. It must not know nodes.

use contract::Bytes;
use contract::device::DeviceClass;
use contract::inspect::Inspection;
use contract::memory::{self, Capacity, MemoryPlan, PlanError};

use super::build::resources::share;
use super::observe::Observed;
use super::rollout::Book;
use super::validate::Validated;
use crate::api::deployment::LlmDeploymentSpec;
use crate::fleet::demand::Reach;
use crate::fleet::{Amounts, Demand};

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
    let share = share(spec, budget, simulated)?;
    let amounts = Amounts {
        cpu_millis: share.cpu_millis,
        memory: share.host_memory,
        devices: u32::from(validated.class == DeviceClass::Nvidia),
        pods: 1,
    };
    Ok(Chosen { capacity, memory, budget, amounts })
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

/// From which nodes the weights can be read.
#[must_use]
pub fn reach(observed: &Observed, readers: impl IntoIterator<Item = String>) -> Reach {
    let Some((claim, volume)) = &observed.claim else { return Reach::Anywhere };
    let affinity = volume.as_ref().and_then(|v| v.spec.as_ref()?.node_affinity.as_ref()?.required.clone());
    if let Some(selector) = affinity {
        return Reach::Nodes(selector);
    }
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.clone()).unwrap_or_default();
    if modes.iter().any(|mode| MANY_NODES.contains(&mode.as_str())) {
        return Reach::Anywhere;
    }
    let metadata = &claim.metadata;
    let claim = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
    Reach::OneNode { claim, node: readers.into_iter().min() }
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
