//! The operator: observes the cluster, plans on values, applies what the plan says, reports.

#![forbid(unsafe_code)]

pub mod api;
pub mod crd;
