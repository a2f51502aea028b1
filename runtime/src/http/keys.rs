//! Keys of clients: only their digests are kept.
//!
//! In: a file with one key a line, and what a request carries. Out: whether it is one of them.

use axum::http::{HeaderMap, HeaderValue, header};
use contract::http::API_KEY_HEADER;
use sha2::{Digest, Sha256};

/// What a digest begins with that stands in place of its key.
const HASHED: &str = "sha256:";
/// What stands before a key in its header.
const BEARER: &str = "Bearer ";

/// Keys that are accepted.
#[derive(Debug)]
pub struct Keys(Vec<[u8; 32]>);

/// A file of keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Not text.
    #[error("the file of API keys is not UTF-8")]
    Text,
    /// Nothing that would be accepted.
    #[error("the file of API keys has no keys")]
    Empty,
    /// Not a digest.
    #[error("line {0} of the file of API keys is not {HASHED} and 64 hexadecimal digits")]
    Digest(usize),
}

impl Keys {
    /// Reads a file: blank lines and those that begin with `#` say nothing.
    ///
    /// # Errors
    /// Where a line is no digest, though it begins like one, or there are no keys at all.
    pub fn parse(files: &[Vec<u8>]) -> Result<Self, KeysError> {
        let text = std::str::from_utf8(files.first().map_or(&[][..], Vec::as_slice));
        let lines = text.map_err(|_| KeysError::Text)?.lines().map(str::trim).enumerate();
        let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let keys: Vec<_> = keys.map(|(at, line)| digest(at + 1, line)).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(KeysError::Empty) } else { Ok(Self(keys)) }
    }

    /// Whether this is one of them. It takes as long whichever it is, and whether it is one or not.
    #[must_use]
    pub fn know(&self, key: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(key).into();
        let differs = |known: &[u8; 32]| known.iter().zip(given).fold(0, |bits, (a, b)| bits | (a ^ b));
        self.0.iter().fold(false, |found, known| found | (differs(known) == 0))
    }
}

fn digest(line: usize, text: &str) -> Result<[u8; 32], KeysError> {
    match text.strip_prefix(HASHED) {
        None => Ok(Sha256::digest(text).into()),
        Some(digits) => {
            let bytes = hex::decode(digits).ok().and_then(|bytes| bytes.try_into().ok());
            bytes.ok_or(KeysError::Digest(line))
        }
    }
}

/// The key that a request carries, as clients of OpenAI's API or of Anthropic's do.
pub(super) fn carried(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer =
        headers.get(header::AUTHORIZATION).and_then(|v| v.as_bytes().strip_prefix(BEARER.as_bytes()));
    bearer.or_else(|| headers.get(API_KEY_HEADER).map(HeaderValue::as_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Keys, KeysError> {
        Keys::parse(&[text.as_bytes().to_vec()])
    }

    #[test]
    fn keys_are_known_by_themselves_or_by_their_digest() {
        let hashed = format!("# ours\n\n plain \nsha256:{}\n", hex::encode(Sha256::digest("secret")));
        let keys = keys(&hashed).unwrap();
        assert!(keys.know(b"plain") && keys.know(b"secret"));
        assert!(!keys.know(b"") && !keys.know(b"# ours") && !keys.know(hex::encode("secret").as_bytes()));
    }

    #[test]
    fn a_file_that_would_lock_everybody_out_is_refused() {
        assert!(matches!(keys("# none\n"), Err(KeysError::Empty)));
        assert!(matches!(keys("a\nsha256:12"), Err(KeysError::Digest(2))));
        assert!(matches!(Keys::parse(&[vec![0xff]]), Err(KeysError::Text)));
    }

    #[test]
    fn a_key_comes_in_either_header() {
        let of = |name: &'static str, value: &'static str| {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
            carried(&headers).map(<[u8]>::to_vec)
        };
        assert_eq!(of("authorization", "Bearer k"), Some(b"k".to_vec()));
        assert_eq!((of("x-api-key", "k"), of("authorization", "Basic k")), (Some(b"k".to_vec()), None));
    }
}
