//! A bounded little-endian reader over the first bytes of a file.

use super::HeaderError;

/// Reads forward through `bytes`, which are the first of `file_len`.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    file_len: u64,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8], file_len: u64) -> Self {
        Self { bytes, position: 0, file_len }
    }

    pub(super) const fn position(&self) -> u64 {
        self.position as u64
    }

    /// The next `n` bytes, or what is missing: more of the file, or the file itself.
    pub(super) fn take(&mut self, n: u64) -> Result<&'a [u8], HeaderError> {
        let need = self.position().saturating_add(n);
        if need > self.file_len {
            return Err(HeaderError::Truncated(self.file_len));
        }
        let end = usize::try_from(need).ok().filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            return Err(HeaderError::NeedMore { given: self.bytes.len() as u64, need });
        };
        let taken = &self.bytes[self.position..end];
        self.position = end;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], HeaderError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self) -> Result<u32, HeaderError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, HeaderError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count that must not pass `limit`, nor what the rest of the file can hold at `least` bytes an item.
    pub(super) fn count(&mut self, what: &'static str, limit: u64, least: u64) -> Result<u64, HeaderError> {
        let value = self.u64()?;
        if value > limit {
            return Err(HeaderError::Limit { what, value, limit });
        }
        if value.saturating_mul(least) > self.file_len - self.position() {
            return Err(HeaderError::Truncated(self.file_len));
        }
        Ok(value)
    }

    /// A length-prefixed UTF-8 string of at most `limit` bytes.
    pub(super) fn string(&mut self, what: &'static str, limit: u64) -> Result<String, HeaderError> {
        let length = self.count(what, limit, 1)?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| HeaderError::Utf8(what))
    }
}
