//! The inference server and everything that touches weights.
//!
//! ```text
//! serve    HTTP ⇒ request → ValidRequest → tokens → engine ⇒ [bounded channel] ⇒ worker
//!          worker: loop { receive ⇒ ; scheduler → StepInput ; model.forward ; sampler → tokens ; emit ⇒ }
//!          Event{token|finished|error} ⇒ tokens::stream → JSON or SSE ⇒ client   (dropped receiver = cancel)
//! fetch    URL ⇒ volume ⇒ manifest
//! inspect  file ⇒ checkpoint → inspection
//! bench    load → prompts, arrivals ⇒ server ⇒ times → report, plot   (any server of OpenAI's protocol)
//! selftest seed → tiny model → logits → compared with the committed ones (`serve` does so too, before it loads)
//! ```

pub mod bench;
pub mod cgroup;
pub mod checkpoint;
pub mod command;
pub mod config;
pub mod defaults;
pub mod device;
pub mod dialect;
pub mod embeds;
pub mod engine;
pub mod exit;
pub mod fetch;
pub mod fingerprint;
#[cfg(test)]
mod fixture;
pub mod grammar;
pub mod guide;
pub mod http;
pub mod inspect;
pub mod load;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod packing;
pub mod progress;
pub mod request;
pub mod selftest;
pub mod tokens;
pub mod weights;
