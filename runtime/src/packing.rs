//! Which packed file belongs to a checkpoint, and when one is made.
//!
//! In: a checkpoint. Out: its packed weights, if there are any. Without them each start packs anew, into memory of its
//! own, so nothing here is an error for who serves.

use std::fs;
use std::io;
use std::time::UNIX_EPOCH;

use contract::device::DeviceClass;
use kernels::{Isa, Kernels};

use crate::checkpoint::Checkpoint;
use crate::exit::chain;
use crate::fetch::read_manifest;
use crate::fingerprint;
use crate::weights::Tensors;
use crate::weights::packed::{self, Packed, PackedError};

/// What the packed file must have been made from: the file's digest, if a manifest lists the file as it is, or else its
/// size, its time and samples of what is in it.
fn source(checkpoint: &Checkpoint) -> io::Result<String> {
    let metadata = fs::metadata(&checkpoint.weights)?;
    let name =
        checkpoint.weights.strip_prefix(&checkpoint.root).unwrap_or(&checkpoint.weights).to_string_lossy();
    let manifest = read_manifest(&checkpoint.root);
    let listed = manifest.iter().flat_map(|manifest| &manifest.files);
    let listed = listed.into_iter().find(|file| file.path == name && file.bytes.0 == metadata.len());
    if let Some(file) = listed {
        return Ok(format!("{name} of sha256 {}", file.sha256));
    }
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let sampled = fingerprint::sampled(checkpoint)?;
    Ok(format!("{name} of {} bytes, {modified} ns, {sampled}", metadata.len()))
}

/// The packed weights of a checkpoint, if they are there and are these.
#[must_use]
pub fn find(checkpoint: &Checkpoint) -> Option<Packed> {
    let path = packed::path_of(&checkpoint.weights);
    let source = source(checkpoint).map_err(|error| PackedError::Io(checkpoint.weights.clone(), error));
    let found = source.and_then(|source| Packed::open(&path, &source));
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
    let source = source(checkpoint).map_err(|error| PackedError::Io(checkpoint.weights.clone(), error))?;
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
