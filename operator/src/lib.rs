//! The operator: observes the cluster, plans on values, applies what the plan says, reports.
//!
//! ```text
//! API server ⇒ cache ⇒ controllers { observe ⇒ plan → build → Desired ⇒ apply ⇒ Applied → status ⇒ patch }
//! lease      ⇒ leader → Term → fence in `client` (no write is sent outside of one's term)
//! ```
//!
//! `→` is a pure function, `⇒` is I/O.

#![forbid(unsafe_code)]

pub mod admin;
pub mod api;
pub mod apply;
pub mod args;
pub mod ask;
pub mod backoff;
pub mod cache;
pub mod check;
pub mod client;
pub mod context;
pub mod controller;
pub mod crd;
pub mod deployment;
pub mod events;
pub mod fleet;
pub mod kubelet;
pub mod leader;
pub mod metrics;
pub mod model;
pub mod mounts;
pub mod owner;
pub mod placement;
pub mod recent;
pub mod release;
pub mod run;
pub mod security;
pub mod telemetry;
pub mod warnings;
