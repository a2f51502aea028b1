//! Faults between an operator and the API server, made on purpose.
//!
//! In: a control plane, and a rule that says what befalls which request. Out: an address that an operator is started
//! with, what it asked for, and a report. It must not know what the operator should do about a fault.
//!
//! [`proxy`] and [`rule`] make faults; [`life`] is a script that a fleet goes through whatever befalls its operator,
//! with a [`player`] for scheduler and kubelet; [`state`] is what two runs of it are compared by; [`kill`] and [`befall`] are one run each, on a
//! [`stage`].

pub mod befall;
pub mod kill;
pub mod life;
pub mod player;
pub mod proxy;
pub mod report;
pub mod request;
pub mod rule;
pub mod stage;
pub mod state;
mod watching;
