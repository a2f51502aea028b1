//! `LlmDeployment`: a model that is served.
//!
//! In: nothing. Out: the kind with its schema. It must not know how a replica is placed or run.

mod spec;
mod status;

pub use spec::*;
pub use status::*;
