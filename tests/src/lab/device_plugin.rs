//! The device plug-in that offers the simulated cards to the kubelet. The program itself is in `lab/device-plugin`.

use sha2::{Digest, Sha256};

use super::site::Site;
use crate::supervisor::namespaces::KUBELET;
use crate::supervisor::protocol::Spec;

/// The process's and the tool's name.
pub const NAME: &str = "device-plugin";
/// The resource that it offers.
pub const RESOURCE: &str = "nvidia.com/gpu";

/// Its process, offering `count` devices.
pub fn process(site: &Site<'_>, count: u32) -> Spec {
    let devices: Vec<_> = (0..count).map(|index| uuid(site.paths.name(), index)).collect();
    site.tool(
        NAME,
        vec![format!("-folder={KUBELET}/device-plugins"), format!("-devices={}", devices.join(","))],
    )
}

/// A device's identifier: always the same for the same place in the same lab.
pub fn uuid(lab: &str, index: u32) -> String {
    let digest = hex::encode(&Sha256::digest(format!("{lab}/{index}"))[..16]);
    let group = |from: usize, to: usize| &digest[from..to];
    format!("GPU-{}-{}-{}-{}-{}", group(0, 8), group(8, 12), group(12, 16), group(16, 20), group(20, 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_apart_and_have_the_drivers_form() {
        let first = uuid("a", 0);
        assert_eq!(first, uuid("a", 0));
        assert_ne!(first, uuid("a", 1));
        let lengths: Vec<_> = first.split('-').map(str::len).collect();
        assert_eq!(lengths, [3, 8, 4, 4, 4, 12]);
    }
}
