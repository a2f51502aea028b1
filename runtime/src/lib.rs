//! The inference server and everything that touches weights.
//!
//! ```text
//! fetch    URL ⇒ volume ⇒ manifest          inspect  file ⇒ checkpoint → inspection
//! ```

pub mod checkpoint;
pub mod command;
pub mod engine;
pub mod exit;
pub mod fetch;
#[cfg(test)]
mod fixture;
pub mod http;
pub mod inspect;
pub mod model;
pub mod progress;
pub mod weights;
