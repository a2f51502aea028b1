//! The LlmModel pipeline: brings weights onto a volume, verifies them, and says what they are.
//!
//! ```text
//! LlmModel, stores, calls ⇒ observe ⇒ Observed → plan → Plan → build → Desired ⇒ apply ⇒ Applied → status ⇒ patch
//! ```

pub mod attempt;
pub mod build;
pub mod claim;
pub mod controller;
pub mod name;
pub mod observe;
pub mod plan;
pub mod reason;
pub mod status;
