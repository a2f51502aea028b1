//! Whether an observed object already says all that is desired of it.
//!
//! In: two JSON values. Out: yes or no. What the API server or others added does not matter. It must not know kinds.

use serde_json::Value;

/// Whether `observed` has every field of `desired` with the same value.
///
/// Lists are compared by place and length. Numbers that are quantities must be written as the API server writes
/// them (`1Gi`, not `1024Mi`): otherwise the object is applied again at each pass, which changes nothing but costs a
/// call.
#[must_use]
pub fn contains(observed: &Value, desired: &Value) -> bool {
    match (observed, desired) {
        (Value::Object(observed), Value::Object(desired)) => desired.iter().all(|(name, value)| {
            let empty = || match value {
                Value::Null => true,
                Value::Object(fields) => fields.is_empty(),
                Value::Array(items) => items.is_empty(),
                _ => false,
            };
            observed.get(name).map_or_else(empty, |observed| contains(observed, value))
        }),
        (Value::Array(observed), Value::Array(desired)) => {
            observed.len() == desired.len() && observed.iter().zip(desired).all(|(o, d)| contains(o, d))
        }
        _ => observed == desired,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn additions_are_ignored_and_differences_are_not() {
        let desired = json!({"a": {"b": [1, {"c": "x"}]}, "empty": {}, "none": null});
        assert!(contains(&json!({"a": {"b": [1, {"c": "x", "default": 1}]}, "status": {}}), &desired));
        for observed in [
            json!({"a": {"b": [1, {"c": "y"}]}}),
            json!({"a": {"b": [1, {"c": "x"}, 3]}}),
            json!({"a": {}}),
            json!({}),
        ] {
            assert!(!contains(&observed, &desired), "{observed}");
        }
    }
}
