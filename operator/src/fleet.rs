//! The fleet: what nodes have, what is spent, and where a demand fits best.
//!
//! In: nodes, pods, recorded placements, demands. Out: an outcome for each demand, with reasons in words.
//! It must not know clients, clocks or metrics, nor what a demand is for.
//!
//! ```text
//! pods, status.placement, assumed bookings → ledger ─┐
//! nodes ─────────────────────────────────────────────┴→ snapshot → Fleet ─┐
//! Demand ─────────────────────────────────────────────────────────────────┴→ place → Outcome → explain
//! ```

pub mod amounts;
pub mod card;
pub mod demand;
pub mod explain;
pub mod ledger;
pub mod node;
pub mod place;
pub mod quantity;
pub mod selector;
pub mod snapshot;

pub use amounts::Amounts;
pub use demand::Demand;
pub use ledger::{Ledger, Spending};
pub use node::{Node, Reason};
pub use place::{Outcome, Refusal, place};
pub use snapshot::Fleet;
