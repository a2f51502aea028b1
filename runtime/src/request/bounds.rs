//! Limits of a body's shape, found before anything is made of it: parsed values take many times their bytes. Pure.

/// Deepest nesting of lists and objects.
pub(super) const MAX_DEPTH: usize = 64;
/// Most values: entries of lists and of objects.
pub(super) const MAX_VALUES: usize = 200_000;

/// A body beyond them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beyond {
    Depth,
    Values,
}

/// Counts brackets and commas outside of strings. It must not check whether the body is JSON.
pub(super) fn check(body: &[u8]) -> Result<(), Beyond> {
    let (mut depth, mut values, mut string, mut escaped) = (0usize, 0usize, false, false);
    for byte in body {
        match (string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => string = !string,
            (true, _) => {}
            (false, b'[' | b'{') => {
                depth += 1;
                values += 1;
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            (false, b',') => values += 1,
            (false, _) => {}
        }
        if depth > MAX_DEPTH {
            return Err(Beyond::Depth);
        }
        if values > MAX_VALUES {
            return Err(Beyond::Values);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_do_not_count_and_everything_else_does() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(check(deep(MAX_DEPTH).as_bytes()), Ok(()));
        assert_eq!(check(deep(MAX_DEPTH + 1).as_bytes()), Err(Beyond::Depth));
        assert_eq!(check(format!("{{\"a\\\"{}\": 1}}", deep(99)).as_bytes()), Ok(()));
        let many = |n: usize| format!("[{}0]", "0,".repeat(n));
        assert_eq!(check(many(MAX_VALUES - 1).as_bytes()), Ok(()));
        assert_eq!(check(many(MAX_VALUES).as_bytes()), Err(Beyond::Values));
    }
}
