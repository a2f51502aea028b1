//! A small writer makes files; each test breaks one thing.

use proptest::prelude::*;

use super::*;

fn text(out: &mut Vec<u8>, value: &str) {
    out.extend((value.len() as u64).to_le_bytes());
    out.extend(value.as_bytes());
}

struct File {
    alignment: Option<u32>,
    tensors: Vec<(&'static str, Vec<u64>, u32, u64)>,
}

impl File {
    fn one(shape: Vec<u64>, kind: u32, offset: u64) -> Self {
        Self { alignment: None, tensors: vec![("a", shape, kind, offset)] }
    }

    fn header(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((1 + u64::from(self.alignment.is_some())).to_le_bytes());
        text(&mut out, "general.architecture");
        out.extend(STRING.to_le_bytes());
        text(&mut out, "llama");
        if let Some(alignment) = self.alignment {
            text(&mut out, ALIGNMENT_KEY);
            out.extend(4u32.to_le_bytes());
            out.extend(alignment.to_le_bytes());
        }
        for (name, dims, kind, offset) in &self.tensors {
            text(&mut out, name);
            out.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        out
    }

    fn parse_with(&self, data: u64) -> Result<Header, HeaderError> {
        let header = self.header();
        let length = (header.len() as u64).next_multiple_of(32) + data;
        parse(&header, length)
    }
}

#[test]
fn a_good_file_is_read() {
    let header = File::one(vec![64, 2], 3, 0).parse_with(80).unwrap();
    let tensor = &header.tensors[0];
    assert_eq!((tensor.dtype, tensor.shape.as_slice()), (DType::Q4_1, &[2, 64][..]));
    assert_eq!(tensor.range.end - tensor.range.start, 80);
    assert_eq!(header.metadata["general.architecture"].as_str(), Some("llama"));
}

#[test]
fn what_is_wrong_is_said() {
    let tensor = |result: Result<Header, HeaderError>| match result {
        Err(HeaderError::Tensor { why, .. }) => why.split(':').next().unwrap().to_owned(),
        other => format!("{other:?}"),
    };
    assert_eq!(tensor(File::one(vec![32], 0, 0).parse_with(127)), "its bytes lie past the end of the file");
    assert_eq!(tensor(File::one(vec![32], 0, 1).parse_with(999)), "its offset is not aligned");
    assert_eq!(
        tensor(File::one(vec![u64::MAX; 4], 0, 0).parse_with(999)).split(',').next(),
        Some("its shape is empty")
    );
    assert_eq!(
        tensor(File::one(vec![33], 3, 0).parse_with(999)).split(',').next(),
        Some("its shape is empty")
    );
    assert_eq!(
        tensor(File::one(vec![32], 0, u64::MAX - 31).parse_with(999)),
        "its offset is past every file"
    );
    let two = |second, offset| File {
        alignment: None,
        tensors: vec![("a", vec![32], 0, 0), (second, vec![32], 0, offset)],
    };
    assert_eq!(tensor(two("b", 64).parse_with(999)), "its bytes overlap those of another tensor");
    assert_eq!(two("a", 128).parse_with(999), Err(HeaderError::Duplicate("a".into())));
    for alignment in [0, 3, 1 << 17] {
        let file = File { alignment: Some(alignment), tensors: vec![] };
        assert_eq!(file.parse_with(0), Err(HeaderError::Alignment(u64::from(alignment))));
    }
    assert!(matches!(File::one(vec![32], 99, 0).parse_with(999), Err(HeaderError::Format { .. })));
    assert!(matches!(File::one(vec![1; 5], 0, 0).parse_with(999), Err(HeaderError::Limit { .. })));
    assert_eq!(parse(b"GGML0000", 8), Err(HeaderError::Magic("GGUF")));
}

#[test]
fn huge_counts_allocate_nothing() {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend((1u64 << 19).to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    assert_eq!(parse(&bytes, bytes.len() as u64), Err(HeaderError::Truncated(24)));
    bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(parse(&bytes, u64::MAX), Err(HeaderError::Limit { .. })));
}

proptest! {
    #[test]
    fn every_cut_asks_for_more_or_says_truncated(cut in 0usize..200) {
        let header = File::one(vec![64, 2], 3, 0).header();
        let cut = cut.min(header.len() - 1);
        let more = parse(&header[..cut], 4096);
        prop_assert!(matches!(more, Err(HeaderError::NeedMore { need, .. }) if need > cut as u64), "{more:?}");
        prop_assert!(matches!(parse(&header[..cut], cut as u64), Err(HeaderError::Truncated(_))));
    }

    #[test]
    fn flipped_bytes_never_panic(at in 0usize..120, value: u8, len in 0u64..8192) {
        let mut header = File::one(vec![64, 2], 3, 0).header();
        let at = at % header.len();
        header[at] = value;
        if let Ok(parsed) = parse(&header, len) {
            prop_assert!(parsed.tensors.iter().all(|t| t.range.end <= len));
        }
    }
}

/// Bytes in the file are eight times as many in memory, and no single array is past its own limit.
#[test]
fn many_arrays_do_not_take_more_memory_than_all_may() {
    let mut out = MAGIC.to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend(0u64.to_le_bytes());
    let (arrays, length) = (15u64, 1u64 << 20);
    out.extend(arrays.to_le_bytes());
    for at in 0..arrays {
        text(&mut out, &format!("general.list{at}"));
        out.extend(ARRAY.to_le_bytes());
        out.extend(0u32.to_le_bytes());
        out.extend(length.to_le_bytes());
        out.resize(out.len() + length as usize, 7);
    }
    let error = parse(&out, out.len() as u64).unwrap_err();
    let what = "the size of the decoded metadata";
    assert!(matches!(error, HeaderError::Limit { what: found, .. } if found == what), "{error}");
}
