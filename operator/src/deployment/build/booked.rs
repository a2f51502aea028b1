//! A booking as its pod carries it, for when the status that it stands in is lost.
//!
//! In: a booking, or a pod. Out: an annotation, or the booking back. It must not know whether a status has it too.
//!
//! Fields may be added without another version: who does not know them ignores them. What changes the meaning of a field
//! is another version, and who does not know that takes nothing from it and reads the pod itself.

use contract::labels::BOOKED;
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use crate::api::deployment::PlacementStatus;

/// Version that this code writes and reads.
const BOOKED_VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    #[serde(flatten)]
    booking: PlacementStatus,
}

/// Value of the annotation.
#[must_use]
pub fn write(booking: &PlacementStatus) -> String {
    let written = Written { version: BOOKED_VERSION, booking: booking.clone() };
    serde_json::to_string(&written).expect("strings and numbers serialize")
}

/// The booking that a pod carries, if it is one that this code can read.
#[must_use]
pub fn read(pod: &Pod) -> Option<PlacementStatus> {
    let written: Written = serde_json::from_str(pod.metadata.annotations.as_ref()?.get(BOOKED)?).ok()?;
    (written.version == BOOKED_VERSION).then_some(written.booking)
}
