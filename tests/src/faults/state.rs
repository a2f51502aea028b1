//! What a namespace looks like, without what differs from run to run.
//!
//! In: the objects, and the names of the run. Out: a [`State`], which is the same for runs that came to the same. It must
//! not know what is right.
//!
//! Left out are only values that the API server or the clock chose: uids, versions, times, addresses, who wrote which
//! field. An object's uid is replaced by its name, so that a reference to an owner that is gone is still seen; a booking
//! (a hash of the uid) by the replica and the attempt that it is for; a job's digest of its pod, which names the node,
//! by a word.

use std::collections::BTreeMap;

use anyhow::Result;
use contract::labels::{GROUP, MADE_FROM, VERSION};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use serde_json::Value;

use super::proxy::Written;

/// What a fleet is made of. Leases and events are no state; endpoints are Kubernetes' own.
const KINDS: [(&str, &str, &str); 7] = [
    (GROUP, VERSION, "LlmDeployment"),
    (GROUP, VERSION, "LlmModel"),
    ("batch", "v1", "Job"),
    ("", "v1", "ConfigMap"),
    ("", "v1", "PersistentVolumeClaim"),
    ("", "v1", "Pod"),
    ("", "v1", "Service"),
];
/// What Kubernetes itself puts into every namespace.
const AUTHORITY: &str = "kube-root-ca.crt";
/// Fields of the metadata that say nothing of what was asked for.
const CHOSEN: [&str; 4] = ["uid", "resourceVersion", "creationTimestamp", "managedFields"];
/// Fields of a Service that the API server chooses.
const ADDRESSES: [&str; 2] = ["clusterIP", "clusterIPs"];

/// Objects by kind and name.
pub type State = BTreeMap<String, Value>;

/// What the names of one run stand for, in the order in which they are replaced.
#[derive(Clone, Debug, Default)]
pub struct Names(Vec<(String, String)>);

impl Names {
    /// Of a run in this namespace on this node.
    #[must_use]
    pub fn new(namespace: &str, node: &str) -> Self {
        let pairs = [(namespace, "(namespace)"), (node, "(node)")];
        Self(pairs.map(|(from, to)| (from.to_owned(), to.to_owned())).into())
    }

    fn learn(&mut self, name: &Value, meaning: String) {
        if let Some(name) = name.as_str().filter(|name| !self.0.iter().any(|(known, _)| known == name)) {
            self.0.push((name.to_owned(), meaning));
        }
    }

    /// Learns what is named anew in these objects. What was learned is kept, for references outlive what they name.
    fn learn_from(&mut self, objects: &[Value]) {
        for object in objects {
            let metadata = &object["metadata"];
            for booking in object["status"]["placement"].as_array().into_iter().flatten() {
                self.learn(
                    &booking["booking"],
                    format!("(booking {}/{})", booking["replica"], booking["attempt"]),
                );
            }
            // A digest of what names the run's node.
            self.learn(&metadata["annotations"][MADE_FROM], "(made from)".to_owned());
            if let Some(prefix) = metadata["generateName"].as_str() {
                self.learn(&metadata["name"], format!("{prefix}*"));
            }
        }
        for object in objects {
            let key = self.replace(&key(object));
            self.learn(&object["metadata"]["uid"], format!("(uid of {key})"));
        }
    }

    /// A text in which every name of the run stands for itself.
    #[must_use]
    pub fn replace(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }
}

/// Reads the state of a namespace.
pub async fn read(client: &Client, namespace: &str, names: &mut Names) -> Result<State> {
    let mut objects = Vec::new();
    for (group, version, kind) in KINDS {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        for object in api.list(&ListParams::default()).await? {
            if object.name_any() != AUTHORITY {
                let mut object = serde_json::to_value(object)?;
                object["kind"] = kind.into();
                objects.push(object);
            }
        }
    }
    Ok(state(objects, names))
}

fn state(objects: Vec<Value>, names: &mut Names) -> State {
    names.learn_from(&objects);
    let without = |mut object: Value| {
        strip(&mut object["metadata"], &CHOSEN);
        if object["kind"] == "Service" {
            strip(&mut object["spec"], &ADDRESSES);
        }
        // How long something took is the clock's; that it is told of is not.
        let timings = object.pointer_mut("/status/timings").and_then(Value::as_object_mut);
        timings.into_iter().flatten().for_each(|(_, time)| *time = "(time)".into());
        (names.replace(&key(&object)), plain(object, names))
    };
    objects.into_iter().map(without).collect()
}

fn key(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

fn strip(object: &mut Value, fields: &[&str]) {
    if let Some(object) = object.as_object_mut() {
        object.retain(|field, _| !fields.contains(&field.as_str()));
    }
}

/// Replaces names and times everywhere.
fn plain(value: Value, names: &Names) -> Value {
    match value {
        Value::String(text) if text.parse::<Timestamp>().is_ok() => "(time)".into(),
        Value::String(text) => names.replace(&text).into(),
        Value::Array(items) => items.into_iter().map(|item| plain(item, names)).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(key, value)| (names.replace(&key), plain(value, names))).collect()
        }
        other => other,
    }
}

/// Where two states differ: path, what is expected, what is found.
#[must_use]
pub fn differences(expected: &State, found: &State) -> Vec<String> {
    let value = |state: &State| Value::Object(state.clone().into_iter().collect());
    let mut all = Vec::new();
    compare("", Some(&value(expected)), Some(&value(found)), &mut all);
    all
}

fn compare(path: &str, expected: Option<&Value>, found: Option<&Value>, all: &mut Vec<String>) {
    match (expected, found) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                compare(&format!("{path} {key}"), a.get(key), b.get(key), all);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for at in 0..a.len().max(b.len()) {
                compare(&format!("{path} {at}"), a.get(at), b.get(at), all);
            }
        }
        (a, b) if a == b => {}
        (a, b) => {
            let told = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
            all.push(format!("{path}: {} instead of {}", told(b), told(a)));
        }
    }
}

/// How many objects the operator made and deleted, by what it did to which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answers 201: objects that were not there before.
    pub created: BTreeMap<String, u64>,
    /// Objects that were told to go. To tell one twice changes nothing, so each uid counts once.
    pub deleted: BTreeMap<String, u64>,
}

impl Counts {
    /// Of the writes of a run.
    #[must_use]
    pub fn of(writes: &[Written], names: &Names) -> Self {
        let mut counts = Self::default();
        let mut uids = std::collections::BTreeSet::new();
        for Written { change, call, uid } in writes {
            let role = || format!("{}/{}", call.resource, names.replace(&call.name));
            if change.is_none() {
                continue;
            }
            if call.code == 201 {
                *counts.created.entry(role()).or_default() += 1;
            } else if call.verb == "delete" && call.code < 300 && (uid.is_none() || uids.insert(uid)) {
                *counts.deleted.entry(role()).or_default() += 1;
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn objects(namespace: &str, uid: &str, booking: &str) -> Vec<Value> {
        let metadata = |name: String, uid: String| json!({ "name": name, "namespace": namespace, "uid": uid, "resourceVersion": uid });
        let owner = json!([{ "uid": uid, "name": "chat" }]);
        let mut pod =
            json!({ "kind": "Pod", "metadata": metadata(format!("chat-{booking}"), format!("{uid}-pod")) });
        pod["metadata"]["ownerReferences"] = owner;
        let llm = json!({
            "kind": "LlmDeployment", "metadata": metadata("chat".into(), uid.into()),
            "status": {
                "placement": [{ "replica": 0, "attempt": 0, "booking": booking }],
                "since": format!("2026-01-01T00:00:0{}Z", uid.len()), "timings": { "ready": uid.len() },
            },
        });
        vec![pod, llm]
    }

    #[test]
    fn two_runs_that_came_to_the_same_are_the_same() {
        let of = |namespace: &str, uid: &str, booking: &str| {
            state(objects(namespace, uid, booking), &mut Names::new(namespace, "n1"))
        };
        let (a, b) = (of("kill-1", "8d3e", "aaaa"), of("kill-22", "51f07", "bbbb"));
        assert_eq!(differences(&a, &b), Vec::<String>::new());
        assert_eq!(a.keys().collect::<Vec<_>>(), ["LlmDeployment/chat", "Pod/chat-(booking 0/0)"]);
        let owner = &a["Pod/chat-(booking 0/0)"]["metadata"]["ownerReferences"][0];
        assert_eq!(owner["uid"], "(uid of LlmDeployment/chat)");
    }

    #[test]
    fn what_differs_is_told() {
        let mut others = objects("here", "8d3e", "aaaa");
        others[0]["metadata"]["ownerReferences"][0]["uid"] = "of an owner that is gone".into();
        others.push(json!({ "kind": "Pod", "metadata": { "name": "second" } }));
        let expected = state(objects("here", "8d3e", "aaaa"), &mut Names::new("here", "n1"));
        let told = differences(&expected, &state(others, &mut Names::new("here", "n1"))).join("\n");
        assert!(told.contains("ownerReferences 0 uid: \"of an owner that is gone\""), "{told}");
        assert!(told.contains("Pod/second") && told.contains("instead of nothing"), "{told}");
    }
}
