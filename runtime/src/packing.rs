//! Which packed file belongs to a checkpoint, and when one is made.
//!
//! In: a checkpoint. Out: its packed weights, if there are any. Without them each start packs anew, into memory of its
//! own, so nothing here is an error for who serves.

use std::fs;
use std::time::UNIX_EPOCH;

use contract::device::DeviceClass;
use kernels::{Isa, Kernels};

use crate::checkpoint::Checkpoint;
use crate::exit::chain;
use crate::fetch::read_manifest;
use crate::weights::Tensors;
use crate::weights::packed::{self, Packed, PackedError};

/// What the packed file must have been made from. The manifest's digest says it, or else size and time of the file.
fn source(checkpoint: &Checkpoint) -> Option<String> {
    if let Some(manifest) = read_manifest(&checkpoint.root) {
        return Some(manifest.digest);
    }
    let metadata = fs::metadata(&checkpoint.weights).ok()?;
    let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{} bytes of {} ns", metadata.len(), modified.as_nanos()))
}

/// The packed weights of a checkpoint, if they are there and are these.
#[must_use]
pub fn find(checkpoint: &Checkpoint) -> Option<Packed> {
    let path = packed::path_of(&checkpoint.weights);
    let found = Packed::open(&path, &source(checkpoint)?);
    match &found {
        Ok(_) => tracing::info!(file = %path.display(), "packed weights are mapped"),
        Err(PackedError::Foreign(_)) => {
            tracing::warn!(file = %path.display(), "packed weights are of something else, and not used");
        }
        Err(error) => tracing::debug!(error = chain(error), "there are no packed weights"),
    }
    found.ok()
}

/// Writes the packed weights of a checkpoint beside it, unless they are there. Gives whether they were missing.
///
/// # Errors
/// Where the volume has no room or cannot be written to. Nothing is left then.
pub fn keep(checkpoint: &Checkpoint) -> Result<bool, PackedError> {
    let path = packed::path_of(&checkpoint.weights);
    let Some(source) = source(checkpoint) else { return Err(PackedError::Foreign(path)) };
    if Packed::open(&path, &source).is_ok() {
        return Ok(false);
    }
    let tensors =
        Tensors::map(&checkpoint.weights, &checkpoint.header).map_err(|e| PackedError::Matrix(e.into()))?;
    let kernels = Kernels::new(Isa::detect(), kernels::threads::available());
    packed::write(&path, &source, &tensors, &kernels, DeviceClass::Cpu)?;
    Ok(true)
}

#[cfg(test)]
mod tests;
