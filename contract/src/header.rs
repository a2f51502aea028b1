//! Headers of checkpoints: names, shapes, dtypes and byte ranges of tensors, and metadata.
//!
//! In: the first bytes of a file and its length. Out: a [`Header`] in which every tensor lies inside the file
//! and no two overlap, or an error that says what is wrong.
//! Input is hostile until proved otherwise: counts are bounded by the bytes that are really there before
//! anything is allocated, and all arithmetic is checked.

pub mod gguf;
mod reader;
pub mod safetensors;

use std::ops::Range;

use crate::dtype::DType;

/// A checked header.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Metadata that came with the tensors; empty for safetensors.
    pub metadata: gguf::Metadata,
    /// All tensors, ordered by name.
    pub tensors: Vec<TensorInfo>,
}

/// Where a tensor is and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name in the file.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Row-major shape, slowest dimension first; a linear layer is `[out, in]`.
    pub shape: Vec<u64>,
    /// Bytes of the file that hold it.
    pub range: Range<u64>,
}

/// Why a header is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// More bytes of the file are needed than were given; read at least this many and ask again.
    #[error("the header is longer than the {given} bytes read; at least {need} are needed")]
    NeedMore {
        /// Bytes that were given.
        given: u64,
        /// Least number of bytes from the start of the file that could be enough.
        need: u64,
    },
    /// The file ends inside its own header.
    #[error("the file ends after {0} bytes, inside its header: it is truncated")]
    Truncated(u64),
    /// The first bytes are not those of the format.
    #[error("not a {0} file")]
    Magic(&'static str),
    /// A version that we do not read.
    #[error("version {0} is not supported; 2 and 3 are")]
    Version(u32),
    /// A count or a length past every sane bound.
    #[error("{what} is {value}, past the limit of {limit}")]
    Limit {
        /// What was counted.
        what: &'static str,
        /// Its value in the file.
        value: u64,
        /// The most that is accepted.
        limit: u64,
    },
    /// `general.alignment` is zero or no power of two.
    #[error("general.alignment is {0}; it must be a power of two from 1 to 65536")]
    Alignment(u64),
    /// Text that is not UTF-8.
    #[error("{0} is not UTF-8")]
    Utf8(&'static str),
    /// A metadata type that the format does not have.
    #[error("metadata {key:?} has type {value}, which is not known")]
    Type {
        /// Whose type.
        key: String,
        /// The number in the file.
        value: String,
    },
    /// A tensor format that we do not know; the file may well be sound.
    #[error("tensor {name:?} has format {format}, which is not known")]
    Format {
        /// The tensor.
        name: String,
        /// The format's number in the file, or its name.
        format: String,
    },
    /// The same name twice.
    #[error("{0:?} occurs twice")]
    Duplicate(String),
    /// A tensor whose bytes cannot be as the header says.
    #[error("tensor {name:?}: {why}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The JSON of a safetensors header is malformed.
    #[error("the header is not the JSON object that it should be: {0}")]
    Json(String),
}

/// Most tensors in one file.
const MAX_TENSORS: u64 = 1 << 20;

/// Checks that all tensors lie inside the file and none overlap, and orders them by name.
fn checked(mut tensors: Vec<TensorInfo>, file_len: u64) -> Result<Vec<TensorInfo>, HeaderError> {
    tensors.sort_by_key(|t| (t.range.start, t.range.end));
    let mut end = 0;
    for tensor in &tensors {
        let wrong = |why| Err(HeaderError::Tensor { name: tensor.name.clone(), why });
        if tensor.range.end > file_len {
            return wrong("its bytes lie past the end of the file: the file is truncated or the header lies");
        }
        if tensor.range.start < end {
            return wrong("its bytes overlap those of another tensor");
        }
        end = tensor.range.end;
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    match tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(HeaderError::Duplicate(pair[0].name.clone())),
        None => Ok(tensors),
    }
}
