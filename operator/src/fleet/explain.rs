//! Refusals in words that a person can act on.
//!
//! In: a refusal. Out: one sentence, the nearest misses first; and how many bytes would have fitted.

use std::fmt;

use contract::Bytes;

use super::{Demand, Reason, Refusal};

/// Nodes that are told of one by one.
const TOLD: usize = 8;

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady => write!(f, "is not ready"),
            Self::Cordoned => write!(f, "is cordoned"),
            Self::Architecture(has) => write!(f, "is a node of {has}, which the image is not built for"),
            Self::Label(label) => write!(f, "lacks the label {label}"),
            Self::Volume => write!(f, "cannot read the volume with the weights"),
            Self::VolumeElsewhere(node) => {
                write!(f, "cannot read the volume with the weights, which is attached to {node} alone")
            }
            Self::Taint(key) => write!(f, "has the taint {key}, which is not tolerated"),
            Self::Pods => write!(f, "has no pod slot free"),
            Self::Cpu { need, free } => write!(f, "needs {need}m cores, {free}m are free"),
            Self::HostMemory { need, free } => write!(f, "needs {need} of host memory, {free} are free"),
            Self::NoCards => write!(f, "has no nvidia.com/gpu"),
            Self::SharedCards(strategy) => {
                write!(f, "shares its cards ({strategy}), so that a whole one cannot be had")
            }
            Self::Driver { need, has } => {
                write!(f, "has driver {has}, the runtime needs {need} or newer")
            }
            Self::Cuda { need, has } => {
                write!(f, "has a driver for CUDA {has}, the runtime needs one for {need} or newer")
            }
            Self::ComputeCapability { need, has } => {
                write!(f, "has cards of compute capability {has}, the runtime needs {need} or higher")
            }
            Self::Product(product) => write!(f, "has cards of product {product}"),
            Self::UnknownMemory => {
                write!(
                    f,
                    "has cards of unknown memory: label the node (nvidia.com/gpu.memory), or set accelerator.memory"
                )
            }
            Self::CardBytes { need, card, free: 0 } => write!(f, "needs {need}, its cards have {card}"),
            Self::CardBytes { need, card, free: _ } => {
                write!(f, "needs {need}, largest free card has {card}")
            }
            Self::CardsTaken { total: 1, free: 0 } => write!(f, "its only card is taken"),
            Self::CardsTaken { total, free: 0 } => write!(f, "all {total} cards are taken"),
            Self::CardsTaken { total, free } => write!(f, "{free} of {total} cards are free"),
            Self::Bytes { need, free } => write!(f, "needs {need}, {free} of memory are free"),
        }
    }
}

impl Reason {
    /// One word of a closed set.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NotReady => "NotReady",
            Self::Cordoned => "Cordoned",
            Self::Architecture(_) => "Architecture",
            Self::Label(_) => "Label",
            Self::Volume | Self::VolumeElsewhere(_) => "Volume",
            Self::Taint(_) => "Taint",
            Self::Pods => "Pods",
            Self::Cpu { .. } => "Cpu",
            Self::HostMemory { .. } => "HostMemory",
            Self::NoCards => "NoCards",
            Self::SharedCards(_) => "SharedCards",
            Self::Driver { .. } => "Driver",
            Self::Cuda { .. } => "Cuda",
            Self::ComputeCapability { .. } => "ComputeCapability",
            Self::Product(_) => "Product",
            Self::UnknownMemory => "UnknownMemory",
            Self::CardsTaken { .. } => "CardsTaken",
            Self::CardBytes { .. } | Self::Bytes { .. } => "Bytes",
        }
    }

    /// How near a node was to fit: what a person can do most about comes first.
    const fn nearness(&self) -> u8 {
        match self {
            Self::Bytes { .. } | Self::CardBytes { .. } => 0,
            Self::CardsTaken { .. } => 1,
            Self::UnknownMemory | Self::SharedCards(_) | Self::Product(_) => 2,
            Self::Driver { .. } | Self::Cuda { .. } => 2,
            Self::HostMemory { .. } | Self::Cpu { .. } | Self::Pods => 3,
            Self::Taint(_) | Self::Label(_) | Self::VolumeElsewhere(_) | Self::Volume => 4,
            Self::NotReady | Self::Cordoned => 5,
            Self::Architecture(_) | Self::NoCards | Self::ComputeCapability { .. } => 6,
        }
    }
}

/// The nearest misses first; nodes that are alike are told together.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes.is_empty() {
            return write!(f, "the cluster has no nodes");
        }
        let mut groups: Vec<(u8, String, Vec<&str>)> = Vec::new();
        for (node, reason) in &self.nodes {
            let words = reason.to_string();
            match groups.iter_mut().find(|(_, known, _)| *known == words) {
                Some((_, _, nodes)) => nodes.push(node),
                None => groups.push((reason.nearness(), words, vec![node])),
            }
        }
        groups.sort_by(|a, b| (a.0, a.2[0]).cmp(&(b.0, b.2[0])));
        for (index, (_, words, nodes)) in groups.iter().take(TOLD).enumerate() {
            let comma = if index > 0 { "; " } else { "" };
            match nodes.as_slice() {
                [node] => write!(f, "{comma}{node}: {words}")?,
                [first, rest @ ..] => write!(f, "{comma}{first} and {} more: {words}", rest.len())?,
                [] => {}
            }
        }
        let more: usize = groups.iter().skip(TOLD).map(|(_, _, nodes)| nodes.len()).sum();
        if more > 0 { write!(f, "; and {more} more nodes") } else { Ok(()) }
    }
}

impl Refusal {
    /// The nearest miss as one word of a closed set, for metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        self.nodes
            .iter()
            .map(|(_, reason)| reason)
            .min_by_key(|r| r.nearness())
            .map_or("NoNodes", Reason::name)
    }

    /// Most bytes that a demand like this one could have had, where bytes were all that was missing.
    #[must_use]
    pub fn largest_fit(&self, demand: &Demand) -> Option<Bytes> {
        let could_have = |(_, reason): &(String, Reason)| match reason {
            Reason::CardBytes { card, free, .. } if *free >= demand.amounts.devices => Some(*card),
            Reason::Bytes { free, .. } => Some(*free),
            _ => None,
        };
        self.nodes.iter().filter_map(could_have).max()
    }
}
