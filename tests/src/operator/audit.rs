//! What an API server's audit log says of some users.
//!
//! In: the log and how the users' names begin. Out: their calls in the order in which they were received. It must not
//! know what the calls were for.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

/// Calls that change nothing.
const READS: [&str; 3] = ["get", "list", "watch"];
/// The resource whose writes say that a process is alive, and nothing else.
const LEASES: &str = "leases";
/// The resource whose writes tell people what happened. Two processes may tell the same, and no state depends on it.
const EVENTS: &str = "events";

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Who, as impersonated if at all.
    pub user: String,
    /// `create`, `patch`, …
    pub verb: String,
    /// API group; empty for the core.
    pub group: String,
    /// Plural, with the subresource: `pods`, `pods/log`.
    pub resource: String,
    /// Namespace; empty for objects of the cluster and for calls over all namespaces.
    pub namespace: String,
    /// Name; empty where there is none or the API server chose it.
    pub name: String,
    /// HTTP status of the answer.
    pub code: u64,
    /// Whether the caller had no right to it.
    pub forbidden: bool,
}

impl Call {
    /// Whether it changes an object. Leases do not count.
    #[must_use]
    pub fn writes(&self) -> bool {
        !READS.contains(&self.verb.as_str()) && self.resource != LEASES
    }

    /// Whether it changes what the cluster is to do or is known to be: a write that is no event.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.writes() && self.resource != EVENTS
    }
}

/// The calls about objects of users whose name begins with `prefix`.
pub fn calls(log: &Path, prefix: &str) -> Result<Vec<Call>> {
    let text = std::fs::read_to_string(log)?;
    let mark = format!("\"username\":\"{prefix}");
    // A watch is told of when it begins and when it ends; it is one call.
    let mut calls = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains(&mark)) {
        // The last line may still be being written.
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        let (received, call) = (string(&event["requestReceivedTimestamp"]), call(&event));
        if call.user.starts_with(prefix) && !call.resource.is_empty() {
            calls.insert((received, string(&event["auditID"])), call);
        }
    }
    Ok(calls.into_values().collect())
}

fn call(event: &Value) -> Call {
    let object = &event["objectRef"];
    let resource = match object["subresource"].as_str() {
        Some(subresource) => format!("{}/{subresource}", string(&object["resource"])),
        None => string(&object["resource"]),
    };
    let impersonated = event.get("impersonatedUser");
    Call {
        user: string(&impersonated.unwrap_or(&event["user"])["username"]),
        verb: string(&event["verb"]),
        group: string(&object["apiGroup"]),
        resource,
        namespace: string(&object["namespace"]),
        name: string(&object["name"]),
        code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
        forbidden: event["annotations"]["authorization.k8s.io/decision"] == "forbid",
    }
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(id: &str, at: u32, user: &str, verb: &str, object: &Value) -> String {
        json!({
            "auditID": id, "requestReceivedTimestamp": format!("2026-01-01T00:00:0{at}.000000Z"), "verb": verb,
            "impersonatedUser": { "username": user }, "objectRef": object,
            "annotations": { "authorization.k8s.io/decision": "allow" },
        })
        .to_string()
    }

    #[test]
    fn calls_come_in_order_and_once() {
        let pods = json!({ "resource": "pods", "namespace": "a" });
        let status =
            json!({ "resource": "llmmodels", "subresource": "status", "apiGroup": "g", "name": "m" });
        let lines = [
            event("2", 2, "operator-a", "patch", &status),
            event("1", 1, "operator-a", "watch", &pods),
            event("1", 1, "operator-a", "watch", &pods),
            event("3", 3, "somebody", "delete", &pods),
            event("4", 4, "operator-b", "update", &json!({ "resource": LEASES })),
            "{\"cut\": ".to_owned(),
        ];
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines.join("\n")).unwrap();
        let calls = calls(file.path(), "operator-").unwrap();
        let told: Vec<_> = calls.iter().map(|c| (c.verb.as_str(), c.resource.as_str(), c.writes())).collect();
        assert_eq!(
            told,
            [("watch", "pods", false), ("patch", "llmmodels/status", true), ("update", "leases", false)]
        );
    }
}
