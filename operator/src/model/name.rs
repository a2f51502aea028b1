//! The name of the LlmModel of a source and its volume, so that those who ask for the same share one.
//!
//! In: a source, a volume. Out: a slug for people and ten hex digits of the sha256 of both as canonical JSON.
//! It must not know whether such a model exists.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::api::deployment::LlmDeploymentSpec;
use crate::api::shared::{Source, VolumeSpec};

/// Longest name that the CRD takes.
const MAX_NAME: usize = 40;
/// Hex digits of the digest.
const DIGITS: usize = 10;

/// Name of the model that a deployment serves.
#[must_use]
pub fn served_by(spec: &LlmDeploymentSpec) -> Option<String> {
    match (&spec.model.model_ref, &spec.model.source) {
        (Some(reference), _) => Some(reference.name.clone()),
        (None, Some(source)) => Some(name_of(source, spec.volume.as_ref())),
        (None, None) => None,
    }
}

/// Name of the model of a source: the same for the same files in any order. Another volume is another model, since
/// the volume of one that exists cannot be changed.
#[must_use]
pub fn name_of(source: &Source, volume: Option<&VolumeSpec>) -> String {
    let mut canonical = source.clone();
    if let Some(http) = &mut canonical.http {
        http.files.sort_by(|a, b| a.path.cmp(&b.path));
    }
    let mut json = serde_json::to_value(&canonical).expect("a source is strings and lists");
    if let Some(volume) = volume {
        json["volume"] = serde_json::to_value(volume).expect("a volume is strings");
    }
    let json = sorted(json);
    let digest = hex::encode(Sha256::digest(json.to_string()));
    let slug = slug(hint(source));
    format!("{slug}-{}", &digest[..DIGITS])
}

/// What a person would call it: the file's or the folder's name, without its ending.
fn hint(source: &Source) -> &str {
    let path = match (&source.http, &source.persistent_volume_claim) {
        (Some(http), _) => http.files.iter().map(|file| file.path.as_str()).min().unwrap_or_default(),
        (None, Some(claim)) if claim.path.is_empty() => claim.claim_name.as_str(),
        (None, Some(claim)) => claim.path.as_str(),
        (None, None) => "",
    };
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// Lower-case letters, digits and single hyphens, beginning with a letter.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
    }
    if !slug.starts_with(|c: char| c.is_ascii_lowercase()) {
        slug.insert_str(0, "m-");
    }
    slug.truncate(MAX_NAME - DIGITS - 1);
    slug.trim_end_matches('-').to_owned()
}

/// Fields in the order of their names, at every depth.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        scalar => scalar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(yaml: &str) -> String {
        name_of(&serde_norway::from_str(yaml).unwrap(), None)
    }

    fn http(files: &[(&str, &str)]) -> String {
        let sha = "0f".repeat(32);
        let file = |(url, path): &(&str, &str)| {
            format!("{{url: 'http://h/{url}', sha256: '{sha}', path: '{path}'}}")
        };
        let files: Vec<String> = files.iter().map(file).collect();
        name(&format!("http: {{files: [{}]}}", files.join(",")))
    }

    #[test]
    fn names_are_for_people_and_for_kubernetes() {
        let cases = [
            (http(&[("x", "SmolLM2-135M-Instruct.Q4_1.gguf")]), "smollm2-135m-instruct-q4-1-"),
            (name("persistentVolumeClaim: {claimName: weights}"), "weights-"),
            (name("persistentVolumeClaim: {claimName: weights, path: a/7B_chat}"), "m-7b-chat-"),
            (name("persistentVolumeClaim: {claimName: c, path: _}"), "m-"),
        ];
        for (name, prefix) in cases {
            assert!(name.starts_with(prefix) && name.len() <= MAX_NAME, "{name}");
            let digest = name.rsplit('-').next().unwrap();
            assert!(digest.len() == DIGITS && digest.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
        }
        assert!(http(&[("x", &"long-name-".repeat(20))]).len() <= MAX_NAME);
    }

    #[test]
    fn equal_sources_share_a_name_and_others_do_not() {
        let (a, b) = (("1", "a.json"), ("2", "b.gguf"));
        assert_eq!(http(&[a, b]), http(&[b, a]));
        assert_ne!(http(&[a, b]), http(&[a]));
        assert_ne!(http(&[("1", "a.json")]), http(&[("2", "a.json")]));
        let source = serde_norway::from_str("persistentVolumeClaim: {claimName: weights}").unwrap();
        let sized =
            |size: &str| name_of(&source, Some(&VolumeSpec { size: size.into(), ..Default::default() }));
        assert_ne!(sized("1Gi"), sized("2Gi"));
        assert_ne!(sized("1Gi"), name_of(&source, None));
        // Names of objects that exist must not change with a version of this program.
        assert_eq!(name("persistentVolumeClaim: {claimName: weights, path: tiny}"), "tiny-4161859474");
    }
}
