//! Takes tensors by name and shape, packs or widens them, counts the bytes, and knows which nobody asked for.

use std::collections::BTreeSet;

use contract::Bytes;
use contract::DType;
use contract::device::DeviceClass;
use contract::resident::{ROW_TILE, ResidentError, resident};
use kernels::{Arena, Format, Kernels, PackError, Source};

use super::packed::PackedBytes;
use super::{MapError, Tensors, widen::widen};
use crate::model::part::linear::PackedWeight;

const _: () = assert!(kernels::TILE as u64 == ROW_TILE, "the plan pads rows as the kernels do");

/// Rows that are packed at a time.
const PART_ROWS: usize = 64 * kernels::TILE;

/// Why a tensor cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be mapped.
    #[error("the weights cannot be read")]
    Map(#[from] MapError),
    /// The system has no addresses left for the matrices.
    #[error("there is no room for the packed weights")]
    Memory(#[source] std::io::Error),
    /// It is not in the checkpoint.
    #[error("tensor {0:?} is missing")]
    Missing(String),
    /// It has another shape than the model's geometry asks for.
    #[error("tensor {name:?} has shape {found:?} where the model needs {needed:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// As in the checkpoint.
        found: Vec<u64>,
        /// As in the geometry.
        needed: Vec<u64>,
    },
    /// Its type cannot be kept without loss.
    #[error("tensor {name:?} cannot be kept in memory")]
    Resident {
        /// The tensor.
        name: String,
        /// Why.
        #[source]
        source: ResidentError,
    },
    /// Its shape does not suit its type.
    #[error("tensor {name:?} cannot be packed")]
    Pack {
        /// The tensor.
        name: String,
        /// Why.
        #[source]
        source: PackError,
    },
    /// It contains a number that no model has.
    #[error("tensor {0:?} contains a number that is not finite")]
    NotFinite(String),
    /// It would be ignored, and the answers would be wrong.
    #[error("tensor {0:?} is not part of a model of this family, as far as we know it")]
    Unknown(String),
    /// The tensor library refused.
    #[error("tensor {name:?} cannot be unpacked")]
    Widen {
        /// The tensor.
        name: String,
        /// Why.
        #[source]
        source: candle_core::Error,
    },
}

/// Loads tensors and keeps count.
pub struct Loader<'a> {
    tensors: &'a Tensors,
    /// Who packs matrices; without, they are only checked.
    kernels: Option<&'a Kernels>,
    device: DeviceClass,
    progress: &'a mut dyn FnMut(u64),
    taken: BTreeSet<&'a str>,
    resident: u64,
    /// Where all matrices go that are packed; made with the first of them.
    arena: Option<Arena>,
}

impl<'a> Loader<'a> {
    /// A loader that calls `progress` with the bytes of each tensor as it is done. Without kernels it only looks at
    /// names, shapes and types of matrices, and gives them without their numbers.
    pub fn new(
        tensors: &'a Tensors,
        kernels: Option<&'a Kernels>,
        device: DeviceClass,
        progress: &'a mut dyn FnMut(u64),
    ) -> Self {
        Self { tensors, kernels, device, progress, taken: BTreeSet::new(), resident: 0, arena: None }
    }

    /// Whether the checkpoint has this tensor.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.tensors.get(name).is_some()
    }

    /// Loads the matrix `name` with exactly this shape: from the file of packed weights, if there is one that has it.
    ///
    /// # Errors
    /// Where it is missing, has another shape, or a type or shape without a lossless form.
    pub fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<PackedWeight, LoadError> {
        let (_, source) = self.take(name, &[rows as u64, columns as u64])?;
        let matrix = Matrix::of(self.tensors, name, self.device)?;
        let format = matrix.format;
        let Some(kernels) = self.kernels else {
            let bytes = PackedBytes::Owned(self.arena()?.take(0));
            return Ok(PackedWeight { format, rows, columns, bytes });
        };
        let bytes = match self.tensors.packed().and_then(|packed| packed.get(name, matrix.kept, matrix.bytes))
        {
            Some(mapped) => mapped,
            None => {
                let mut piece = self.arena()?.take(matrix.bytes.0 as usize);
                matrix.pack_into(kernels, &mut piece)?;
                PackedBytes::Owned(piece)
            }
        };
        self.resident += matrix.bytes.0;
        (self.progress)(source.len() as u64);
        Ok(PackedWeight { format, rows, columns, bytes })
    }

    /// Loads the vector `name` with exactly this length, as `f32`.
    ///
    /// # Errors
    /// Where it is missing, has another shape, or contains what is no number.
    pub fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, LoadError> {
        let (dtype, source) = self.take(name, &[length as u64])?;
        let numbers = widened(name, dtype, source)?;
        if numbers.iter().any(|number| !number.is_finite()) {
            return Err(LoadError::NotFinite(name.to_owned()));
        }
        self.resident += size_of_val(numbers.as_slice()) as u64;
        (self.progress)(source.len() as u64);
        Ok(numbers)
    }

    /// Checks that every tensor was loaded, but for those that `ignored` says may stay.
    ///
    /// # Errors
    /// Names the first that would silently be left out.
    pub fn finish(self, ignored: impl Fn(&str) -> bool) -> Result<Bytes, LoadError> {
        match self.tensors.names().find(|name| !self.taken.contains(name) && !ignored(name)) {
            Some(name) => Err(LoadError::Unknown(name.to_owned())),
            None => Ok(Bytes(self.resident)),
        }
    }

    /// The arena, with room for every matrix of the checkpoint. What stays untouched takes no memory.
    fn arena(&mut self) -> Result<&mut Arena, LoadError> {
        let arena = match self.arena.take() {
            Some(arena) => arena,
            None => {
                let room = |name| {
                    Matrix::of(self.tensors, name, self.device).map_or(0, |m| Arena::room(m.bytes.0 as usize))
                };
                let all = self.kernels.map_or(0, |_| self.tensors.names().map(room).sum());
                Arena::new(all).map_err(LoadError::Memory)?
            }
        };
        Ok(self.arena.insert(arena))
    }

    fn take(&mut self, name: &str, shape: &[u64]) -> Result<(DType, &'a [u8]), LoadError> {
        let (info, bytes) = self.tensors.get(name).ok_or_else(|| LoadError::Missing(name.to_owned()))?;
        if info.shape != shape {
            let (found, needed) = (info.shape.clone(), shape.to_vec());
            return Err(LoadError::Shape { name: name.to_owned(), found, needed });
        }
        self.taken.insert(&info.name);
        Ok((info.dtype, bytes))
    }
}

/// A matrix of a checkpoint, and the form in which it is kept.
pub(super) struct Matrix<'a> {
    name: &'a str,
    dtype: DType,
    source: &'a [u8],
    rows: usize,
    columns: usize,
    /// What it becomes.
    format: Format,
    kept: DType,
    bytes: Bytes,
}

impl<'a> Matrix<'a> {
    /// A tensor of two dimensions and of a type that can be kept.
    pub(super) fn of(tensors: &'a Tensors, name: &str, device: DeviceClass) -> Result<Self, LoadError> {
        let (info, source) = tensors.get(name).ok_or_else(|| LoadError::Missing(name.to_owned()))?;
        let unsuitable = |source| LoadError::Resident { name: name.to_owned(), source };
        let kept = resident(info.dtype, &info.shape, device).map_err(unsuitable)?;
        let format = format(kept.dtype).ok_or_else(|| unsuitable(ResidentError::Unsupported(kept.dtype)))?;
        let &[rows, columns] = info.shape.as_slice() else {
            let (found, needed) = (info.shape.clone(), Vec::new());
            return Err(LoadError::Shape { name: name.to_owned(), found, needed });
        };
        let (rows, columns) = (rows as usize, columns as usize);
        if format.packed_bytes(rows, columns) != Some(kept.bytes.0 as usize) {
            let source = PackError::Shape { format, rows, columns, block: format.block_columns() };
            return Err(LoadError::Pack { name: name.to_owned(), source });
        }
        let (name, dtype, kept, bytes) = (&*info.name, info.dtype, kept.dtype, kept.bytes);
        Ok(Self { name, dtype, source, rows, columns, format, kept, bytes })
    }

    pub(super) const fn name(&self) -> &'a str {
        self.name
    }

    /// Whether it is kept in the type that it has in the checkpoint.
    pub(super) fn is_itself(&self) -> bool {
        self.kept == self.dtype
    }

    /// Bytes of its packed form.
    pub(super) const fn bytes(&self) -> Bytes {
        self.bytes
    }

    pub(super) const fn kept(&self) -> DType {
        self.kept
    }

    /// Writes its packed form to memory of exactly its size.
    fn pack_into(&self, kernels: &Kernels, bytes: &mut [u8]) -> Result<(), LoadError> {
        for (index, part) in bytes.chunks_mut(self.part_bytes()).enumerate() {
            self.pack_part(kernels, index, part)?;
        }
        Ok(())
    }

    /// Gives its packed form part by part, so that there is never more than one in memory.
    pub(super) fn pack<E: From<LoadError>>(
        &self,
        kernels: &Kernels,
        mut to: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut part = vec![0; self.part_bytes().min(self.bytes.0 as usize)];
        for index in 0..self.rows.div_ceil(PART_ROWS) {
            let left = self.bytes.0 as usize - index * self.part_bytes();
            let part = &mut part[..left.min(self.part_bytes())];
            self.pack_part(kernels, index, part)?;
            to(part)?;
        }
        Ok(())
    }

    fn part_bytes(&self) -> usize {
        let padded_rows = self.rows.next_multiple_of(kernels::TILE);
        self.bytes.0 as usize / padded_rows * PART_ROWS
    }

    fn pack_part(&self, kernels: &Kernels, index: usize, out: &mut [u8]) -> Result<(), LoadError> {
        let row_bytes = self.source.len() / self.rows;
        let (first, last) = (index * PART_ROWS, self.rows.min((index + 1) * PART_ROWS));
        let bytes = &self.source[first * row_bytes..last * row_bytes];
        let wide: Vec<u8>;
        let bytes = if self.kept == self.dtype {
            bytes
        } else {
            wide = widened(self.name, self.dtype, bytes)?.into_iter().flat_map(f32::to_le_bytes).collect();
            &wide
        };
        let source = Source { format: self.format, rows: last - first, columns: self.columns, bytes };
        let packed = kernels.pack(source, out).map(|_| ());
        packed.map_err(|source| LoadError::Pack { name: self.name.to_owned(), source })
    }
}

fn widened(name: &str, dtype: DType, bytes: &[u8]) -> Result<Vec<f32>, LoadError> {
    let wide = widen(dtype, bytes).map_err(|source| LoadError::Widen { name: name.to_owned(), source })?;
    let source = ResidentError::Unsupported(dtype);
    wide.ok_or_else(|| LoadError::Resident { name: name.to_owned(), source })
}

fn format(dtype: DType) -> Option<Format> {
    Some(match dtype {
        DType::Q4_0 => Format::Q4_0,
        DType::Q4_1 => Format::Q4_1,
        DType::Q8_0 => Format::Q8_0,
        DType::Q4_K => Format::Q4K,
        DType::Q5_K => Format::Q5K,
        DType::Q6_K => Format::Q6K,
        DType::F32 => Format::F32,
        DType::F16 => Format::F16,
        DType::BF16 => Format::BF16,
        _ => return None,
    })
}
