//! What those who use a model ask for their pods and its job needs too: their nodes, and what lets a pod be made and
//! started.
//!
//! In: deployments, and nodes that have the volume now. Out: affinity, tolerations, a priority, pull secrets. A volume
//! of a node is bound where its first pod runs, so a job that runs anywhere would keep the weights from the nodes that
//! need them. Labels and annotations of pods that serve are not for a job: Services of their owners may select by them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contract::device::DeviceClass;
use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PreferredSchedulingTerm,
    Toleration,
};

use crate::api::LlmDeployment;
use crate::fleet::card::{GPU_RESOURCE, PRODUCT};

/// The field of a node that names it.
const NODE_NAME: &str = "metadata.name";

/// What the pod of a job gets from the users of its model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wishes {
    /// What nodes are preferred for. A volume that exists decides for itself.
    pub preferred: Vec<PreferredSchedulingTerm>,
    /// Nodes of which it must be one, if there are some: a volume that only one node can have at a time, and has, is
    /// waited for anywhere else.
    pub nodes: BTreeSet<String>,
    /// Taints of the users' nodes.
    pub tolerations: Vec<Toleration>,
    /// The priority class of the first who names one. Quotas may ask for one.
    pub priority_class_name: Option<String>,
    /// Secrets with which any of them pulls the runtime.
    pub image_pull_secrets: Vec<String>,
}

impl Wishes {
    /// The wishes of these deployments, which are in the order of their names; only those that read the volume now, if
    /// there are some.
    #[must_use]
    pub fn of(users: &[Arc<LlmDeployment>], read_on: &BTreeSet<String>) -> Self {
        let cards = users.iter().any(|user| user.spec.accelerator.class == DeviceClass::Nvidia);
        let mut wanted = Vec::new();
        let mut tolerations: Vec<Toleration> = Vec::new();
        if cards {
            wanted.push(requirement(PRODUCT, "Exists", None));
            tolerations.push(Toleration {
                key: Some(GPU_RESOURCE.to_owned()),
                operator: Some("Exists".to_owned()),
                ..Toleration::default()
            });
        }
        for placement in users.iter().filter_map(|user| user.spec.placement.as_ref()) {
            let selector: &BTreeMap<String, String> = &placement.node_selector;
            wanted.extend(selector.iter().map(|(key, value)| requirement(key, "In", Some(value))));
            for toleration in &placement.tolerations {
                // The API type has the fields of a pod's toleration under the same names.
                let json = serde_json::to_value(toleration).expect("a toleration is strings and numbers");
                tolerations.extend(serde_json::from_value::<Toleration>(json));
            }
        }
        let mut image_pull_secrets: Vec<String> = Vec::new();
        for secret in users.iter().flat_map(|user| &user.spec.serving).flat_map(|s| &s.image_pull_secrets) {
            if !image_pull_secrets.contains(&secret.name) {
                image_pull_secrets.push(secret.name.clone());
            }
        }
        let mut placements = users.iter().filter_map(|user| user.spec.placement.as_ref());
        Self {
            preferred: preferred(wanted),
            nodes: read_on.clone(),
            tolerations,
            priority_class_name: placements.find_map(|placement| placement.priority_class_name.clone()),
            image_pull_secrets,
        }
    }

    /// The nodes, as a pod asks for them.
    #[must_use]
    pub fn affinity(&self) -> Option<Affinity> {
        // The API server takes one name in a field's values, and any of several terms.
        let term = |node: &String| NodeSelectorTerm {
            match_fields: Some(vec![requirement(NODE_NAME, "In", Some(node))]),
            match_expressions: None,
        };
        let required = || NodeSelector { node_selector_terms: self.nodes.iter().map(term).collect() };
        let nodes = NodeAffinity {
            preferred_during_scheduling_ignored_during_execution: (!self.preferred.is_empty())
                .then(|| self.preferred.clone()),
            required_during_scheduling_ignored_during_execution: (!self.nodes.is_empty()).then(required),
        };
        (nodes != NodeAffinity::default())
            .then(|| Affinity { node_affinity: Some(nodes), ..Affinity::default() })
    }
}

/// The nodes that [`Wishes::affinity`] requires.
#[must_use]
pub fn required_nodes(affinity: Option<&Affinity>) -> BTreeSet<&str> {
    let nodes = affinity.and_then(|affinity| affinity.node_affinity.as_ref());
    let required = nodes.and_then(|nodes| nodes.required_during_scheduling_ignored_during_execution.as_ref());
    let fields =
        required.iter().flat_map(|r| &r.node_selector_terms).flat_map(|t| t.match_fields.iter().flatten());
    let names = fields.filter(|field| field.key == NODE_NAME).flat_map(|field| field.values.iter().flatten());
    names.map(String::as_str).collect()
}

fn requirement(key: &str, operator: &str, value: Option<&String>) -> NodeSelectorRequirement {
    NodeSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: value.map(|value| vec![value.clone()]),
    }
}

/// Each requirement counts alone, so that a node that meets more of them is better.
fn preferred(wanted: Vec<NodeSelectorRequirement>) -> Vec<PreferredSchedulingTerm> {
    let term = |requirement| PreferredSchedulingTerm {
        weight: 100,
        preference: NodeSelectorTerm { match_expressions: Some(vec![requirement]), match_fields: None },
    };
    wanted.into_iter().map(term).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(spec: &str) -> Arc<LlmDeployment> {
        let yaml = format!(
            "metadata: {{name: a}}\nspec: {{model: {{modelRef: {{name: m}}}}, {spec}}}\n\
             apiVersion: llmfleet.dev/v1alpha1\nkind: LlmDeployment"
        );
        Arc::new(serde_norway::from_str(&yaml).unwrap())
    }

    #[test]
    fn jobs_follow_those_who_need_the_weights() {
        let anywhere = BTreeSet::new();
        assert_eq!(Wishes::of(&[], &anywhere), Wishes::default());
        assert_eq!(Wishes::of(&[user("accelerator: {class: CPU}")], &anywhere), Wishes::default());
        let users = [user(
            "placement: {nodeSelector: {rack: r1}, tolerations: [{key: k, operator: Exists, effect: NoSchedule}]}",
        )];
        let nodes = Wishes::of(&users, &anywhere);
        let preferred = nodes.affinity().unwrap().node_affinity.unwrap();
        assert_eq!(preferred.required_during_scheduling_ignored_during_execution, None);
        let preferred = preferred.preferred_during_scheduling_ignored_during_execution.unwrap();
        let keys =
            |t: &PreferredSchedulingTerm| t.preference.match_expressions.as_ref().unwrap()[0].key.clone();
        assert_eq!(preferred.iter().map(keys).collect::<Vec<_>>(), [PRODUCT, "rack"]);
        assert_eq!(nodes.tolerations.len(), 2);
        assert_eq!(nodes.tolerations[1].effect.as_deref(), Some("NoSchedule"));

        // Its weights are being read on nodes, and no other can have the volume. A field takes one value.
        let there = Wishes::of(&users, &BTreeSet::from(["o".to_owned(), "n".to_owned()])).affinity().unwrap();
        assert_eq!(required_nodes(Some(&there)), BTreeSet::from(["n", "o"]));
        let required = there.node_affinity.unwrap().required_during_scheduling_ignored_during_execution;
        let terms = required.unwrap().node_selector_terms;
        let values = |term: &NodeSelectorTerm| term.match_fields.as_ref().unwrap()[0].values.clone().unwrap();
        assert_eq!(terms.iter().map(values).collect::<Vec<_>>(), [["n"], ["o"]]);
        assert_eq!(required_nodes(None), BTreeSet::new());
    }

    #[test]
    fn a_job_may_pull_and_run_as_those_who_need_the_weights() {
        let users = [
            user("serving: {imagePullSecrets: [{name: a}], podLabels: {app: mine}}"),
            user("placement: {priorityClassName: high}, serving: {imagePullSecrets: [{name: b}, {name: a}]}"),
            user("placement: {priorityClassName: low}"),
        ];
        let wishes = Wishes::of(&users, &BTreeSet::new());
        assert_eq!(wishes.priority_class_name.as_deref(), Some("high"));
        assert_eq!(wishes.image_pull_secrets, ["a", "b"]);
    }
}
