//! A checkpoint's tensors, mapped from their file, and their way into packed memory.
//!
//! In: a checked header and the bytes it speaks of. Out: packed matrices and `f32` vectors of the shapes that a
//! family asks for, or an error that names the tensor. It must not know what a tensor is for.

pub mod load;
pub mod widen;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use contract::header::{Header, TensorInfo};
use memmap2::Mmap;

pub use load::{LoadError, Loader};

/// Tensors by name, with their bytes.
#[derive(Debug)]
pub struct Tensors {
    bytes: Source,
    index: BTreeMap<String, TensorInfo>,
}

#[derive(Debug)]
enum Source {
    File(Mmap),
    Memory(Vec<u8>),
}

/// Why a file cannot be mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The file system refused.
    #[error("cannot map the file of the weights")]
    Io(#[from] io::Error),
    /// The file is not the one that the header was read from.
    #[error("the file of the weights has become shorter than its header says")]
    Shrunk,
}

impl Tensors {
    /// Maps a file whose header has been parsed.
    ///
    /// # Errors
    /// Where the file cannot be mapped or is shorter than when its header was read.
    pub fn map(path: &Path, header: &Header) -> Result<Self, MapError> {
        let file = File::open(path)?;
        // SAFETY: the bytes are only read, as plain data that any content is valid for. A file that another
        // process truncates meanwhile ends this one with a signal; checkpoint volumes are published once and
        // never written to again.
        let map = unsafe { Mmap::map(&file)? };
        Self::checked(Source::File(map), header)
    }

    /// Tensors in memory, for models that are made rather than read.
    ///
    /// # Errors
    /// Where a tensor lies outside of `bytes`.
    pub fn in_memory(bytes: Vec<u8>, header: &Header) -> Result<Self, MapError> {
        Self::checked(Source::Memory(bytes), header)
    }

    fn checked(bytes: Source, header: &Header) -> Result<Self, MapError> {
        let index = header.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.clone())).collect();
        let tensors = Self { bytes, index };
        let length = tensors.bytes().len() as u64;
        let inside =
            |tensor: &TensorInfo| tensor.range.start <= tensor.range.end && tensor.range.end <= length;
        if tensors.index.values().all(inside) { Ok(tensors) } else { Err(MapError::Shrunk) }
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(String::as_str)
    }

    /// A tensor and its bytes.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<(&TensorInfo, &[u8])> {
        let tensor = self.index.get(name)?;
        Some((tensor, &self.bytes()[tensor.range.start as usize..tensor.range.end as usize]))
    }

    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Source::File(map) => map,
            Source::Memory(bytes) => bytes,
        }
    }
}
