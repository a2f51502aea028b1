//! Specs and files of the cases.

use std::path::PathBuf;

use anyhow::Result;
pub(crate) use e2e::bench::File;
use e2e::paths::Cache;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The real model in the cache.
pub(crate) fn model_file() -> Result<PathBuf> {
    Ok(Cache::from_env()?.root().join("models/SmolLM2-135M-Instruct.Q4_1.gguf"))
}

/// The digest that a spec asks for.
pub(crate) fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

/// A small deployment of one file, on the node's own cores.
pub(crate) fn cpu(File { url, sha256 }: &File) -> Value {
    from(&json!({ "http": { "files": [{ "url": url, "sha256": sha256, "path": "model.gguf" }] } }))
}

/// A small deployment that asks for few cores, since many run side by side.
pub(crate) fn from(source: &Value) -> Value {
    let mut spec = json!({
        "model": { "source": source },
        "capacity": { "contextLength": 512, "concurrency": 1 },
        "accelerator": { "class": "CPU" },
        "serving": { "resources": { "requests": { "cpu": "50m" } } },
    });
    if source.get("http").is_some() {
        spec["volume"] = json!({ "size": "256Mi" });
    }
    spec
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
