//! The cards of a node, as its labels and allocatable resources tell them.
//!
//! In: labels of GPU feature discovery. Out: [`Cards`]. What no label tells stays unknown; nothing is guessed from
//! product names.

use std::collections::BTreeMap;

use contract::Bytes;
use contract::device::Version;

/// The extended resource of whole cards, and the taint of nodes that are kept for it.
pub const GPU_RESOURCE: &str = "nvidia.com/gpu";
/// MiB of one card.
const MEMORY: &str = "nvidia.com/gpu.memory";
/// Product name.
pub const PRODUCT: &str = "nvidia.com/gpu.product";
/// How cards are shared by the device plug-in.
const SHARING: &str = "nvidia.com/gpu.sharing-strategy";
/// The driver's version, as newer and as older discovery labels it.
const DRIVER: [&str; 2] = ["nvidia.com/cuda.driver-version", "nvidia.com/cuda.driver"];
/// The newest CUDA that the driver is made for, likewise.
const CUDA: [&str; 2] = ["nvidia.com/cuda.runtime-version", "nvidia.com/cuda.runtime"];
/// Compute capability.
const COMPUTE: [&str; 1] = ["nvidia.com/gpu.compute"];

/// The cards of a node. They are alike: labels describe one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cards {
    /// Product name, if a label tells.
    pub product: Option<String>,
    /// Bytes of one card, if a label tells.
    pub memory: Option<Bytes>,
    /// The device plug-in's way of sharing, if it counts shares instead of cards.
    pub sharing: Option<String>,
    /// The driver's version, if labels tell.
    pub driver: Option<Version>,
    /// The newest CUDA that the driver is made for, if labels tell.
    pub cuda: Option<Version>,
    /// Compute capability, if labels tell.
    pub compute: Option<Version>,
    /// How many there are.
    pub total: u32,
}

impl Cards {
    /// Reads a node's labels; `None` where there are no cards.
    #[must_use]
    pub fn read(labels: &BTreeMap<String, String>, total: u32) -> Option<Self> {
        let mebibytes = labels.get(MEMORY).and_then(|text| text.parse::<u64>().ok());
        let memory =
            mebibytes.and_then(|count| Bytes(count).times(1 << 20).ok()).filter(|b| *b > Bytes::ZERO);
        let sharing = labels.get(SHARING).filter(|strategy| *strategy != "none").cloned();
        (total > 0).then(|| Self {
            product: labels.get(PRODUCT).cloned(),
            memory,
            sharing,
            driver: version(labels, &DRIVER),
            cuda: version(labels, &CUDA),
            compute: version(labels, &COMPUTE),
            total,
        })
    }
}

/// The first version that is told in full; each number has a label of its own.
fn version(labels: &BTreeMap<String, String>, names: &[&str]) -> Option<Version> {
    names.iter().find_map(|name| {
        let number = |part: &str| labels.get(&format!("{name}.{part}"))?.parse().ok();
        Some(Version { major: number("major")?, minor: number("minor")? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cards(labels: &[(&str, &str)]) -> Cards {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Cards::read(&labels, 1).unwrap()
    }

    #[test]
    fn versions_are_read_under_their_new_and_their_old_names() {
        let new = [
            ("nvidia.com/cuda.driver-version.major", "580"),
            ("nvidia.com/cuda.driver-version.minor", "65"),
            ("nvidia.com/cuda.driver-version.revision", "06"),
            ("nvidia.com/cuda.driver-version.full", "580.65.06"),
            ("nvidia.com/cuda.runtime-version.major", "13"),
            ("nvidia.com/cuda.runtime-version.minor", "0"),
            ("nvidia.com/gpu.compute.major", "9"),
            ("nvidia.com/gpu.compute.minor", "0"),
        ];
        let old = [
            ("nvidia.com/cuda.driver.major", "470"),
            ("nvidia.com/cuda.driver.minor", "57"),
            ("nvidia.com/cuda.runtime.major", "11"),
            ("nvidia.com/cuda.runtime.minor", "4"),
        ];
        let version = |major, minor| Some(Version { major, minor });
        let all = |cards: &Cards| [cards.driver, cards.cuda, cards.compute];
        assert_eq!(all(&cards(&new)), [version(580, 65), version(13, 0), version(9, 0)]);
        assert_eq!(all(&cards(&old)), [version(470, 57), version(11, 4), None]);
        let both = [&old[..], &new[..]].concat();
        assert_eq!(all(&cards(&both)), all(&cards(&new)));
    }

    #[test]
    fn what_is_not_told_in_full_is_unknown() {
        let half = ("nvidia.com/gpu.compute.major", "8");
        for labels in [&[][..], &[half], &[half, ("nvidia.com/gpu.compute.minor", "x")]] {
            assert_eq!(cards(labels).compute, None, "{labels:?}");
        }
    }
}
