//! What a pod takes of its node beside cards: cores and memory.
//!
//! In: the spec and the byte budget. Out: the share that is booked, and the container's requests and limits.
//! It must not know nodes.

use std::collections::BTreeMap;

use contract::bytes::{Bytes, BytesError};
use contract::device::DeviceClass;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::api::deployment::{LlmDeploymentSpec, PlacementStatus, ResourceAmounts};
use crate::fleet::card::GPU_RESOURCE;
use crate::fleet::quantity;

/// What the cgroup of a pod holds beside the budget when the device is the node's own memory: page tables, sockets,
/// and the page cache that is in use while weights are read.
const HOST_OVERHEAD: Bytes = Bytes::mib(64);
/// Host memory of a process whose model lies on a card, beside weights on their way: the program, its tokenizer and
/// its connections, the contexts that driver and CUDA libraries keep on the host, and their pinned staging buffers.
///
/// Files of weights are mapped. Their pages count for the cgroup, but the kernel takes them back before it kills, so
/// they are not set aside.
const CARD_HOST_MEMORY: Bytes = Bytes::mib(2048);
/// Most bytes of `/dev/shm` where several cards work on one model: NCCL, which exchanges between them, keeps its buffers
/// there, and what a container gets unasked (64 MiB) is too little for it. Its guide asks for 1 GiB ("Troubleshooting",
/// shared memory). What lies there is memory of the pod.
pub(super) const SHARED_MEMORY: Bytes = Bytes::mib(1024);
/// Thousandths of a core that are set aside unless the spec says otherwise, where the cores themselves compute: what
/// is free beside them is used too.
const CPU_MILLIS: u64 = 500;
/// The same where cards compute: requests, tokens and sampling take a core, and so does each thread that feeds a card
/// and waits for it. Without them the card idles.
const CARD_CPU_MILLIS: u64 = 1000;
/// Room for logs and temporary files: what is set aside, and what is never exceeded. The root is read-only, so there is
/// nothing else: the kubelet keeps five log files of 10 MiB of a container unless told otherwise, and temporary files
/// have a size of their own ([`TEMPORARY_SIZE`]).
pub(crate) const EPHEMERAL: (&str, &str) = ("128Mi", "256Mi");
/// Most bytes of temporary files.
pub(crate) const TEMPORARY_SIZE: &str = "64Mi";

/// What a replica's share follows from, beside its spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Bytes on each device.
    pub budget: Bytes,
    /// Bytes of the largest tensor as the device keeps it: made on the host before they are copied.
    pub largest_tensor: Bytes,
    /// Cards.
    pub devices: u32,
    /// Whether the cards are simulated: then their bytes are the node's.
    pub simulated: bool,
}

/// What a replica takes of its node beside cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Memory of the node.
    pub host_memory: Bytes,
}

/// The share of a replica. What the spec asks for replaces what is thought to be needed, and is taken as a whole.
///
/// # Errors
/// Amounts past 64 bits.
pub fn share(spec: &LlmDeploymentSpec, load: &Load) -> Result<Share, BytesError> {
    let Load { budget, largest_tensor, devices, simulated } = *load;
    let (requests, limits) = amounts(spec);
    let on_card = spec.accelerator.class == DeviceClass::Nvidia && !simulated;
    let usual = if on_card { CARD_CPU_MILLIS * (1 + u64::from(devices)) } else { CPU_MILLIS };
    let cpu = [&requests, &limits].map(|amounts| amounts.cpu.as_deref().map(millis));
    let cpu_millis = match cpu {
        [Some(request), _] => request,
        // A request past the limit would be refused by the API server.
        [None, Some(limit)] => limit.min(usual),
        [None, None] => usual,
    };
    let asked = requests.memory.or(limits.memory).map(|memory| memory.parse()).transpose()?;
    let host_memory = match (spec.accelerator.class, simulated) {
        (DeviceClass::Cpu, _) => budget.plus(HOST_OVERHEAD)?,
        (DeviceClass::Nvidia, true) => budget.plus(asked.unwrap_or(HOST_OVERHEAD))?,
        (DeviceClass::Nvidia, false) => match asked {
            Some(asked) => asked,
            None => {
                CARD_HOST_MEMORY.plus(largest_tensor)?.plus(shared_memory(devices).unwrap_or_default())?
            }
        },
    };
    Ok(Share { cpu_millis, host_memory })
}

/// Most bytes of the memory that processes share, where it takes more than a container has anyway.
pub(super) fn shared_memory(devices: u32) -> Option<Bytes> {
    (devices > 1).then_some(SHARED_MEMORY)
}

/// Requests and limits of the container that spends a booking.
///
/// Memory is requested as it is limited, so that a pod is never killed for the memory of another, except where the
/// spec asks for a limit of its own.
#[must_use]
pub fn requirements(
    spec: &LlmDeploymentSpec,
    booking: &PlacementStatus,
    simulated: bool,
) -> ResourceRequirements {
    let (requested, limited) = amounts(spec);
    let on_host = booking.host_memory;
    let of_spec = match (spec.accelerator.class, simulated, requested.memory, limited.memory) {
        // Without a request, the limit is what was booked already.
        (DeviceClass::Nvidia, false, Some(_), Some(limit)) => limit.parse().unwrap_or(on_host),
        _ => on_host,
    };
    let mut requests = BTreeMap::from([
        ("cpu", cores(booking.cpu_millis)),
        ("memory", on_host.0.to_string()),
        ("ephemeral-storage", EPHEMERAL.0.to_owned()),
    ]);
    let mut limits = BTreeMap::from([
        ("memory", on_host.max(of_spec).0.to_string()),
        ("ephemeral-storage", EPHEMERAL.1.to_owned()),
    ]);
    if let Some(limit) = limited.cpu.as_deref().map(millis) {
        limits.insert("cpu", cores(limit.max(booking.cpu_millis)));
    }
    if booking.devices > 0 {
        requests.insert(GPU_RESOURCE, booking.devices.to_string());
        limits.insert(GPU_RESOURCE, booking.devices.to_string());
    }
    let quantities = |amounts: BTreeMap<&str, String>| {
        Some(amounts.into_iter().map(|(name, amount)| (name.to_owned(), Quantity(amount))).collect())
    };
    ResourceRequirements {
        requests: quantities(requests),
        limits: quantities(limits),
        ..ResourceRequirements::default()
    }
}

fn amounts(spec: &LlmDeploymentSpec) -> (ResourceAmounts, ResourceAmounts) {
    let resources = spec.serving.as_ref().and_then(|serving| serving.resources.clone()).unwrap_or_default();
    (resources.requests.unwrap_or_default(), resources.limits.unwrap_or_default())
}

fn millis(cpu: &str) -> u64 {
    quantity::cpu_millis(&Quantity(cpu.to_owned()))
}

fn cores(millis: u64) -> String {
    if millis.is_multiple_of(1000) { (millis / 1000).to_string() } else { format!("{millis}m") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(rest: &str) -> LlmDeploymentSpec {
        serde_norway::from_str(&format!("model: {{modelRef: {{name: w}}}}\n{rest}")).unwrap()
    }

    #[test]
    fn a_share_follows_from_class_budget_and_spec() {
        let load = |devices, simulated| Load {
            budget: Bytes::mib(1024),
            largest_tensor: Bytes::mib(100),
            devices,
            simulated,
        };
        let (cores, card, simulated) = (load(0, false), load(1, false), load(1, true));
        let cases = [
            ("accelerator: {class: CPU}", cores, 500, 1024 + 64),
            ("", card, 2000, 2048 + 100),
            ("", load(2, false), 3000, 2048 + 100 + 1024),
            ("", simulated, 500, 1024 + 64),
            ("serving: {resources: {requests: {cpu: 1500m, memory: 4Gi}}}", card, 1500, 4096),
            ("serving: {resources: {requests: {memory: 4Gi}}}", simulated, 500, 4096 + 1024),
            ("serving: {resources: {limits: {cpu: '0.25', memory: 3Gi}}}", card, 250, 3072),
            ("serving: {resources: {requests: {cpu: '2'}, limits: {cpu: '4'}}}", card, 2000, 2048 + 100),
        ];
        for (rest, load, cpu_millis, mib) in cases {
            let expected = Share { cpu_millis, host_memory: Bytes::mib(mib) };
            assert_eq!(share(&spec(rest), &load), Ok(expected), "{rest}");
        }
        let all = Load { budget: Bytes(u64::MAX), ..cores };
        assert_eq!(share(&spec("accelerator: {class: CPU}"), &all), Err(BytesError::Overflow));
    }

    #[test]
    fn cores_are_written_as_the_api_server_writes_them() {
        assert_eq!((cores(2000), cores(2500)), ("2".to_owned(), "2500m".to_owned()));
    }
}
