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
/// Host memory of a process whose model lies on a card: the driver's, staging buffers, and weights on their way.
const CARD_HOST_MEMORY: Bytes = Bytes::mib(2048);
/// Thousandths of a core that are set aside unless the spec says otherwise.
const CPU_MILLIS: u64 = 500;
/// Room for logs and temporary files: what is set aside, and what is never exceeded.
const EPHEMERAL: (&str, &str) = ("64Mi", "256Mi");

/// What a replica takes of its node beside cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Memory of the node.
    pub host_memory: Bytes,
}

/// The share of a replica with this budget. A simulated card lies in the memory of the node.
///
/// # Errors
/// Amounts past 64 bits.
pub fn share(spec: &LlmDeploymentSpec, budget: Bytes, simulated: bool) -> Result<Share, BytesError> {
    let (requests, limits) = amounts(spec);
    let cpu = [&requests, &limits].map(|amounts| amounts.cpu.as_deref().map(millis));
    let cpu_millis = match cpu {
        [Some(request), _] => request,
        // A request past the limit would be refused by the API server.
        [None, Some(limit)] => limit.min(CPU_MILLIS),
        [None, None] => CPU_MILLIS,
    };
    let asked = requests.memory.or(limits.memory).map(|memory| memory.parse()).transpose()?;
    let host_memory = match (spec.accelerator.class, simulated) {
        (DeviceClass::Cpu, _) => budget.plus(HOST_OVERHEAD)?,
        (DeviceClass::Nvidia, true) => budget.plus(asked.unwrap_or(HOST_OVERHEAD))?,
        (DeviceClass::Nvidia, false) => asked.unwrap_or(CARD_HOST_MEMORY),
    };
    Ok(Share { cpu_millis, host_memory })
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
        let gib = Bytes::mib(1024);
        let cases = [
            ("accelerator: {class: CPU}", false, 500, 1024 + 64),
            ("", false, 500, 2048),
            ("", true, 500, 1024 + 64),
            ("serving: {resources: {requests: {cpu: 1500m, memory: 4Gi}}}", false, 1500, 4096),
            ("serving: {resources: {requests: {memory: 4Gi}}}", true, 500, 4096 + 1024),
            ("serving: {resources: {limits: {cpu: '0.25', memory: 3Gi}}}", false, 250, 3072),
            ("serving: {resources: {requests: {cpu: '2'}, limits: {cpu: '4'}}}", false, 2000, 2048),
        ];
        for (rest, simulated, cpu_millis, mib) in cases {
            let expected = Share { cpu_millis, host_memory: Bytes::mib(mib) };
            assert_eq!(share(&spec(rest), gib, simulated), Ok(expected), "{rest}");
        }
        let cpu = spec("accelerator: {class: CPU}");
        assert_eq!(share(&cpu, Bytes(u64::MAX), false), Err(BytesError::Overflow));
    }

    #[test]
    fn cores_are_written_as_the_api_server_writes_them() {
        assert_eq!((cores(2000), cores(2500)), ("2".to_owned(), "2500m".to_owned()));
    }
}
