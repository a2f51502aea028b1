//! What is known of a checkpoint without its weights: one [`Inspection`], and a table for people.
//!
//! In: a [`Checkpoint`] and, if the files were just fetched, their manifest. Out: values and text.
//! It must not load weights.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use contract::bytes::{Bytes, BytesError};
use contract::exit::{ExitReason, ExitReport};
use contract::inspect::{Inspection, LineError};
use contract::manifest::{self, Manifest, ManifestFile};
use contract::tensors::{group, parameters};
use sha2::{Digest, Sha256};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::exit;

mod table;

pub use table::table;

/// Longest name of a licence that is passed on; SPDX expressions are far shorter.
const MAX_LICENSE_BYTES: usize = 128;

/// Why there is no inspection.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The path is no checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file cannot be hashed.
    #[error("cannot hash {path}")]
    Hash {
        /// The file.
        path: String,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// Sums past 64 bits.
    #[error("the checkpoint's sizes do not fit in 64 bits")]
    Overflow(#[from] BytesError),
    /// More distinct tensors than a status holds.
    #[error("the checkpoint cannot be described")]
    Line(#[from] LineError),
}

impl From<InspectError> for ExitReport {
    fn from(error: InspectError) -> Self {
        let reason = match &error {
            InspectError::Checkpoint(e) => e.reason(),
            InspectError::Hash { .. } => ExitReason::VolumeFailed,
            InspectError::Overflow(_) => ExitReason::WeightsCorrupt,
            InspectError::Line(_) => ExitReason::ModelUnsupported,
        };
        exit::report(reason, &error)
    }
}

/// Inspects a checkpoint, hashing every file of it.
pub fn inspect(checkpoint: &Checkpoint) -> Result<Inspection, InspectError> {
    let files: Result<Vec<_>, _> = checkpoint.files.iter().map(|f| hashed(&checkpoint.root, f)).collect();
    inspect_fetched(checkpoint, &Manifest::new(files?))
}

/// Inspects files whose manifest is known because they have just been verified.
pub fn inspect_fetched(checkpoint: &Checkpoint, manifest: &Manifest) -> Result<Inspection, InspectError> {
    let tensors = group(&checkpoint.header.tensors);
    let license = checkpoint.header.metadata.get("general.license").and_then(|v| v.as_str());
    let license = license.filter(|l| l.len() <= MAX_LICENSE_BYTES && !l.contains(char::is_control));
    Ok(Inspection {
        format: checkpoint.format,
        digest: manifest.digest.clone(),
        bytes: manifest::total(&manifest.files)?,
        files: u32::try_from(manifest.files.len()).map_err(|_| BytesError::Overflow)?,
        parameters: parameters(&tensors)?,
        license: license.map(str::to_owned),
        geometry: checkpoint.geometry.clone(),
        tensors,
    })
}

fn hashed(root: &Path, name: &str) -> Result<ManifestFile, InspectError> {
    let wrong = |source| InspectError::Hash { path: name.to_owned(), source };
    let mut file = File::open(root.join(name)).map_err(wrong)?;
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(wrong)?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        bytes += n as u64;
    }
    Ok(ManifestFile { path: name.to_owned(), bytes: Bytes(bytes), sha256: hex::encode(hash.finalize()) })
}

#[cfg(test)]
mod tests;
