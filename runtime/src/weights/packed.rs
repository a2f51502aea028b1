//! The packed form of a checkpoint's matrices in a file of its own: mapped at start, shared by all who serve it.
//!
//! In: tensors and the name of what they are of. Out: a file beside them that is complete or not there, and views into
//! it. It must not know what a tensor is for. A file of another source, layout or version counts as not there.
//!
//! ```text
//! magic, data (each matrix at a multiple of 64 bytes), index as JSON, bytes of the index (u64), magic
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::ops::{Deref, Range};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use contract::device::DeviceClass;
use contract::{Bytes, DType};
use kernels::{Kernels, LAYOUT, Piece, prefer_huge_pages};
use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use super::Tensors;
use super::load::{LoadError, Matrix};
use crate::fetch::free;

/// How every such file begins and ends.
const MAGIC: [u8; 8] = *b"LLMFPACK";
/// Matrices begin at multiples of it: a cache line.
const ALIGNMENT: u64 = 64;
/// Longest index that is read.
const MAX_INDEX: u64 = 64 << 20;
/// How the file of a checkpoint's file is called: hidden, and with this at its end.
const ENDING: &str = ".llmfleet-packed";
/// The same of one that is not complete.
const PARTIAL: &str = ".llmfleet-packing";
/// What must stay free on the volume: others write there too, and a node without room lets nobody live.
const ROOM: Bytes = Bytes::mib(64);

/// The matrices of a file.
#[derive(Clone, Debug)]
pub struct Packed {
    map: Arc<Mmap>,
    entries: BTreeMap<String, Entry>,
    /// Bytes that were given out, by all clones.
    used: Arc<AtomicU64>,
}

/// The bytes of a packed matrix.
#[derive(Debug)]
pub enum PackedBytes {
    /// In memory of this process.
    Owned(Piece),
    /// In the file.
    Mapped(Arc<Mmap>, Range<usize>),
}

impl Deref for PackedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Mapped(map, range) => &map[range.clone()],
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Index {
    /// What the file was made from.
    source: String,
    layout: u32,
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// How its numbers are kept.
    dtype: DType,
    offset: u64,
    bytes: u64,
    crc32: u32,
}

/// Why there is no such file.
#[derive(Debug, thiserror::Error)]
pub enum PackedError {
    /// The file system refused.
    #[error("cannot keep or read {0}")]
    Io(PathBuf, #[source] io::Error),
    /// It is not what this program writes.
    #[error("{0} is not a file of packed weights of these weights and this program")]
    Foreign(PathBuf),
    /// Another process writes it.
    #[error("{0} is being written by another process")]
    Busy(PathBuf),
    /// There is not enough room for it.
    #[error("{path} needs {need} and {free} are free")]
    Full {
        /// What was to be written.
        path: PathBuf,
        /// Free on the volume.
        free: Bytes,
        /// Needed, without what must stay free.
        need: Bytes,
    },
    /// A matrix cannot be packed.
    #[error("a matrix cannot be packed")]
    Matrix(#[from] LoadError),
}

/// Where the packed form of a file of weights is.
#[must_use]
pub fn path_of(weights: &Path) -> PathBuf {
    let name = weights.file_name().unwrap_or_default().to_string_lossy();
    weights.with_file_name(format!(".{name}{ENDING}"))
}

/// Whether a file of that name holds packed weights, or what a killed process left of them.
#[must_use]
pub fn is_packed(name: &str) -> bool {
    name.ends_with(ENDING) || name.ends_with(PARTIAL)
}

/// Where a packed form is written before it is complete.
fn aside_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(name.replace(ENDING, PARTIAL))
}

impl Packed {
    /// Maps the file at `path` if it was made from `source`.
    ///
    /// # Errors
    /// Where it is not there, or is something else.
    pub fn open(path: &Path, source: &str) -> Result<Self, PackedError> {
        let io = |error| PackedError::Io(path.to_owned(), error);
        // Opening a pipe would wait for whoever writes to it.
        if !fs::metadata(path).map_err(io)?.is_file() {
            return Err(PackedError::Foreign(path.to_owned()));
        }
        let file = File::open(path).map_err(io)?;
        // SAFETY: as for the weights themselves: plain bytes, in a file that is renamed into place once and never
        // written to again.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        prefer_huge_pages(&map[..]);
        let index = index(&map).filter(|index| index.source == source && index.layout == LAYOUT);
        let index = index.ok_or_else(|| PackedError::Foreign(path.to_owned()))?;
        Ok(Self { map: Arc::new(map), entries: index.entries, used: Arc::default() })
    }

    /// A matrix of exactly this type and size, if it is there and undamaged. This reads all of it.
    #[must_use]
    pub fn get(&self, name: &str, dtype: DType, bytes: Bytes) -> Option<PackedBytes> {
        let entry = self.entries.get(name)?;
        if (entry.dtype, entry.bytes) != (dtype, bytes.0) {
            return None;
        }
        let range = entry.offset as usize..(entry.offset + entry.bytes) as usize;
        if crc32fast::hash(&self.map[range.clone()]) != entry.crc32 {
            tracing::warn!(tensor = name, "the packed weights are damaged; the original is taken");
            return None;
        }
        self.used.fetch_add(entry.bytes, Ordering::Relaxed);
        Some(PackedBytes::Mapped(self.map.clone(), range))
    }

    /// Bytes of the matrices that were taken from it.
    #[must_use]
    pub fn used(&self) -> Bytes {
        Bytes(self.used.load(Ordering::Relaxed))
    }
}

/// The index, if everything in it lies within the file.
fn index(file: &[u8]) -> Option<Index> {
    let body = file.strip_prefix(&MAGIC)?.strip_suffix(&MAGIC)?;
    let (body, length) = body.split_last_chunk::<8>()?;
    let length = u64::from_le_bytes(*length);
    let start = (body.len() as u64).checked_sub(length).filter(|_| length <= MAX_INDEX)?;
    let index: Index = serde_json::from_slice(&body[usize::try_from(start).ok()?..]).ok()?;
    let end = start + MAGIC.len() as u64;
    let inside = |entry: &Entry| {
        entry.offset.is_multiple_of(ALIGNMENT)
            && entry.offset.checked_add(entry.bytes).is_some_and(|last| last <= end)
    };
    index.entries.values().all(inside).then_some(index)
}

/// Writes the packed form of all matrices of `tensors` to `path`, which then is complete and on disk.
///
/// # Errors
/// Where a matrix cannot be packed, or the volume is full or read-only. Nothing is left then.
pub fn write(
    path: &Path,
    source: &str,
    tensors: &Tensors,
    kernels: &Kernels,
    device: DeviceClass,
) -> Result<(), PackedError> {
    let io = |error| PackedError::Io(path.to_owned(), error);
    let aside = aside_of(path);
    let Some(file) = lock(&aside).map_err(io)? else { return Err(PackedError::Busy(aside)) };
    let written = write_aside((&file, &aside), source, (tensors, kernels, device));
    // Until here nobody else writes: the lock goes with the file.
    let published = written.and_then(|()| {
        fs::rename(&aside, path).map_err(io)?;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
    });
    if published.is_err() {
        // What cannot be removed now is written over by the next who packs.
        let _ = fs::remove_file(&aside);
    }
    drop(file);
    published
}

/// The file that this process alone writes. `None` while another does.
fn lock(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Whoever had the lock before may have published what was opened: that is never written to again.
        if fs::symlink_metadata(path)
            .is_ok_and(|now| file.metadata().is_ok_and(|ours| ours.ino() == now.ino()))
        {
            return Ok(Some(file));
        }
    }
}

fn write_aside(
    (mut file, path): (&File, &Path),
    source: &str,
    (tensors, kernels, device): (&Tensors, &Kernels, DeviceClass),
) -> Result<(), PackedError> {
    let io = |error| PackedError::Io(path.to_owned(), error);
    file.set_len(0).map_err(io)?;
    let matrices: Vec<Matrix<'_>> = tensors
        .names()
        .filter_map(|name| Matrix::of(tensors, name, device).ok())
        .filter(Matrix::is_itself)
        .collect();
    let need = Bytes::sum(matrices.iter().map(Matrix::bytes)).unwrap_or(Bytes(u64::MAX));
    let free = free(path).map_err(io)?;
    if free.minus(need) < ROOM {
        return Err(PackedError::Full { path: path.to_owned(), free, need });
    }
    let mut entries = BTreeMap::new();
    let mut offset = MAGIC.len() as u64;
    file.write_all(&MAGIC).map_err(io)?;
    for matrix in matrices {
        let start = offset.next_multiple_of(ALIGNMENT);
        file.write_all(&[0; ALIGNMENT as usize][..(start - offset) as usize]).map_err(io)?;
        let (mut crc, mut bytes) = (crc32fast::Hasher::new(), 0);
        matrix.pack(kernels, |part| {
            crc.update(part);
            bytes += part.len() as u64;
            file.write_all(part).map_err(io)
        })?;
        let entry = Entry { dtype: matrix.kept(), offset: start, bytes, crc32: crc.finalize() };
        entries.insert(matrix.name().to_owned(), entry);
        offset = start + bytes;
    }
    let index = Index { source: source.to_owned(), layout: LAYOUT, entries };
    let index = serde_json::to_vec(&index).expect("strings and numbers serialize");
    let length = (index.len() as u64).to_le_bytes();
    for part in [&index[..], &length, &MAGIC] {
        file.write_all(part).map_err(io)?;
    }
    file.sync_all().map_err(io)?;
    // What was written is in small pages of the system's cache. Read anew by who prefers huge ones, it is in these.
    // SAFETY: the file is open, and the advice changes no content.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    Ok(())
}
