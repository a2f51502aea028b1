//! The custom resources of the group `llmfleet.dev`, version `v1alpha1`.
//!
//! In: nothing. Out: types whose schemas, with descriptions, defaults, bounds and CEL rules, stand in `crds/`.
//! It must not know what is done with an object, only what may stand in one.

#![allow(unreachable_pub, reason = "KubeSchema copies each struct, `pub` included, into a function")]

pub mod condition;
pub mod deployment;
pub mod model;
pub mod schema;
pub mod shared;

pub use deployment::LlmDeployment;
pub use model::LlmModel;
