//! Whether a node's labels and taints let a pod run there, as kube-scheduler decides it.
//!
//! In: labels, taints, node selector terms, tolerations. Out: yes or no.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration,
};

type Labels = BTreeMap<String, String>;

/// Whether any term matches. A selector without terms matches nothing, as in the API.
#[must_use]
pub fn matches(selector: &NodeSelector, name: &str, labels: &Labels) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, name, labels))
}

fn term_matches(term: &NodeSelectorTerm, name: &str, labels: &Labels) -> bool {
    let (expressions, fields) = (term.match_expressions.as_deref(), term.match_fields.as_deref());
    let (expressions, fields) = (expressions.unwrap_or_default(), fields.unwrap_or_default());
    let field = |r: &NodeSelectorRequirement| r.key == "metadata.name" && holds(r, Some(name));
    let label = |r: &NodeSelectorRequirement| holds(r, labels.get(&r.key).map(String::as_str));
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(label)
        && fields.iter().all(field)
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|v| v == value));
    let number = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number().is_some_and(|(value, bound)| value > bound),
        "Lt" => number().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// The first taint that keeps a new pod away.
#[must_use]
pub fn repelling<'a>(taints: &'a [Taint], tolerations: &[Toleration]) -> Option<&'a Taint> {
    let repels = |taint: &&Taint| {
        matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
            && !tolerations.iter().any(|toleration| tolerates(toleration, taint))
    };
    taints.iter().find(repels)
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let value =
        || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (key == taint.key || (key.is_empty() && exists))
        && (exists || value())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn terms_are_alternatives_and_requirements_are_not() {
        let labels = Labels::from([("zone".into(), "a".into()), ("cores".into(), "8".into())]);
        let matches = |terms: serde_json::Value| {
            matches(&serde_json::from_value(json!({ "nodeSelectorTerms": terms })).unwrap(), "n1", &labels)
        };
        let label = |key: &str, operator: &str, values: &[&str]| json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
        assert!(matches(json!([label("zone", "In", &["b", "a"])])));
        assert!(!matches(json!([label("zone", "NotIn", &["a"])])));
        assert!(matches(json!([label("zone", "In", &["b"]), label("cores", "Gt", &["7"])])));
        assert!(
            !matches(json!([label("cores", "Lt", &["8"])])) && !matches(json!([{}])) && !matches(json!([]))
        );
        assert!(matches(json!([label("rack", "DoesNotExist", &[])])));
        let named = |name: &str| json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [name] }] }]);
        assert!(matches(named("n1")) && !matches(named("n2")));
    }

    #[test]
    fn taints_repel_unless_tolerated() {
        let taint = |key: &str, value: &str, effect: &str| Taint {
            key: key.into(),
            value: Some(value.into()),
            effect: effect.into(),
            time_added: None,
        };
        let taints = [taint("soft", "", "PreferNoSchedule"), taint("gpu", "yes", "NoSchedule")];
        let repels = |toleration: serde_json::Value| {
            repelling(&taints, &[serde_json::from_value(toleration).unwrap()]).map(|taint| taint.key.as_str())
        };
        assert_eq!(repels(json!({ "key": "gpu", "operator": "Exists" })), None);
        assert_eq!(repels(json!({ "key": "gpu", "value": "yes", "effect": "NoSchedule" })), None);
        assert_eq!(repels(json!({ "operator": "Exists" })), None);
        for other in [
            json!({ "key": "gpu", "value": "no" }),
            json!({ "key": "gpu", "operator": "Exists", "effect": "NoExecute" }),
            json!({ "key": "cpu", "operator": "Exists" }),
        ] {
            assert_eq!(repels(other.clone()), Some("gpu"), "{other}");
        }
    }
}
