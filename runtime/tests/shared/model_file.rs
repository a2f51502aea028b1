//! Where the model of the tests is.

use std::env;
use std::path::PathBuf;

const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// The model's file in the cache, where `make model` puts it.
pub(crate) fn model_file() -> PathBuf {
    let cache = || match env::var_os("LLMFLEET_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/llm-fleet"),
    };
    let folder = env::var_os("LLMFLEET_MODELS").map_or_else(|| cache().join("models"), PathBuf::from);
    let file = folder.join(FILE);
    assert!(file.is_file(), "{} is not there; `make model` fetches it", file.display());
    file
}
