//! The LlmDeployment pipeline: from what is asked for to pods that answer.
//!
//! ```text
//! stores, pods' admin ports ⇒ observe → Observed, what was left of it adopted ⇒, lost bookings rebook →
//! LlmDeployment → validate → Validated ┐
//! Observed ────────────────────────────┴→ demand → Chosen → rollout → Steps
//! Steps ⇒ placement ⇒ Outcomes → plan → Plan → build → Desired ⇒ apply ⇒ Applied → status ⇒ patch
//! ```
//!
//! `→` is a pure function, `⇒` is I/O. Only `controller` and `observe` do any. Nothing is remembered from pass to
//! pass: the next step follows from what is observed.

pub mod build;
pub mod controller;
pub mod demand;
pub mod health;
pub mod names;
pub mod observe;
pub mod plan;
pub mod reason;
pub mod rebook;
pub mod revision;
pub mod rollout;
pub mod status;
pub mod validate;
pub mod wake;

#[cfg(test)]
mod tests;
