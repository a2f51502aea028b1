//! The inference server and everything that touches weights.

pub mod engine;
pub mod model;
pub mod weights;
