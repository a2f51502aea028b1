//! What an answer depends on beside the request: the same fingerprint, request and seed give the same tokens.
//!
//! In: what was loaded, and onto what. Out: a short text for `system_fingerprint`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use crate::checkpoint::Checkpoint;

/// Bytes of each tensor that a digest without a manifest looks at.
const SAMPLE: u64 = 4096;
/// Hexadecimal digits of a fingerprint.
const DIGITS: usize = 16;

/// What answers depend on.
#[derive(Clone, Copy, Debug)]
pub struct Basis<'a> {
    /// Digest of the weights.
    pub weights: &'a str,
    /// Set of kernels.
    pub kernels: &'a str,
    /// Element type of the cache.
    pub cache: &'a str,
    /// Threads that compute.
    pub threads: usize,
}

impl Basis<'_> {
    /// The fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let Self { weights, kernels, cache, threads } = self;
        let version = env!("CARGO_PKG_VERSION");
        let digest = Sha256::digest(format!("{weights}\n{kernels}\n{cache}\n{threads}\n{version}"));
        let mut text = hex::encode(digest);
        text.truncate(DIGITS);
        format!("fp_{text}")
    }
}

/// Digest of weights that nobody has hashed: of the header and the beginning of every tensor, since reading all of a
/// large file would take longer than starting does.
///
/// # Errors
/// Those of reading the file.
pub fn sampled(checkpoint: &Checkpoint) -> io::Result<String> {
    let file = File::open(&checkpoint.weights)?;
    let mut digest = Sha256::new();
    let mut sample = Vec::new();
    for tensor in &checkpoint.header.tensors {
        digest.update(format!("{} {:?} {:?} {:?}\n", tensor.name, tensor.dtype, tensor.shape, tensor.range));
        let bytes = (tensor.range.end - tensor.range.start).min(SAMPLE);
        sample.resize(usize::try_from(bytes).unwrap_or_default(), 0);
        file.read_exact_at(&mut sample, tensor.range.start)?;
        digest.update(&sample);
    }
    Ok(hex::encode(digest.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_an_answer_depends_on_changes_it() {
        let basis = Basis { weights: "w", kernels: "avx2", cache: "F16", threads: 2 };
        let all = [
            basis,
            Basis { weights: "v", ..basis },
            Basis { kernels: "scalar", ..basis },
            Basis { cache: "F32", ..basis },
            Basis { threads: 3, ..basis },
        ];
        let prints: std::collections::BTreeSet<_> = all.iter().map(Basis::fingerprint).collect();
        assert_eq!(prints.len(), all.len());
        assert!(prints.iter().all(|p| p.starts_with("fp_") && p.len() == 3 + DIGITS));
    }

    #[test]
    fn weights_that_differ_where_tensors_begin_differ() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        let digest = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            sampled(&Checkpoint::open(&path).unwrap()).unwrap()
        };
        let mut bytes = crate::fixture::gguf_file("llama");
        let first = digest(&bytes);
        assert_eq!(first, digest(&bytes));
        *bytes.last_mut().unwrap() ^= 1;
        assert_ne!(first, digest(&bytes));
    }
}
