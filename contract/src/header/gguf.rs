//! GGUF, versions 2 and 3, one file. Source: the format's specification in ggml's `docs/gguf.md`.

use std::collections::BTreeMap;

use super::reader::Reader;
use super::{Header, HeaderError, MAX_TENSORS, TensorInfo, checked};
use crate::dtype::DType;

/// First four bytes of every GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// Alignment of tensor data where the file does not say.
const DEFAULT_ALIGNMENT: u64 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";
const MAX_ALIGNMENT: u64 = 1 << 16;
const MAX_KEYS: u64 = 1 << 16;
const MAX_KEY_BYTES: u64 = 1 << 16;
const MAX_STRING_BYTES: u64 = 1 << 24;
const MAX_ARRAY: u64 = 1 << 24;
const MAX_DIMENSIONS: u64 = 4;
/// Most bytes that all metadata may take once decoded; the largest published vocabularies take some 40 MB.
const MAX_DECODED: u64 = 96 << 20;

/// Key-value metadata in key order.
pub type Metadata = BTreeMap<String, Value>;

/// One metadata value. Integers of all widths become `Int` or, past `i64`, are refused.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the variants say it")]
pub enum Value {
    Int(i64),
    Float(f64),
    Bool(bool),
    String(String),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Bools(Vec<bool>),
    Strings(Vec<String>),
}

impl Value {
    /// The value as an unsigned count.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        if let Self::Int(v) = self { u64::try_from(*v).ok() } else { None }
    }

    /// The value as a float; integers count as floats.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "metadata integers used as floats are small")]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float(v) => Some(*v),
            Self::Int(v) => Some(*v as f64),
            _ => None,
        }
    }

    /// The value as a flag.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(v) = self { Some(*v) } else { None }
    }

    /// The value as text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(v) = self { Some(v) } else { None }
    }

    /// The value as a list of texts.
    #[must_use]
    pub fn as_strings(&self) -> Option<&[String]> {
        if let Self::Strings(v) = self { Some(v) } else { None }
    }

    /// The value as a list of integers.
    #[must_use]
    pub fn as_ints(&self) -> Option<&[i64]> {
        if let Self::Ints(v) = self { Some(v) } else { None }
    }
}

/// Parses a header from the first bytes of a file of `file_len` bytes.
pub fn parse(bytes: &[u8], file_len: u64) -> Result<Header, HeaderError> {
    let mut reader = Reader::new(bytes, file_len);
    if reader.array()? != MAGIC {
        return Err(HeaderError::Magic("GGUF"));
    }
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(HeaderError::Version(version));
    }
    // A tensor entry takes at least 32 bytes (name length, dimensions, one dimension, type, offset), a key 13.
    let n_tensors = reader.count("the number of tensors", MAX_TENSORS, 24)?;
    let n_keys = reader.count("the number of metadata keys", MAX_KEYS, 13)?;
    let metadata = metadata(&mut reader, n_keys)?;
    let alignment = alignment(&metadata)?;
    let mut entries = Vec::new();
    for _ in 0..n_tensors {
        entries.push(entry(&mut reader)?);
    }
    let data = reader.position().next_multiple_of(alignment);
    let tensors = entries.into_iter().map(|e| e.place(data, alignment)).collect::<Result<_, _>>()?;
    Ok(Header { metadata, tensors: checked(tensors, file_len)? })
}

fn metadata(reader: &mut Reader<'_>, n_keys: u64) -> Result<Metadata, HeaderError> {
    let mut metadata = Metadata::new();
    let mut decoded = 0;
    for _ in 0..n_keys {
        let key = reader.string("a metadata key", MAX_KEY_BYTES)?;
        let kind = reader.u32()?;
        let value = value(reader, kind, &key, MAX_DECODED - decoded)?;
        decoded += decoded_bytes(&value) + key.len() as u64;
        within(decoded)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(HeaderError::Duplicate(key));
        }
    }
    Ok(metadata)
}

/// Bytes that a value takes in memory.
fn decoded_bytes(value: &Value) -> u64 {
    let items = |n: usize, each: usize| (n as u64).saturating_mul(each as u64);
    match value {
        Value::Int(_) | Value::Float(_) | Value::Bool(_) => 0,
        Value::String(text) => text.len() as u64,
        Value::Ints(list) => items(list.len(), size_of::<i64>()),
        Value::Floats(list) => items(list.len(), size_of::<f64>()),
        Value::Bools(list) => items(list.len(), size_of::<bool>()),
        Value::Strings(list) => {
            items(list.len(), size_of::<String>()) + list.iter().map(|text| text.len() as u64).sum::<u64>()
        }
    }
}

fn within(decoded: u64) -> Result<(), HeaderError> {
    let what = "the size of the decoded metadata";
    if decoded > MAX_DECODED {
        return Err(HeaderError::Limit { what, value: decoded, limit: MAX_DECODED });
    }
    Ok(())
}

fn alignment(metadata: &Metadata) -> Result<u64, HeaderError> {
    let Some(value) = metadata.get(ALIGNMENT_KEY) else { return Ok(DEFAULT_ALIGNMENT) };
    match value.as_u64() {
        Some(n) if n.is_power_of_two() && n <= MAX_ALIGNMENT => Ok(n),
        other => Err(HeaderError::Alignment(other.unwrap_or(0))),
    }
}

/// A tensor as the file lists it; its offset counts from the start of the data.
struct Entry {
    name: String,
    shape: Vec<u64>,
    dtype: DType,
    offset: u64,
}

fn entry(reader: &mut Reader<'_>) -> Result<Entry, HeaderError> {
    let name = reader.string("a tensor's name", MAX_KEY_BYTES)?;
    let n_dimensions = u64::from(reader.u32()?);
    if n_dimensions > MAX_DIMENSIONS {
        return Err(HeaderError::Limit {
            what: "the number of dimensions",
            value: n_dimensions,
            limit: MAX_DIMENSIONS,
        });
    }
    let mut shape = Vec::new();
    for _ in 0..n_dimensions {
        shape.push(reader.u64()?);
    }
    // The file lists the fastest dimension first.
    shape.reverse();
    let kind = reader.u32()?;
    let Some(dtype) = DType::from_ggml(kind) else {
        return Err(HeaderError::Format { name, format: format!("ggml {kind}") });
    };
    Ok(Entry { name, shape, dtype, offset: reader.u64()? })
}

impl Entry {
    fn place(self, data: u64, alignment: u64) -> Result<TensorInfo, HeaderError> {
        let Self { name, shape, dtype, offset } = self;
        let wrong = |name: &str, why| HeaderError::Tensor { name: name.to_owned(), why };
        if offset % alignment != 0 {
            return Err(wrong(&name, "its offset is not aligned"));
        }
        let bytes = dtype.tensor_bytes(&shape).filter(|b| *b > 0);
        let bytes = bytes
            .ok_or_else(|| wrong(&name, "its shape is empty, too large or no whole number of blocks"))?;
        let start = data.checked_add(offset);
        let range = start.and_then(|s| Some(s..s.checked_add(bytes)?));
        let range = range.ok_or_else(|| wrong(&name, "its offset is past every file"))?;
        Ok(TensorInfo { name, dtype, shape, range })
    }
}

const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// `room` bytes are left of what all metadata may take once decoded.
fn value(reader: &mut Reader<'_>, kind: u32, key: &str, room: u64) -> Result<Value, HeaderError> {
    match kind {
        STRING => Ok(Value::String(reader.string("a metadata string", MAX_STRING_BYTES)?)),
        ARRAY => array(reader, key, room),
        _ => Ok(match scalar(reader, kind, key)? {
            Scalar::Int(v) => Value::Int(v),
            Scalar::Float(v) => Value::Float(v),
            Scalar::Bool(v) => Value::Bool(v),
        }),
    }
}

enum Scalar {
    Int(i64),
    Float(f64),
    Bool(bool),
}

fn scalar(reader: &mut Reader<'_>, kind: u32, key: &str) -> Result<Scalar, HeaderError> {
    let unknown = |value: String| HeaderError::Type { key: key.to_owned(), value };
    Ok(match kind {
        0 => Scalar::Int(i64::from(reader.array::<1>()?[0])),
        1 => Scalar::Int(i64::from(i8::from_le_bytes(reader.array()?))),
        2 => Scalar::Int(i64::from(u16::from_le_bytes(reader.array()?))),
        3 => Scalar::Int(i64::from(i16::from_le_bytes(reader.array()?))),
        4 => Scalar::Int(i64::from(reader.u32()?)),
        5 => Scalar::Int(i64::from(i32::from_le_bytes(reader.array()?))),
        6 => Scalar::Float(f64::from(f32::from_le_bytes(reader.array()?))),
        7 => Scalar::Bool(reader.array::<1>()?[0] != 0),
        10 => Scalar::Int(i64::try_from(reader.u64()?).map_err(|e| unknown(e.to_string()))?),
        11 => Scalar::Int(i64::from_le_bytes(reader.array()?)),
        12 => Scalar::Float(f64::from_le_bytes(reader.array()?)),
        other => return Err(unknown(other.to_string())),
    })
}

fn array(reader: &mut Reader<'_>, key: &str, room: u64) -> Result<Value, HeaderError> {
    let kind = reader.u32()?;
    let (least, decoded) = if kind == STRING { (8, size_of::<String>()) } else { (1, size_of::<i64>()) };
    let count = reader.count("an array's length", MAX_ARRAY, least)?;
    within((MAX_DECODED - room).saturating_add(count.saturating_mul(decoded as u64)))?;
    if kind == STRING {
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(reader.string("a metadata string", MAX_STRING_BYTES)?);
        }
        return Ok(Value::Strings(items));
    }
    let (mut ints, mut floats, mut bools) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        match scalar(reader, kind, key)? {
            Scalar::Int(v) => ints.push(v),
            Scalar::Float(v) => floats.push(v),
            Scalar::Bool(v) => bools.push(v),
        }
    }
    Ok(match kind {
        6 | 12 => Value::Floats(floats),
        7 => Value::Bools(bools),
        _ => Value::Ints(ints),
    })
}

#[cfg(test)]
mod tests;
