//! The cards of a node, as its labels and allocatable resources tell them.
//!
//! In: labels of GPU feature discovery. Out: [`Cards`]. What no label tells stays unknown; nothing is guessed from
//! product names.

use std::collections::BTreeMap;

use contract::Bytes;

/// The extended resource of whole cards, and the taint of nodes that are kept for it.
pub const GPU_RESOURCE: &str = "nvidia.com/gpu";
/// MiB of one card.
const MEMORY: &str = "nvidia.com/gpu.memory";
/// Product name.
pub const PRODUCT: &str = "nvidia.com/gpu.product";
/// How cards are shared by the device plug-in.
const SHARING: &str = "nvidia.com/gpu.sharing-strategy";

/// The cards of a node. They are alike: labels describe one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cards {
    /// Product name, if a label tells.
    pub product: Option<String>,
    /// Bytes of one card, if a label tells.
    pub memory: Option<Bytes>,
    /// The device plug-in's way of sharing, if it counts shares instead of cards.
    pub sharing: Option<String>,
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
        (total > 0).then(|| Self { product: labels.get(PRODUCT).cloned(), memory, sharing, total })
    }
}
