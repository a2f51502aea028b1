//! The rights that the chart gives, for an operator that is not in a pod.
//!
//! In: a rendered chart. Out: its roles and bindings for a group of users, and the rights one by one. The API server
//! itself judges each call; what is listed here shows which rights nobody used. It must not know the calls' meaning.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::audit::Call;

/// Kinds that give rights.
const KINDS: [&str; 4] = ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];

/// What may be done with a kind of object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// API group; empty for the core.
    pub group: String,
    /// Plural, with the subresource.
    pub resource: String,
    /// `create`, `patch`, …
    pub verb: String,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { group, resource, verb } = self;
        let dot = if group.is_empty() { "" } else { "." };
        write!(f, "{verb} {resource}{dot}{group}")
    }
}

/// The roles and bindings of a rendered chart.
#[derive(Clone, Debug)]
pub struct Rights(Vec<Value>);

impl Rights {
    /// Reads the rendered chart.
    pub fn read(manifest: &str) -> Result<Self> {
        let mut objects = Vec::new();
        for document in serde_norway::Deserializer::from_str(manifest) {
            let object = Value::deserialize(document).context("the rendered chart is not YAML")?;
            // What Helm makes for a job of its own is none of the operator's.
            let of_hook = object["metadata"]["annotations"]["helm.sh/hook"].is_string();
            if !of_hook && KINDS.iter().any(|kind| object["kind"] == *kind) {
                objects.push(object);
            }
        }
        Ok(Self(objects))
    }

    /// The same, with every account of a binding replaced by a group of users.
    #[must_use]
    pub fn bound_to(&self, group: &str) -> Vec<Value> {
        let subject = json!({ "kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": group });
        let mut objects = self.0.clone();
        for object in &mut objects {
            if object.get("subjects").is_some() {
                object["subjects"] = json!([subject]);
            }
        }
        objects
    }

    /// Those that are limited to one namespace, in another.
    #[must_use]
    pub fn moved(&self, from: &str, to: &str) -> Self {
        let mut objects = self.0.clone();
        objects.retain(|object| object["metadata"]["namespace"] == from);
        for object in &mut objects {
            object["metadata"]["namespace"] = json!(to);
        }
        Self(objects)
    }

    /// The namespaces that rights are limited to.
    #[must_use]
    pub fn namespaces(&self) -> BTreeSet<String> {
        self.0
            .iter()
            .filter_map(|object| object["metadata"]["namespace"].as_str().map(str::to_owned))
            .collect()
    }

    /// Every right of a role that is bound. Roles that others aggregate are not.
    #[must_use]
    pub fn granted(&self) -> BTreeSet<Right> {
        let bound: BTreeSet<&str> = self.0.iter().filter_map(|o| o["roleRef"]["name"].as_str()).collect();
        let is_bound =
            |object: &&Value| object["metadata"]["name"].as_str().is_some_and(|n| bound.contains(n));
        self.0.iter().filter(is_bound).flat_map(|role| strings(role, "rules")).flat_map(rights).collect()
    }
}

/// The rights that calls made use of. To apply an object that is not there yet takes the right to create it too.
#[must_use]
pub fn used(calls: &[Call]) -> BTreeSet<Right> {
    let right = |call: &Call, verb: &str| Right {
        group: call.group.clone(),
        resource: call.resource.clone(),
        verb: verb.to_owned(),
    };
    let asked = calls.iter().map(|call| right(call, &call.verb));
    let created = calls.iter().filter(|call| call.code == 201).map(|call| right(call, "create"));
    asked.chain(created).collect()
}

fn rights(rule: &Value) -> Vec<Right> {
    let mut all = Vec::new();
    for group in strings(rule, "apiGroups") {
        for resource in strings(rule, "resources") {
            for verb in strings(rule, "verbs") {
                let [group, resource, verb] =
                    [group, resource, verb].map(|word| word.as_str().unwrap_or_default().to_owned());
                all.push(Right { group, resource, verb });
            }
        }
    }
    all
}

fn strings<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value[field].as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bound_roles_count() {
        let manifest = "
kind: Role
metadata: {name: bound, namespace: a}
rules: [{apiGroups: ['', batch], resources: [jobs], verbs: [get, list]}]
---
kind: ClusterRole
metadata: {name: aggregated}
rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]
---
kind: Service
metadata: {name: bound}
---
kind: RoleBinding
metadata: {name: bound, namespace: a}
roleRef: {kind: Role, name: bound}
subjects: [{kind: ServiceAccount, name: operator}]
";
        let rights = Rights::read(manifest).unwrap();
        let granted: Vec<String> = rights.granted().iter().map(Right::to_string).collect();
        assert_eq!(granted, ["get jobs", "list jobs", "get jobs.batch", "list jobs.batch"]);
        assert_eq!(rights.namespaces(), ["a".to_owned()].into());
        let bound = rights.bound_to("operators");
        assert_eq!(bound.len(), 3);
        assert_eq!(bound[2]["subjects"][0]["name"], "operators");
        let moved = rights.moved("a", "b");
        assert_eq!((moved.0.len(), moved.namespaces()), (2, ["b".to_owned()].into()));
    }
}
