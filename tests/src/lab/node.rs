//! The labels by which GPU feature discovery would describe the node's cards. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::settings::Card;
use crate::addresses::NODE_NAME;

/// The driver that the node pretends to have, and the CUDA version that it supports.
const DRIVER: [u32; 3] = [570, 124, 6];
const CUDA: [u32; 2] = [12, 8];

/// Family and compute capability of the products that are often asked for, by the name's second word.
const ARCHITECTURES: &[(&str, &str, u32, u32)] = &[
    ("T4", "turing", 7, 5),
    ("A100", "ampere", 8, 0),
    ("A10", "ampere", 8, 6),
    ("A30", "ampere", 8, 0),
    ("A40", "ampere", 8, 6),
    ("L4", "ada-lovelace", 8, 9),
    ("L40S", "ada-lovelace", 8, 9),
    ("H100", "hopper", 9, 0),
    ("H200", "hopper", 9, 0),
    ("B200", "blackwell", 10, 0),
];

/// The node with its labels, to be applied.
pub fn labelled(card: &Card) -> Value {
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE_NAME, "labels": labels(card) } })
}

fn labels(card: &Card) -> BTreeMap<String, String> {
    let [major, minor, revision] = DRIVER;
    let [cuda_major, cuda_minor] = CUDA;
    let mut labels = BTreeMap::new();
    let mut set = |name: &str, value: String| labels.insert(format!("nvidia.com/{name}"), value);
    set("gpu.present", "true".to_owned());
    set("gpu.count", card.count.to_string());
    set("gpu.product", card.product.clone());
    set("gpu.memory", card.memory_mib.to_string());
    set("gpu.machine", "lab".to_owned());
    set("gpu.mode", "compute".to_owned());
    set("gpu.replicas", "1".to_owned());
    set("gpu.sharing-strategy", "none".to_owned());
    set("mig.capable", "false".to_owned());
    set("mig.strategy", "none".to_owned());
    set("mps.capable", "false".to_owned());
    set("vgpu.present", "false".to_owned());
    // The driver writes its minor and revision numbers with two digits.
    set("cuda.driver-version.full", format!("{major}.{minor}.{revision:02}"));
    set("cuda.driver-version.major", major.to_string());
    set("cuda.driver-version.minor", minor.to_string());
    set("cuda.driver-version.revision", format!("{revision:02}"));
    set("cuda.driver.major", major.to_string());
    set("cuda.driver.minor", minor.to_string());
    set("cuda.driver.rev", format!("{revision:02}"));
    set("cuda.runtime-version.full", format!("{cuda_major}.{cuda_minor}"));
    set("cuda.runtime-version.major", cuda_major.to_string());
    set("cuda.runtime-version.minor", cuda_minor.to_string());
    set("cuda.runtime.major", cuda_major.to_string());
    set("cuda.runtime.minor", cuda_minor.to_string());
    let model = card.product.split('-').nth(1).unwrap_or_default();
    if let Some((_, family, major, minor)) = ARCHITECTURES.iter().find(|(known, ..)| *known == model) {
        set("gpu.family", (*family).to_owned());
        set("gpu.compute.major", major.to_string());
        set("gpu.compute.minor", minor.to_string());
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_card_is_described_in_full() {
        let labels =
            labels(&Card { product: "NVIDIA-A100-SXM4-80GB".to_owned(), memory_mib: 81_920, count: 8 });
        let get = |name: &str| labels.get(&format!("nvidia.com/{name}")).map(String::as_str);
        assert_eq!(get("gpu.memory"), Some("81920"));
        assert_eq!(get("gpu.family"), Some("ampere"));
        assert_eq!((get("gpu.compute.major"), get("gpu.compute.minor")), (Some("8"), Some("0")));
        assert_eq!(get("cuda.driver-version.full"), Some("570.124.06"));
    }

    #[test]
    fn an_unknown_card_has_no_architecture() {
        let labels = labels(&Card { product: "NVIDIA-X9".to_owned(), memory_mib: 1, count: 1 });
        assert!(!labels.contains_key("nvidia.com/gpu.family"));
        assert_eq!(labels["nvidia.com/gpu.product"], "NVIDIA-X9");
    }
}
