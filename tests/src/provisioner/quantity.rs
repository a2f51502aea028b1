//! Kubernetes quantities as whole bytes, rounded up. Pure.

/// `1Gi`, `500M`, `1e9`, `1.5Ti` and the like; `None` for what is no quantity, negative, or past 2^63.
pub fn bytes(quantity: &str) -> Option<u64> {
    let end = quantity.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(quantity.len());
    let (number, unit) = quantity.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Nine digits after the point are what the API server keeps.
    let fraction = &fraction[..fraction.len().min(9)];
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (factor, divisor) = scale(unit)?;
    let divisor = divisor * 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let bytes = digits.checked_mul(factor)?.div_ceil(divisor);
    u64::try_from(bytes).ok().filter(|bytes| i64::try_from(*bytes).is_ok())
}

fn scale(unit: &str) -> Option<(u128, u128)> {
    let binary = |power: u32| Some((1_u128 << (10 * power), 1));
    let decimal = |power: u32| Some((10_u128.pow(power), 1));
    match unit {
        "" => decimal(0),
        "m" => Some((1, 1000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => unit.strip_prefix(['e', 'E'])?.parse().ok().filter(|power| *power <= 18).and_then(decimal),
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn every_notation_is_read() {
        let table = [
            ("0", 0),
            ("128974848", 128_974_848),
            ("1Gi", 1 << 30),
            ("1.5Ki", 1536),
            ("500M", 500_000_000),
            ("2k", 2000),
            ("1e3", 1000),
            ("1500m", 2),
            ("7Ei", 7 << 60),
        ];
        for (text, expected) in table {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        for text in ["", "Gi", "-1", "1 Gi", "1X", "1.2.3", "8Ei", "1e19", "1e"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
