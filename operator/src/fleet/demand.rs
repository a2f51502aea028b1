//! What one replica needs of a node.

use std::collections::BTreeMap;

use contract::Bytes;
use contract::device::{CudaNeeds, DeviceClass};
use k8s_openapi::api::core::v1::{NodeSelector, Toleration};

use super::Amounts;

/// What one replica needs of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// The booking that a placement of this demand makes: 8 hex digits.
    pub booking: String,
    /// Namespace and name of who asks; breaks ties.
    pub owner: (String, String),
    /// Index of the replica; breaks ties.
    pub replica: u32,
    /// Class of device.
    pub class: DeviceClass,
    /// Bytes on each card; on class CPU, the same as the memory of `amounts`.
    pub bytes: Bytes,
    /// What the pod requests of the node.
    pub amounts: Amounts,
    /// Product names of cards that may be used; empty: any.
    pub products: Vec<String>,
    /// What the image needs of driver and cards; `None` where it uses none, or simulates them.
    pub cuda: Option<CudaNeeds>,
    /// Bytes of a card that no label describes.
    pub card_memory: Option<Bytes>,
    /// Architecture that the image is built for, as nodes spell it; `None`: any.
    pub architecture: Option<String>,
    /// Labels that the node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated.
    pub tolerations: Vec<Toleration>,
    /// From where the weights can be read.
    pub reach: Reach,
    /// The booking that would end if this one cannot be had beside it.
    pub instead_of: Option<String>,
    /// The booking that ends with this one: its pod has ended, or runs nowhere. What it spends is free for this one.
    pub takes_over: Option<String>,
    /// The node that the scheduler refuses.
    pub not_on: Option<String>,
}

/// From where a volume can be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Reach {
    /// From every node.
    Anywhere,
    /// From nodes that the volume's affinity admits.
    Nodes(NodeSelector),
    /// From one node at a time: that of the bookings of the same claim, if there are any.
    OneNode {
        /// Namespace and name of the claim.
        claim: (String, String),
        /// The node that reads it now.
        node: Option<String>,
        /// Which nodes the volume's affinity admits: a disk of one zone is still attached to one node only. `None`:
        /// every node.
        selector: Option<NodeSelector>,
    },
}
