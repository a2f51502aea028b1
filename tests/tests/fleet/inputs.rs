//! Files of the cases.

use sha2::{Digest, Sha256};

/// The digest that a spec asks for.
pub(crate) fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

/// A name, the file, and words that the reason must have.
type Hostile = (&'static str, Vec<u8>, &'static [&'static str]);

/// Files that a careless parser would panic on, run out of memory on, or accept.
pub(crate) fn hostile() -> [Hostile; 3] {
    let header = |tensors: u64, keys: u64| {
        let mut bytes = contract::header::gguf::MAGIC.to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(keys.to_le_bytes());
        bytes
    };
    let mut alignment = header(0, 1);
    let key = "general.alignment";
    alignment.extend((key.len() as u64).to_le_bytes());
    alignment.extend(key.bytes());
    alignment.extend(4u32.to_le_bytes());
    alignment.extend(0u32.to_le_bytes());
    [
        ("truncated", header(3, 20), &["truncated"]),
        ("alignment", alignment, &["alignment"]),
        ("counts", header(u64::MAX, u64::MAX), &["limit"]),
    ]
}
