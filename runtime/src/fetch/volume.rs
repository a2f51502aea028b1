//! The volume that files are published on: space, staging, renames, manifest.
//!
//! In: a folder. Out: [`Staging`], a hidden folder that vanishes unless it is published.
//! It must not know where files come from.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use contract::bytes::Bytes;
use contract::exit::ExitReason;
use contract::fetch::FetchSpec;
use contract::manifest::{MANIFEST_FILE, Manifest};

use crate::weights::packed::is_packed;

/// Name of the hidden folder; one name, so that a killed run's leftovers are found.
const STAGING: &str = ".llmfleet-partial";

/// What a volume refuses.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Fewer bytes are free than are needed.
    #[error("{path} has {free} free and {need} are needed; enlarge the volume")]
    Full {
        /// The volume.
        path: PathBuf,
        /// Free bytes.
        free: Bytes,
        /// Needed bytes.
        need: Bytes,
    },
    /// Another fetch holds the volume.
    #[error("{0} is being written by another process")]
    Busy(PathBuf),
    /// The file system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

impl VolumeError {
    /// The reason that this stands for.
    pub(super) fn reason(&self) -> ExitReason {
        match self {
            Self::Full { .. } => ExitReason::VolumeFull,
            Self::Io { source, .. } if is_full(source) => ExitReason::VolumeFull,
            Self::Busy(_) | Self::Io { .. } => ExitReason::VolumeFailed,
        }
    }

    /// Makes one from what the file system said.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A folder that only this process writes.
pub(super) struct Volume {
    root: PathBuf,
    /// The folder itself, opened; its lock goes with the process, however that ends.
    lock: File,
}

impl Volume {
    /// Locks a folder and removes what a killed run left in it.
    pub(super) fn open(root: &Path) -> Result<Self, VolumeError> {
        let lock = File::open(root).map_err(VolumeError::io("open", root))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(VolumeError::Busy(root.to_owned())),
            Err(fs::TryLockError::Error(source)) => return Err(VolumeError::io("lock", root)(source)),
        }
        let volume = Self { root: root.to_owned(), lock };
        remove(&volume.root.join(STAGING))?;
        Ok(volume)
    }

    /// The manifest, if it names exactly the files of `spec` and all of them are there in full.
    pub(super) fn published(&self, spec: &FetchSpec) -> Option<Manifest> {
        let manifest = read_manifest(&self.root)?;
        let mut asked: Vec<_> = spec.files.iter().map(|f| (&f.path, &f.sha256)).collect();
        asked.sort();
        let have: Vec<_> = manifest.files.iter().map(|f| (&f.path, &f.sha256)).collect();
        let in_full = |path: &str, bytes: Bytes| {
            fs::symlink_metadata(self.root.join(path)).is_ok_and(|m| m.is_file() && m.len() == bytes.0)
        };
        let whole = asked == have && manifest.files.iter().all(|f| in_full(&f.path, f.bytes));
        whole.then_some(manifest)
    }

    /// Makes the hidden folder.
    pub(super) fn stage(&self) -> Result<Staging<'_>, VolumeError> {
        let path = self.root.join(STAGING);
        fs::create_dir(&path).map_err(VolumeError::io("create", &path))?;
        Ok(Staging { volume: self, path })
    }
}

/// The hidden folder. Dropping it removes it.
pub(super) struct Staging<'a> {
    volume: &'a Volume,
    path: PathBuf,
}

impl Staging<'_> {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Fails unless `need` more bytes fit on the volume.
    pub(super) fn require(&self, need: Bytes) -> Result<(), VolumeError> {
        let free = free(&self.path).map_err(VolumeError::io("measure", &self.path))?;
        if free < need {
            return Err(VolumeError::Full { path: self.volume.root.clone(), free, need });
        }
        Ok(())
    }

    /// Makes an empty file, and the folders above it.
    pub(super) fn create(&self, path: &str) -> Result<File, VolumeError> {
        let path = self.path.join(path);
        let parent = path.parent().expect("a staged file lies below the staging folder");
        fs::create_dir_all(parent).map_err(VolumeError::io("create", parent))?;
        File::create(&path).map_err(VolumeError::io("create", &path))
    }

    /// Renames every file into place, the manifest last.
    ///
    /// An older manifest goes first: from there until the new one stands, the volume counts as incomplete.
    pub(super) fn publish(self, manifest: &Manifest) -> Result<(), VolumeError> {
        let root = &self.volume.root;
        let old = read_manifest(root);
        if old.is_some() {
            let path = root.join(MANIFEST_FILE);
            fs::remove_file(&path).map_err(VolumeError::io("remove", &path))?;
            self.sync()?;
        }
        for file in &manifest.files {
            let (from, to) = (self.path.join(&file.path), root.join(&file.path));
            let parent = to.parent().expect("a published file lies below the volume");
            fs::create_dir_all(parent).map_err(VolumeError::io("create", parent))?;
            fs::rename(&from, &to).map_err(VolumeError::io("publish", &to))?;
            let folder = File::open(parent).and_then(|f| f.sync_all());
            folder.map_err(VolumeError::io("sync", parent))?;
        }
        for packed in names(root).filter(|name| is_packed(name)) {
            remove(&root.join(packed))?;
        }
        let kept = |path: &String| manifest.files.iter().any(|f| f.path == *path);
        for file in old.into_iter().flat_map(|m| m.files).filter(|f| !kept(&f.path)) {
            remove(&root.join(&file.path))?;
        }
        self.publish_manifest(manifest)
    }

    fn publish_manifest(&self, manifest: &Manifest) -> Result<(), VolumeError> {
        let (from, to) = (self.path.join(MANIFEST_FILE), self.volume.root.join(MANIFEST_FILE));
        let json = serde_json::to_vec_pretty(manifest).expect("strings and numbers serialize");
        let written = fs::write(&from, json).and_then(|()| File::open(&from)?.sync_all());
        written.map_err(VolumeError::io("write", &from))?;
        fs::rename(&from, &to).map_err(VolumeError::io("publish", &to))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), VolumeError> {
        self.volume.lock.sync_all().map_err(VolumeError::io("sync", &self.volume.root))
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(error = crate::exit::chain(&error), "what was abandoned could not be removed");
        }
    }
}

/// The manifest of a folder, if it has one that can be read.
pub fn read_manifest(root: &Path) -> Option<Manifest> {
    serde_json::from_slice(&fs::read(root.join(MANIFEST_FILE)).ok()?).ok()
}

/// Names in a folder.
fn names(root: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

fn remove(path: &Path) -> Result<(), VolumeError> {
    let result = match fs::symlink_metadata(path) {
        Ok(m) if m.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    result.map_err(VolumeError::io("remove", path))
}

/// Bytes that an ordinary user may still write.
pub(crate) fn free(path: &Path) -> io::Result<Bytes> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `name` is a C string that outlives the call and `stat` has room for one `statvfs`.
    if unsafe { libc::statvfs(name.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has filled `stat`.
    let stat = unsafe { stat.assume_init() };
    Ok(Bytes(stat.f_bavail.saturating_mul(stat.f_frsize)))
}
