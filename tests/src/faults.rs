//! Faults between an operator and the API server, made on purpose.
//!
//! In: a control plane, and a rule that says what befalls which request. Out: an address that an operator is started
//! with, what it asked for, and a report. It must not know what the operator should do about a fault.

pub mod proxy;
pub mod report;
pub mod request;
pub mod rule;
mod watching;
