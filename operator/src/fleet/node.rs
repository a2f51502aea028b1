//! One node: `check` says why a demand does not fit, `commit` books it.
//!
//! In: a node's facts and what is free. Out: what would be left, or the first rule that refuses.

use std::collections::BTreeMap;

use contract::Bytes;
use contract::device::{CudaNeeds, DeviceClass, Version};
use k8s_openapi::api::core::v1::Taint;

use super::card::Cards;
use super::demand::Reach;
use super::{Amounts, Demand, selector};

/// Label with a node's architecture.
const ARCHITECTURE: &str = "kubernetes.io/arch";
/// Label with a node's operating system.
const SYSTEM: &str = "kubernetes.io/os";

/// A node and what is free on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Whether its kubelet says that it is ready.
    pub ready: bool,
    /// Whether it takes no new pods.
    pub cordoned: bool,
    /// Its cards; `None` where there are none.
    pub cards: Option<Cards>,
    /// What it has for pods.
    pub allocatable: Amounts,
    /// What is free of that.
    pub free: Amounts,
    /// What was given beyond what it has.
    pub owed: Amounts,
}

/// The rule that refuses. In this order; a rule is only looked at when all before it hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The kubelet does not say that the node is ready.
    NotReady,
    /// The node takes no new pods.
    Cordoned,
    /// The image is not built for it.
    Architecture(String),
    /// A label is missing or has another value.
    Label(String),
    /// The volume with the weights cannot be read from there.
    Volume,
    /// The volume is read from another node, and can be from one only.
    VolumeElsewhere(String),
    /// A taint that is not tolerated.
    Taint(String),
    /// No pod slot is free.
    Pods,
    /// Not enough cores are free.
    Cpu {
        /// Thousandths of a core asked for.
        need: u64,
        /// Thousandths of a core free.
        free: u64,
    },
    /// Not enough memory of the node is free for a pod that uses cards.
    HostMemory {
        /// Bytes asked for.
        need: Bytes,
        /// Bytes free.
        free: Bytes,
    },
    /// There are no cards.
    NoCards,
    /// The device plug-in counts shares of cards as cards.
    SharedCards(String),
    /// The driver is too old for the image.
    Driver {
        /// The oldest that will do.
        need: Version,
        /// The node's.
        has: Version,
    },
    /// The driver is made for a CUDA that is too old for the image.
    Cuda {
        /// The oldest that will do.
        need: Version,
        /// The newest that the driver is made for.
        has: Version,
    },
    /// The cards are too old for the image.
    ComputeCapability {
        /// The least that will do.
        need: Version,
        /// The cards'.
        has: Version,
    },
    /// Another product.
    Product(String),
    /// Nothing tells how many bytes the cards have.
    UnknownMemory,
    /// The cards are too small.
    CardBytes {
        /// Bytes asked for on one card.
        need: Bytes,
        /// Bytes of one card.
        card: Bytes,
        /// Cards that are free.
        free: u32,
    },
    /// Other pods have the cards.
    CardsTaken {
        /// Cards in all.
        total: u32,
        /// Cards that are free.
        free: u32,
    },
    /// Class CPU: not enough memory is free.
    Bytes {
        /// Bytes asked for.
        need: Bytes,
        /// Bytes free.
        free: Bytes,
    },
}

/// What would be left. The least is the best fit; the order of the fields is the order of the tie-breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Left {
    /// Bytes of a card, or of memory on class CPU.
    pub bytes: Bytes,
    /// Cards.
    pub devices: u32,
    /// Memory of the node.
    pub memory: Bytes,
    /// Thousandths of a core.
    pub cpu_millis: u64,
}

impl Node {
    /// What would be left, or the first rule that refuses.
    pub fn check(&self, demand: &Demand) -> Result<Left, Reason> {
        self.check_admission(demand)?;
        self.check_reach(&demand.reach)?;
        self.check_amounts(demand)?;
        let left = self.free.minus(demand.amounts);
        let bytes = match demand.class {
            DeviceClass::Nvidia => self.check_cards(demand)?.minus(demand.bytes),
            DeviceClass::Cpu => left.memory,
        };
        Ok(Left { bytes, devices: left.devices, memory: left.memory, cpu_millis: left.cpu_millis })
    }

    /// Books what [`Node::check`] found to fit.
    pub fn commit(&mut self, demand: &Demand) {
        self.spend(demand.amounts);
    }

    /// Takes what is spent, also where there is not as much.
    pub fn spend(&mut self, amounts: Amounts) {
        self.owed = self.owed.plus(amounts.minus(self.free));
        self.free = self.free.minus(amounts);
    }

    /// Gives back what was spent. What was given beyond what the node has is not free then either.
    pub fn give_back(&mut self, amounts: Amounts) {
        self.free = self.free.plus(amounts.minus(self.owed));
        self.owed = self.owed.minus(amounts);
    }

    /// Whether pods may be put there at all.
    fn check_admission(&self, demand: &Demand) -> Result<(), Reason> {
        if !self.ready {
            return Err(Reason::NotReady);
        }
        if self.cordoned {
            return Err(Reason::Cordoned);
        }
        let label = |name: &str| self.labels.get(name).map(String::as_str);
        let wanted = [(SYSTEM, Some("linux")), (ARCHITECTURE, demand.architecture.as_deref())];
        for (name, wanted) in wanted {
            if let (Some(has), Some(wanted)) = (label(name), wanted)
                && has != wanted
            {
                return Err(Reason::Architecture(has.to_owned()));
            }
        }
        if let Some((key, value)) = demand.node_selector.iter().find(|(k, v)| label(k) != Some(v.as_str())) {
            return Err(Reason::Label(format!("{key}={value}")));
        }
        match selector::repelling(&self.taints, &demand.tolerations) {
            Some(taint) => Err(Reason::Taint(taint.key.clone())),
            None => Ok(()),
        }
    }

    fn check_reach(&self, reach: &Reach) -> Result<(), Reason> {
        match reach {
            Reach::Nodes(selector) | Reach::OneNode { selector: Some(selector), .. }
                if !selector::matches(selector, &self.name, &self.labels) =>
            {
                Err(Reason::Volume)
            }
            Reach::OneNode { node: Some(node), .. } if *node != self.name => {
                Err(Reason::VolumeElsewhere(node.clone()))
            }
            Reach::Anywhere | Reach::Nodes(_) | Reach::OneNode { .. } => Ok(()),
        }
    }

    fn check_amounts(&self, demand: &Demand) -> Result<(), Reason> {
        let (need, free) = (demand.amounts, self.free);
        if need.pods > free.pods {
            return Err(Reason::Pods);
        }
        if need.cpu_millis > free.cpu_millis {
            return Err(Reason::Cpu { need: need.cpu_millis, free: free.cpu_millis });
        }
        if need.memory <= free.memory {
            return Ok(());
        }
        let (need, free) = (need.memory, free.memory);
        Err(match demand.class {
            DeviceClass::Cpu => Reason::Bytes { need, free },
            DeviceClass::Nvidia => Reason::HostMemory { need, free },
        })
    }

    /// Bytes of one card, if enough cards are large enough and free.
    fn check_cards(&self, demand: &Demand) -> Result<Bytes, Reason> {
        let cards = self.cards.as_ref().ok_or(Reason::NoCards)?;
        if let Some(strategy) = &cards.sharing {
            return Err(Reason::SharedCards(strategy.clone()));
        }
        if let Some(needs) = &demand.cuda {
            check_versions(cards, needs)?;
        }
        let product = cards.product.as_deref().unwrap_or("unknown");
        if !demand.products.is_empty() && !demand.products.iter().any(|p| p == product) {
            return Err(Reason::Product(product.to_owned()));
        }
        let card = cards.memory.or(demand.card_memory).ok_or(Reason::UnknownMemory)?;
        let free = self.free.devices;
        if demand.bytes > card {
            return Err(Reason::CardBytes { need: demand.bytes, card, free });
        }
        if demand.amounts.devices > free {
            return Err(Reason::CardsTaken { total: cards.total, free });
        }
        Ok(card)
    }
}

/// Whether driver and cards run the image. What no label tells is not held against a node: its pod will tell.
fn check_versions(cards: &Cards, needs: &CudaNeeds) -> Result<(), Reason> {
    let older = |has: Option<Version>, need: Version| has.filter(|has| *has < need);
    if let Some(has) = older(cards.driver, needs.driver) {
        return Err(Reason::Driver { need: needs.driver, has });
    }
    if let Some(has) = older(cards.cuda, needs.cuda) {
        return Err(Reason::Cuda { need: needs.cuda, has });
    }
    match older(cards.compute, needs.compute) {
        Some(has) => Err(Reason::ComputeCapability { need: needs.compute, has }),
        None => Ok(()),
    }
}
