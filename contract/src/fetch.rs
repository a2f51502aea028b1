//! `FetchSpec`: what the operator asks a fetch job to bring onto a volume.
//!
//! In: JSON from the job's command line. Out: a list of files that may be fetched as they stand.
//! It must not know how they are fetched.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::manifest::{PathError, check_path};

/// Most files of one checkpoint.
pub const MAX_FILES: usize = 256;
/// Longest URL, in bytes.
pub const MAX_URL: usize = 2048;

/// Files to fetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchSpec {
    /// The files, in the order in which they are fetched.
    pub files: Vec<FetchFile>,
}

/// One file to fetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchFile {
    /// Where it is: `http` or `https`.
    pub url: String,
    /// Lower-case hex sha256 that its content must have.
    pub sha256: String,
    /// Where it goes below the checkpoint's folder.
    pub path: String,
}

/// Why a spec cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchSpecError {
    /// Not the JSON that it should be.
    #[error("the fetch spec is not valid")]
    Malformed(#[source] serde_json::Error),
    /// No file, or more than a checkpoint has.
    #[error("the fetch spec names {0} files; from 1 to {MAX_FILES} are accepted")]
    Count(usize),
    /// Not a URL that may be fetched.
    #[error("{0:?} is not an http or https URL without credentials of at most {MAX_URL} characters")]
    Url(String),
    /// Not a digest.
    #[error("{0:?} is not a sha256 of 64 lower-case hex digits")]
    Sha256(String),
    /// A path that would leave the folder, or hide in it.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A path whose name begins with a dot: those are the fetch job's own.
    #[error("{0:?} begins with a dot; hidden files are not part of a checkpoint")]
    Hidden(String),
    /// Two files at the same place, or one below the other.
    #[error("{0:?} is named twice, or lies below another file of the spec")]
    Duplicate(String),
}

impl FetchSpec {
    /// Reads and checks a spec.
    pub fn from_json(json: &str) -> Result<Self, FetchSpecError> {
        let spec: Self = serde_json::from_str(json).map_err(FetchSpecError::Malformed)?;
        spec.check()?;
        Ok(spec)
    }

    /// One line of JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings serialize")
    }

    /// Checks every file, and that no two lie at the same place.
    pub fn check(&self) -> Result<(), FetchSpecError> {
        if self.files.is_empty() || self.files.len() > MAX_FILES {
            return Err(FetchSpecError::Count(self.files.len()));
        }
        let mut seen = BTreeSet::new();
        for file in &self.files {
            file.check()?;
            if !seen.insert(file.path.as_str()) {
                return Err(FetchSpecError::Duplicate(file.path.clone()));
            }
        }
        let below = |path: &str| path.char_indices().any(|(at, c)| c == '/' && seen.contains(&path[..at]));
        match self.files.iter().find(|f| below(&f.path)) {
            Some(file) => Err(FetchSpecError::Duplicate(file.path.clone())),
            None => Ok(()),
        }
    }
}

impl FetchFile {
    fn check(&self) -> Result<(), FetchSpecError> {
        if !is_plain_url(&self.url) {
            return Err(FetchSpecError::Url(self.url.clone()));
        }
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if self.sha256.len() != 64 || !self.sha256.bytes().all(is_hex) {
            return Err(FetchSpecError::Sha256(self.sha256.clone()));
        }
        check_path(&self.path)?;
        if self.path.split('/').any(|name| name.starts_with('.')) {
            return Err(FetchSpecError::Hidden(self.path.clone()));
        }
        Ok(())
    }
}

fn is_plain_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.and_then(|r| r.split(['/', '?', '#']).next()).unwrap_or("");
    let printable = url.bytes().all(|b| b.is_ascii_graphic());
    url.len() <= MAX_URL && printable && !host.is_empty() && !host.starts_with(':') && !host.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(url: &str, sha256: &str, path: &str) -> FetchFile {
        FetchFile { url: url.into(), sha256: sha256.into(), path: path.into() }
    }

    fn good(path: &str) -> FetchFile {
        file("https://models.example/a?b=c", &"0f".repeat(32), path)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let spec = FetchSpec { files: vec![good("config.json"), good("weights/model.safetensors")] };
        assert_eq!(FetchSpec::from_json(&spec.to_json()).unwrap(), spec);
        assert!(matches!(FetchSpec::from_json("{}"), Err(FetchSpecError::Malformed(_))));
        assert!(matches!(FetchSpec { files: vec![] }.check(), Err(FetchSpecError::Count(0))));
    }

    #[test]
    fn files_that_must_not_be_fetched_are_refused() {
        let sha = "0f".repeat(32);
        for url in [
            "",
            "ftp://x/y",
            "http://",
            "http://:80/",
            "https://me:secret@host/x",
            "http://a b/",
            "file:///etc",
        ] {
            let result = FetchSpec { files: vec![file(url, &sha, "a")] }.check();
            assert!(matches!(result, Err(FetchSpecError::Url(_))), "{url:?}");
        }
        for sha in ["", "0F", &"0F".repeat(32), &"0g".repeat(32)] {
            let result = FetchSpec { files: vec![file("http://h/x", sha, "a")] }.check();
            assert!(matches!(result, Err(FetchSpecError::Sha256(_))), "{sha:?}");
        }
        for path in ["../x", "/x", ""] {
            assert!(matches!(FetchSpec { files: vec![good(path)] }.check(), Err(FetchSpecError::Path(_))));
        }
        for path in [".llmfleet-manifest.json", "a/.b"] {
            assert!(matches!(FetchSpec { files: vec![good(path)] }.check(), Err(FetchSpecError::Hidden(_))));
        }
    }

    #[test]
    fn two_files_never_share_a_place() {
        for paths in [["a", "a"], ["a", "a/b"], ["a/b/c", "a/b"]] {
            let result = FetchSpec { files: paths.map(good).to_vec() }.check();
            assert!(matches!(result, Err(FetchSpecError::Duplicate(_))), "{paths:?}");
        }
        assert!(FetchSpec { files: ["a-b", "a", "ab/c"].map(good).to_vec() }.check().is_ok());
    }
}
