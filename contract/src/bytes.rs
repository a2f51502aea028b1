//! `Bytes`: a count of bytes with checked arithmetic, and Kubernetes quantities in and out.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A number of bytes. Sums and products that do not fit in 64 bits are errors, never wrapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Bytes(pub u64);

/// A quantity that cannot be a number of bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BytesError {
    /// The text is not a quantity such as `24Gi`, `500M` or `1024`.
    #[error("{0:?} is not a number of bytes; write for example 24Gi, 500M or 1024")]
    Malformed(String),
    /// The number does not fit in 64 bits.
    #[error("a number of bytes does not fit in 64 bits")]
    Overflow,
}

/// Suffixes of Kubernetes quantities that count whole bytes, the longest first.
const SUFFIXES: [(&str, u64); 11] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("", 1),
];

impl Bytes {
    /// No bytes.
    pub const ZERO: Self = Self(0);

    /// `n` MiB.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// Sum, or an error on overflow.
    pub fn plus(self, other: Self) -> Result<Self, BytesError> {
        self.0.checked_add(other.0).map(Self).ok_or(BytesError::Overflow)
    }

    /// Product, or an error on overflow.
    pub fn times(self, n: u64) -> Result<Self, BytesError> {
        self.0.checked_mul(n).map(Self).ok_or(BytesError::Overflow)
    }

    /// Difference, or zero when `other` is larger.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Sum of many, or an error on overflow.
    pub fn sum(items: impl IntoIterator<Item = Self>) -> Result<Self, BytesError> {
        items.into_iter().try_fold(Self::ZERO, Self::plus)
    }
}

impl FromStr for Bytes {
    type Err = BytesError;

    /// Reads a Kubernetes quantity of whole bytes; a fraction such as `1.5Gi` is rounded up.
    fn from_str(text: &str) -> Result<Self, BytesError> {
        let malformed = || BytesError::Malformed(text.to_owned());
        let (number, unit) = SUFFIXES
            .iter()
            .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))
            .ok_or_else(malformed)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
            return Err(malformed());
        }
        let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| malformed())?);
        let whole: u128 = whole.parse().map_err(|_| BytesError::Overflow)?;
        let fraction: u128 =
            if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| malformed())? };
        let scaled = whole.checked_mul(scale).and_then(|w| w.checked_add(fraction));
        let total = scaled.and_then(|s| s.checked_mul(u128::from(unit))).ok_or(BytesError::Overflow)?;
        u64::try_from(total.div_ceil(scale)).map(Self).map_err(|_| BytesError::Overflow)
    }
}

/// For people: `1.50 GiB`. Three significant places are enough to compare cards and models.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        for (size, name) in units {
            if self.0 >= size {
                let hundredths = u128::from(self.0) * 100 / u128::from(size);
                return write!(f, "{}.{:02} {name}", hundredths / 100, hundredths % 100);
            }
        }
        write!(f, "{} B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        let cases = [("24Gi", 24 << 30), ("500M", 500_000_000), ("1024", 1024), ("1.5Ki", 1536), ("0.1", 1)];
        for (text, expected) in cases {
            assert_eq!(text.parse(), Ok(Bytes(expected)), "{text}");
        }
        for text in ["", "Gi", "-1", "1.2.3", "1e3", "12 Gi", "٣"] {
            assert!(matches!(text.parse::<Bytes>(), Err(BytesError::Malformed(_))), "{text}");
        }
        assert_eq!("99999999999Pi".parse::<Bytes>(), Err(BytesError::Overflow));
    }

    #[test]
    fn arithmetic_never_wraps() {
        assert_eq!(Bytes(u64::MAX).plus(Bytes(1)), Err(BytesError::Overflow));
        assert_eq!(Bytes(u64::MAX).times(2), Err(BytesError::Overflow));
        assert_eq!(Bytes(1).minus(Bytes(2)), Bytes::ZERO);
    }

    #[test]
    fn people_read_binary_units() {
        assert_eq!(Bytes(1536 << 20).to_string(), "1.50 GiB");
        assert_eq!(Bytes(12).to_string(), "12 B");
    }
}
