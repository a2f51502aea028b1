mod manifests;

use super::*;

/// What a walk over a schema calls for every schema in it, with its path.
fn walk(schema: &Value, path: &str, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        walk(inner, &format!("{path}.{name}"), visit);
    }
    for keyword in ["items", "additionalProperties"] {
        if schema[keyword].is_object() {
            walk(&schema[keyword], &format!("{path}.{keyword}"), visit);
        }
    }
}

fn schemas() -> Vec<(String, Value)> {
    let schema = |crd: CustomResourceDefinition| {
        let value = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        (crd.spec.names.kind, value["openAPIV3Schema"].clone())
    };
    crds().into_iter().map(schema).collect()
}

#[test]
fn the_committed_files_are_the_generated_ones() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds");
    for (name, content) in files() {
        let committed = std::fs::read_to_string(folder.join(&name)).unwrap_or_default();
        assert!(committed == content, "crds/{name} is not what the types say; run: make crds");
    }
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), files().len(), "a file of crds/ has no type");
}

#[test]
fn every_list_map_and_string_of_a_spec_is_bounded() {
    for (kind, schema) in schemas() {
        walk(&schema["properties"]["spec"], &format!("{kind}.spec"), &mut |path, schema| {
            let bound = match schema["type"].as_str() {
                Some("string") if schema["enum"].is_array() => return,
                Some("string") => "maxLength",
                Some("array") => "maxItems",
                Some("object") if schema["additionalProperties"].is_object() => "maxProperties",
                Some("object" | "boolean") => return,
                Some("integer") => return assert!(schema["minimum"].is_number(), "{path} has no minimum"),
                other => panic!("{path} has type {other:?}"),
            };
            assert!(schema[bound].is_number(), "{path} has no {bound}");
        });
    }
}

#[test]
fn every_field_is_described() {
    for (kind, schema) in schemas() {
        for part in ["spec", "status"] {
            walk(&schema["properties"][part], &format!("{kind}.{part}"), &mut |path, schema| {
                let inner = path.ends_with(".items") || path.ends_with(".additionalProperties");
                let described = schema["description"].as_str().is_some_and(|d| d.ends_with('.'));
                assert!(inner || described, "{path} has no description");
                assert!(schema["nullable"].is_null() && schema["anyOf"].is_null(), "{path}");
                let format = schema["format"].as_str();
                assert!(format.is_none_or(|f| FORMATS.contains(&f)), "{path} has format {format:?}");
            });
        }
    }
}

/// Required, or with a default in words or in the schema: `kubectl explain` must answer "and if I leave it out?".
#[test]
fn every_field_of_a_spec_states_its_default() {
    for (kind, schema) in schemas() {
        walk(&schema["properties"]["spec"], &format!("{kind}.spec"), &mut |path, schema| {
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                let says = field["description"].as_str().unwrap_or_default().to_lowercase();
                let known =
                    says.contains("default:") || says.contains("required") || !field["default"].is_null();
                assert!(known, "{path}.{name} does not say what it is when it is left out: {says}");
            }
        });
    }
}
