//! The CEL rules against the manifests of `tests/manifests`, without an API server. A test of the package `e2e`
//! sends the same files to a real one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kube::core::cel::Validator;
use serde::Deserialize;

use super::*;

fn manifests(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/manifests").join(folder);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The documents of a file, each with what the rules say when it replaces the one before.
fn verdicts(text: &str) -> Vec<Vec<String>> {
    let schemas = schemas();
    let documents: Vec<Value> =
        serde_norway::Deserializer::from_str(text).map(|d| Value::deserialize(d).unwrap()).collect();
    let verdict = |index: usize| {
        let kind = documents[index]["kind"].as_str().unwrap();
        let (_, schema) = schemas.iter().find(|(name, _)| name == kind).unwrap();
        let old = index.checked_sub(1).map(|before| &documents[before]);
        let errors = Validator::new().validate(schema, &documents[index], old).err();
        errors.map_or(vec![], |errors| errors.into_vec().into_iter().map(|error| error.message).collect())
    };
    (0..documents.len()).map(verdict).collect()
}

fn rule_messages() -> BTreeSet<String> {
    let mut messages = BTreeSet::new();
    for (kind, schema) in schemas() {
        walk(&schema, &kind, &mut |_, schema| {
            let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
            messages.extend(rules.map(|rule| rule["message"].as_str().unwrap().to_owned()));
        });
    }
    messages
}

#[test]
fn valid_manifests_break_no_rule() {
    for (path, text) in manifests("valid") {
        assert_eq!(verdicts(&text), vec![Vec::<String>::new()], "{}", path.display());
    }
}

#[test]
fn invalid_manifests_break_the_rule_that_they_name() {
    let messages = rule_messages();
    let mut broken = BTreeSet::new();
    for (path, text) in manifests("invalid") {
        let expected = text.lines().next().and_then(|line| line.strip_prefix("# expect: "));
        let expected = expected.unwrap_or_else(|| panic!("{} expects nothing", path.display()));
        let mut verdicts = verdicts(&text);
        let last = verdicts.pop().unwrap();
        assert!(verdicts.iter().all(Vec::is_empty), "{}: {verdicts:?}", path.display());
        if messages.contains(expected) {
            assert_eq!(last, [expected], "{}", path.display());
            broken.insert(expected.to_owned());
        }
    }
    assert_eq!(messages, broken, "each rule has a manifest that breaks it");
}
