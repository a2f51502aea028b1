//! Turns the spec into values that need no second look.
//!
//! In: a spec that the API server has admitted. Out: [`Validated`], or what is wrong with it in words.
//! Almost everything is refused by the schema; here stands what its language cannot say.

use std::collections::BTreeMap;

use contract::device::DeviceClass;
use contract::{Bytes, KvDType};
use k8s_openapi::api::core::v1 as core;

use super::build::pod::tolerations;
use crate::api::LlmDeployment;
use crate::api::deployment::KvCacheType;

/// What is asked for, with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    /// Namespace and name.
    pub owner: (String, String),
    /// Uid of the object.
    pub uid: String,
    /// Tokens of one sequence; `None`: the model's own.
    pub context_length: Option<u32>,
    /// Sequences in flight.
    pub concurrency: u32,
    /// Element type of the KV cache.
    pub kv_dtype: KvDType,
    /// Replicas that should run now.
    pub replicas: u32,
    /// Class of device.
    pub class: DeviceClass,
    /// Product names of cards that may be used; empty: any.
    pub products: Vec<String>,
    /// Bytes of a card that no label describes.
    pub card_memory: Option<Bytes>,
    /// Labels that the node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated.
    pub tolerations: Vec<core::Toleration>,
}

/// What is wrong with a spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A quantity that the schema lets through and that does not fit.
    #[error("{field} is {value:?}, which is not a number of bytes that fits in 64 bits")]
    Quantity {
        /// Path of the field.
        field: &'static str,
        /// What it says.
        value: String,
    },
}

/// Fills in defaults and reads quantities.
pub fn validate(llm: &LlmDeployment) -> Result<Validated, Invalid> {
    let name = llm.metadata.name.clone().unwrap_or_default();
    let spec = &llm.spec;
    let card_memory =
        spec.accelerator.memory.as_ref().map(|text| bytes("accelerator.memory", text)).transpose()?;
    let placement = spec.placement.clone().unwrap_or_default();
    let class = spec.accelerator.class;
    Ok(Validated {
        owner: (llm.metadata.namespace.clone().unwrap_or_default(), name),
        uid: llm.metadata.uid.clone().unwrap_or_default(),
        context_length: spec.capacity.context_length,
        concurrency: spec.capacity.concurrency,
        kv_dtype: kv_dtype(spec.capacity.kv_cache_type, class),
        replicas: if spec.suspend { 0 } else { spec.replicas },
        class,
        products: spec.accelerator.products.clone(),
        card_memory,
        node_selector: placement.node_selector,
        tolerations: tolerations(spec),
    })
}

fn bytes(field: &'static str, text: &str) -> Result<Bytes, Invalid> {
    text.parse().map_err(|_| Invalid::Quantity { field, value: text.to_owned() })
}

const fn kv_dtype(asked: KvCacheType, class: DeviceClass) -> KvDType {
    match (asked, class) {
        (KvCacheType::F32, _) | (KvCacheType::Auto, DeviceClass::Cpu) => KvDType::F32,
        (KvCacheType::F16, _) | (KvCacheType::Auto, DeviceClass::Nvidia) => KvDType::F16,
        (KvCacheType::Q8, _) => KvDType::Q8_0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validated(spec: &str) -> Result<Validated, Invalid> {
        let yaml = format!("metadata: {{name: a, namespace: b, uid: c}}\nspec: {spec}");
        let mut llm: serde_json::Value = serde_norway::from_str(&yaml).unwrap();
        llm["apiVersion"] = "llmfleet.dev/v1alpha1".into();
        llm["kind"] = "LlmDeployment".into();
        validate(&serde_json::from_value(llm).unwrap())
    }

    #[test]
    fn defaults_are_filled_in() {
        let cards = validated("{model: {modelRef: {name: m}}}").unwrap();
        assert_eq!((cards.replicas, cards.concurrency, cards.kv_dtype), (1, 4, KvDType::F16));
        assert_eq!(cards.tolerations.len(), 1);
        let cores =
            validated("{model: {modelRef: {name: m}}, accelerator: {class: CPU}, suspend: true}").unwrap();
        assert_eq!((cores.replicas, cores.kv_dtype, cores.tolerations.len()), (0, KvDType::F32, 0));
    }

    #[test]
    fn a_quantity_past_64_bits_is_named() {
        let error =
            validated("{model: {modelRef: {name: m}}, accelerator: {memory: 99999999999Pi}}").unwrap_err();
        assert!(error.to_string().starts_with("accelerator.memory is"), "{error}");
    }
}
