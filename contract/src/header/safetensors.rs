//! safetensors, one file. Source: the format section of the safetensors project's README.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::reader::Reader;
use super::{Header, HeaderError, MAX_TENSORS, TensorInfo, checked};
use crate::dtype::DType;
use crate::header::gguf::Metadata;

/// Longest JSON header that the format allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;
const METADATA_KEY: &str = "__metadata__";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// Entries in file order, so that a name that occurs twice is seen.
struct Entries(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Entries;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == METADATA_KEY {
                        map.next_value::<BTreeMap<String, String>>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(List)
    }
}

/// Parses a header from the first bytes of a file of `file_len` bytes.
pub fn parse(bytes: &[u8], file_len: u64) -> Result<Header, HeaderError> {
    let mut reader = Reader::new(bytes, file_len);
    let length = reader.count("the header's length", MAX_HEADER_BYTES, 1)?;
    let json = reader.take(length)?;
    if json.first() != Some(&b'{') {
        return Err(HeaderError::Magic("safetensors"));
    }
    let Entries(entries) = serde_json::from_slice(json).map_err(|e| HeaderError::Json(e.to_string()))?;
    if entries.len() as u64 > MAX_TENSORS {
        let value = entries.len() as u64;
        return Err(HeaderError::Limit { what: "the number of tensors", value, limit: MAX_TENSORS });
    }
    let data = reader.position();
    let tensors = entries.into_iter().map(|(name, e)| e.place(name, data)).collect::<Result<_, _>>()?;
    Ok(Header { metadata: Metadata::new(), tensors: checked(tensors, file_len)? })
}

impl Entry {
    fn place(self, name: String, data: u64) -> Result<TensorInfo, HeaderError> {
        let Some(dtype) = dtype(&self.dtype) else {
            return Err(HeaderError::Format { name, format: self.dtype });
        };
        let [begin, end] = self.data_offsets;
        let range = data.checked_add(begin).zip(data.checked_add(end));
        let why = match (dtype.tensor_bytes(&self.shape), range) {
            (Some(bytes), Some((start, stop))) if stop.checked_sub(start) == Some(bytes) => {
                return Ok(TensorInfo { name, dtype, shape: self.shape, range: start..stop });
            }
            (None, _) => "its shape is too large",
            _ => "its offsets do not span the bytes that its shape needs",
        };
        Err(HeaderError::Tensor { name, why })
    }
}

fn dtype(name: &str) -> Option<DType> {
    Some(match name {
        "F64" => DType::F64,
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        "F8_E4M3" => DType::F8_E4M3,
        "F8_E5M2" => DType::F8_E5M2,
        "I64" => DType::I64,
        "I32" => DType::I32,
        "I16" => DType::I16,
        "I8" => DType::I8,
        "U8" => DType::U8,
        "BOOL" => DType::BOOL,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(json: &str, data: u64) -> (Vec<u8>, u64) {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        let length = bytes.len() as u64 + data;
        (bytes, length)
    }

    fn read(json: &str, data: u64) -> Result<Header, HeaderError> {
        let (bytes, length) = file(json, data);
        parse(&bytes, length)
    }

    const GOOD: &str =
        r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}}"#;

    #[test]
    fn a_good_file_is_read() {
        let tensor = read(GOOD, 12).unwrap().tensors.remove(0);
        assert_eq!((tensor.dtype, tensor.shape), (DType::BF16, vec![2, 3]));
        assert_eq!(tensor.range, GOOD.len() as u64 + 8..GOOD.len() as u64 + 20);
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(matches!(read(GOOD, 11), Err(HeaderError::Tensor { .. })));
        assert!(matches!(read(&GOOD.replace("[0,12]", "[0,11]"), 99), Err(HeaderError::Tensor { .. })));
        assert!(matches!(read(&GOOD.replace("[0,12]", "[12,0]"), 99), Err(HeaderError::Tensor { .. })));
        assert!(matches!(read(&GOOD.replace("BF16", "X1"), 99), Err(HeaderError::Format { .. })));
        assert!(matches!(read("{\"a\":1}", 99), Err(HeaderError::Json(_))));
        assert_eq!(read("[]", 99), Err(HeaderError::Magic("safetensors")));
        let twice = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
        assert_eq!(read(twice, 2), Err(HeaderError::Duplicate("a".into())));
    }

    proptest! {
        #[test]
        fn flipped_and_cut_bytes_never_panic(at in 0usize..100, value: u8, cut in 0usize..200) {
            let (mut bytes, length) = file(GOOD, 12);
            let at = at % bytes.len();
            bytes[at] = value;
            bytes.truncate(cut);
            if let Ok(header) = parse(&bytes, length) {
                prop_assert!(header.tensors.iter().all(|t| t.range.end <= length));
            }
        }
    }
}
