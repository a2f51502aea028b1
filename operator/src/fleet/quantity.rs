//! Kubernetes quantities as whole numbers.
//!
//! In: text such as `1500m`, `2Gi` or `1e3`. Out: thousandths or units, rounded up, as the scheduler rounds.

use contract::Bytes;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Thousandths of a core.
#[must_use]
pub fn cpu_millis(quantity: &Quantity) -> u64 {
    scaled(&quantity.0, 1_000)
}

/// Bytes.
#[must_use]
pub fn bytes(quantity: &Quantity) -> Bytes {
    Bytes(scaled(&quantity.0, 1))
}

/// Whole things, such as devices or pods.
#[must_use]
pub fn count(quantity: &Quantity) -> u32 {
    u32::try_from(scaled(&quantity.0, 1)).unwrap_or(u32::MAX)
}

/// `value × scale`, rounded up. The API server admits no quantity that cannot be read, so what cannot is 0; what is
/// negative is 0 and what does not fit is the largest number.
fn scaled(text: &str, scale: u128) -> u64 {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let Some((numerator, denominator)) = unit(suffix) else { return 0 };
    let (whole, fraction) = number.trim_start_matches('+').split_once('.').unwrap_or((number, ""));
    let fraction = &fraction[..fraction.len().min(9)];
    let digits: String = whole.trim_start_matches('+').chars().chain(fraction.chars()).collect();
    let Ok(value) = digits.parse::<u128>() else { return 0 };
    let denominator = denominator.saturating_mul(10u128.pow(u32::try_from(fraction.len()).unwrap_or(9)));
    let product = value.checked_mul(numerator).and_then(|product| product.checked_mul(scale));
    product.map_or(u64::MAX, |product| u64::try_from(product.div_ceil(denominator)).unwrap_or(u64::MAX))
}

fn unit(suffix: &str) -> Option<(u128, u128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => return exponent(suffix),
    })
}

fn exponent(suffix: &str) -> Option<(u128, u128)> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let size = 10u128.checked_pow(power.unsigned_abs())?;
    Some(if power < 0 { (1, size) } else { (size, 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_rounded_up_to_whole_numbers() {
        let millis = |text: &str| cpu_millis(&Quantity(text.into()));
        let cases = [("2", 2000), ("1500m", 1500), ("0.5", 500), ("1e-1", 100), ("100u", 1), ("1n", 1)];
        for (text, expected) in cases {
            assert_eq!(millis(text), expected, "{text}");
        }
        let bytes = |text: &str| bytes(&Quantity(text.into())).0;
        let cases = [
            ("65886780Ki", 65_886_780 << 10),
            ("1.5Gi", 3 << 29),
            ("129e6", 129_000_000),
            ("1E", 1_000_000_000_000_000_000),
            ("128974848000m", 128_974_848),
            ("+1k", 1000),
            ("100Ei", u64::MAX),
            ("-1", 0),
            ("x", 0),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), expected, "{text}");
        }
        assert_eq!(count(&Quantity("110".into())), 110);
    }
}
