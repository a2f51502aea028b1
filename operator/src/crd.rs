//! `llm-fleet-operator crd`: writes the custom resource definitions to a folder.
//!
//! In: a folder. Out: one file a definition. It must not know what stands in them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::api::schema;

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
pub struct Error {
    /// The file or folder.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

/// Writes every definition below `folder`, which is made if it is not there.
pub fn write(folder: &Path) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error { path, source }
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    for (name, content) in schema::files() {
        let path = folder.join(name);
        fs::write(&path, content).map_err(failed(&path))?;
    }
    Ok(())
}
