//! The manifest of a checkpoint: every file with its size and sha256, and one digest of the whole.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bytes::{Bytes, BytesError};

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ManifestFile {
    /// Path below the checkpoint's folder, with `/` between names.
    pub path: String,
    /// Size in bytes.
    pub bytes: Bytes,
    /// Lower-case hex sha256 of the content.
    pub sha256: String,
}

/// Name of the manifest beside the files; it is written last, so a volume that has one is complete.
pub const MANIFEST_FILE: &str = ".llmfleet-manifest.json";

/// What [`MANIFEST_FILE`] holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`digest`] of the files.
    pub digest: String,
    /// The files in path order.
    pub files: Vec<ManifestFile>,
}

impl Manifest {
    /// A manifest of these files.
    #[must_use]
    pub fn new(mut files: Vec<ManifestFile>) -> Self {
        files.sort();
        Self { digest: digest(&files), files }
    }
}

/// A path that must not be written below a checkpoint's folder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a plain relative path")]
pub struct PathError(pub String);

/// Longest path below a checkpoint's folder, in bytes.
pub const MAX_PATH: usize = 255;

/// Accepts `config.json` and `a/b.gguf`; refuses absolute paths, `..`, empty names, backslashes and control
/// characters, so that a source can never write outside its folder.
pub fn check_path(path: &str) -> Result<(), PathError> {
    let plain = |name: &str| {
        !name.is_empty()
            && name != "."
            && name != ".."
            && !name.contains(['\\', '\0'])
            && !name.contains(char::is_control)
    };
    if path.len() <= MAX_PATH && path.split('/').all(plain) {
        Ok(())
    } else {
        Err(PathError(path.to_owned()))
    }
}

/// `sha256:` and the hex sha256 of one `sha256  bytes  path` line per file in path order.
///
/// The same files give the same digest wherever they came from and in whichever order they arrived.
#[must_use]
pub fn digest(files: &[ManifestFile]) -> String {
    let mut sorted: Vec<&ManifestFile> = files.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut hash = Sha256::new();
    for file in sorted {
        hash.update(format!("{}  {}  {}\n", file.sha256, file.bytes.0, file.path));
    }
    format!("sha256:{}", hex::encode(hash.finalize()))
}

/// Bytes of all files together.
pub fn total(files: &[ManifestFile]) -> Result<Bytes, BytesError> {
    Bytes::sum(files.iter().map(|f| f.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_content_does() {
        let file =
            |path: &str, sha: &str| ManifestFile { path: path.into(), bytes: Bytes(3), sha256: sha.into() };
        let (a, b) = (file("a", "00"), file("b", "11"));
        assert_eq!(digest(&[a.clone(), b.clone()]), digest(&[b.clone(), a.clone()]));
        assert_ne!(digest(&[a.clone(), b]), digest(&[a, file("b", "12")]));
    }

    #[test]
    fn paths_stay_inside() {
        for good in ["model.gguf", "a/b/c.json", "..x"] {
            assert_eq!(check_path(good), Ok(()));
        }
        for bad in ["", "/etc/passwd", "a//b", "../x", "a/../b", "a\\b", "a\nb", "."] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
    }
}
