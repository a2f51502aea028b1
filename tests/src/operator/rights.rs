//! The rights that the chart gives, for an operator that is not in a pod.
//!
//! In: a rendered chart, and the calls of an audit log. Out: its roles and bindings for a group of users, the rights one
//! by one, those that no call needed, and the calls that no right is for. It must not know the calls' meaning.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::audit::Call;

/// Kinds that give rights.
const KINDS: [&str; 4] = ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];

/// What may be done, or was done, with objects of a kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// Where; everywhere if there is none.
    pub namespace: Option<String>,
    /// API group; empty for the core.
    pub group: String,
    /// Plural, with the subresource.
    pub resource: String,
    /// `create`, `patch`, …
    pub verb: String,
    /// The only object; all if there is none.
    pub name: Option<String>,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { namespace, group, resource, verb, name } = self;
        let dot = if group.is_empty() { "" } else { "." };
        write!(f, "{verb} {resource}{dot}{group}")?;
        name.iter().try_for_each(|name| write!(f, " {name:?}"))?;
        namespace.iter().try_for_each(|namespace| write!(f, " in {namespace}"))
    }
}

impl Right {
    /// Whether this one gives the other.
    fn covers(&self, other: &Self) -> bool {
        let within = |wide: &Option<String>, narrow: &Option<String>| wide.is_none() || wide == narrow;
        within(&self.namespace, &other.namespace)
            && within(&self.name, &other.name)
            && (&self.group, &self.resource, &self.verb) == (&other.group, &other.resource, &other.verb)
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

    /// Every right of a role that is bound, where it is bound. Roles that others aggregate are not.
    #[must_use]
    pub fn granted(&self) -> BTreeSet<Right> {
        let bindings = self.0.iter().filter(|object| object.get("roleRef").is_some());
        let role_of = |binding: &Value| {
            let (kind, name) = (binding["roleRef"]["kind"].clone(), binding["roleRef"]["name"].clone());
            // A role of the cluster has no namespace, wherever it is bound.
            let namespace =
                if kind == "Role" { binding["metadata"]["namespace"].clone() } else { Value::Null };
            self.0.iter().find(move |role| {
                role["kind"] == kind
                    && role["metadata"]["name"] == name
                    && role["metadata"]["namespace"] == namespace
            })
        };
        let of_binding = |binding: &Value| {
            let namespace = binding["metadata"]["namespace"].as_str().map(str::to_owned);
            let rules = role_of(binding).into_iter().flat_map(|role| array(role, "rules"));
            rules.flat_map(|rule| rights(rule, namespace.as_ref())).collect::<Vec<_>>()
        };
        bindings.flat_map(of_binding).collect()
    }
}

/// What calls made use of. To apply an object that is not there yet takes the right to create it too.
fn used(calls: &[Call]) -> BTreeSet<Right> {
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    let right = |call: &Call, verb: &str| Right {
        namespace: some(&call.namespace),
        group: call.group.clone(),
        resource: call.resource.clone(),
        verb: verb.to_owned(),
        name: some(&call.name),
    };
    let asked = calls.iter().map(|call| right(call, &call.verb));
    let created = calls.iter().filter(|call| call.code == 201).map(|call| right(call, "create"));
    asked.chain(created).collect()
}

/// Fails if a call had no right to be made. Gives the rights that no call needed.
pub fn check(rights: &Rights, calls: &[Call]) -> Result<Vec<Right>> {
    let forbidden: Vec<_> = calls.iter().filter(|call| call.forbidden).collect();
    ensure!(forbidden.is_empty(), "the chart gives no right to {forbidden:?}");
    let (granted, used) = (rights.granted(), used(calls));
    let told = |rights: &[&Right]| rights.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let missing = missing(&granted, &used);
    ensure!(missing.is_empty(), "no rule of the chart is for: {}", told(&missing));
    let unneeded = unneeded(&granted, &used);
    println!("{} rights, by {} calls; not needed: {}", granted.len(), calls.len(), told(&unneeded));
    Ok(unneeded.into_iter().cloned().collect())
}

/// What was used and is not granted.
fn missing<'a>(granted: &BTreeSet<Right>, used: &'a BTreeSet<Right>) -> Vec<&'a Right> {
    used.iter().filter(|used| !granted.iter().any(|right| right.covers(used))).collect()
}

/// What is granted and was not needed: nobody used it, or another right that is wider gave it already.
fn unneeded<'a>(granted: &'a BTreeSet<Right>, used: &BTreeSet<Right>) -> Vec<&'a Right> {
    let wider = |right: &Right| granted.iter().any(|other| other != right && other.covers(right));
    let needed = |right: &Right| used.iter().any(|used| right.covers(used)) && !wider(right);
    granted.iter().filter(|right| !needed(right)).collect()
}

fn rights(rule: &Value, namespace: Option<&String>) -> Vec<Right> {
    let mut all = Vec::new();
    for (group, resource, verb) in products(rule) {
        let right = |name: Option<String>| Right {
            namespace: namespace.cloned(),
            group: group.clone(),
            resource: resource.clone(),
            verb: verb.clone(),
            name,
        };
        match rule.get("resourceNames") {
            Some(_) => all.extend(strings(rule, "resourceNames").map(|name| right(Some(name)))),
            None => all.push(right(None)),
        }
    }
    all
}

fn products(rule: &Value) -> impl Iterator<Item = (String, String, String)> + use<'_> {
    strings(rule, "apiGroups").flat_map(move |group| {
        strings(rule, "resources").flat_map(move |resource| {
            let group = group.clone();
            strings(rule, "verbs").map(move |verb| (group.clone(), resource.clone(), verb))
        })
    })
}

fn strings<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = String> + use<'a> {
    array(value, field).filter_map(|word| word.as_str().map(str::to_owned))
}

fn array<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
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
        assert_eq!(
            granted,
            ["get jobs in a", "list jobs in a", "get jobs.batch in a", "list jobs.batch in a"]
        );
        assert_eq!(rights.namespaces(), ["a".to_owned()].into());
        let bound = rights.bound_to("operators");
        assert_eq!(bound.len(), 3);
        assert_eq!(bound[2]["subjects"][0]["name"], "operators");
        let moved = rights.moved("a", "b");
        assert_eq!((moved.0.len(), moved.namespaces()), (2, ["b".to_owned()].into()));
    }

    fn right(namespace: &str, verb: &str, name: &str) -> Right {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (group, resource) = (String::new(), "pods".to_owned());
        Right { namespace: some(namespace), group, resource, verb: verb.to_owned(), name: some(name) }
    }

    #[test]
    fn a_right_is_needed_where_no_wider_one_is() {
        let granted =
            [right("", "list", ""), right("a", "list", ""), right("a", "get", ""), right("a", "get", "x")];
        let granted = BTreeSet::from(granted);
        let used = BTreeSet::from([right("a", "list", ""), right("a", "get", "x")]);
        assert_eq!(unneeded(&granted, &used), [&right("a", "get", "x"), &right("a", "list", "")]);
        assert_eq!(missing(&granted, &used), Vec::<&Right>::new());
        let foreign = BTreeSet::from([right("b", "list", ""), right("b", "get", "x"), right("", "get", "")]);
        assert_eq!(missing(&granted, &foreign), [&right("", "get", ""), &right("b", "get", "x")]);
    }

    #[test]
    fn names_of_objects_count() {
        let manifest = "
kind: Role
metadata: {name: leader, namespace: a}
rules: [{apiGroups: [''], resources: [pods], verbs: [get], resourceNames: [x, y]}]
---
kind: RoleBinding
metadata: {name: leader, namespace: a}
roleRef: {kind: Role, name: leader}
";
        let granted = Rights::read(manifest).unwrap().granted();
        assert_eq!(granted, BTreeSet::from([right("a", "get", "x"), right("a", "get", "y")]));
    }
}
