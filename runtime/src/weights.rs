//! A checkpoint's tensors, mapped from their file, and their way into packed memory.
//!
//! In: a checked header and the bytes it speaks of. Out: packed matrices and `f32` vectors of the shapes that a
//! family asks for, or an error that names the tensor. It must not know what a tensor is for.

pub mod load;
pub mod packed;
pub mod widen;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use contract::header::{Header, TensorInfo};
use memmap2::Mmap;

pub use load::{LoadError, Loader};
use packed::Packed;

/// Tensors by name, with their bytes.
#[derive(Debug)]
pub struct Tensors {
    bytes: Source,
    index: BTreeMap<String, TensorInfo>,
    packed: Option<Packed>,
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
    /// The file is not the one that the header was read from, or the header was never checked.
    #[error("the bytes of tensor {0:?} are not what its header says")]
    Contradiction(String),
}

impl Tensors {
    /// Maps a file whose header has been parsed.
    ///
    /// # Errors
    /// Where the file cannot be mapped or is not what its header says.
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
    /// Where a tensor's bytes are not what its type and shape need, or lie outside of `bytes`.
    pub fn in_memory(bytes: Vec<u8>, header: &Header) -> Result<Self, MapError> {
        Self::checked(Source::Memory(bytes), header)
    }

    fn checked(bytes: Source, header: &Header) -> Result<Self, MapError> {
        let index = header.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.clone())).collect();
        let tensors = Self { bytes, index, packed: None };
        let length = tensors.bytes().len() as u64;
        let contradicts = |tensor: &&TensorInfo| {
            let found = tensor.range.end.checked_sub(tensor.range.start);
            tensor.range.end > length || found.is_none() || found != tensor.dtype.tensor_bytes(&tensor.shape)
        };
        match tensors.index.values().find(contradicts) {
            Some(tensor) => Err(MapError::Contradiction(tensor.name.clone())),
            None => Ok(tensors),
        }
    }

    /// The same, with the packed form of some of them.
    #[must_use]
    pub fn with_packed(self, packed: Option<Packed>) -> Self {
        Self { packed, ..self }
    }

    /// The packed form, where there is one.
    #[must_use]
    pub const fn packed(&self) -> Option<&Packed> {
        self.packed.as_ref()
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
