//! Which nodes suit a job: those that the users of the model will run on.
//!
//! In: deployments. Out: preferences and tolerations. A volume of a node is bound where its first pod runs, so a job
//! that runs anywhere would keep the weights from the nodes that need them.

use std::collections::BTreeMap;
use std::sync::Arc;

use contract::device::DeviceClass;
use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, PreferredSchedulingTerm, Toleration,
};

use crate::api::LlmDeployment;
use crate::fleet::card::{GPU_RESOURCE, PRODUCT};

/// Where the pod of a job should run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobNodes {
    /// Preferred nodes. Nothing is required: a volume that exists decides for itself.
    pub affinity: Option<Affinity>,
    /// Taints of the users' nodes.
    pub tolerations: Vec<Toleration>,
}

impl JobNodes {
    /// The nodes of these deployments, which are in the order of their names.
    #[must_use]
    pub fn of(users: &[Arc<LlmDeployment>]) -> Self {
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
        Self { affinity: (!wanted.is_empty()).then(|| affinity(wanted)), tolerations }
    }
}

fn requirement(key: &str, operator: &str, value: Option<&String>) -> NodeSelectorRequirement {
    NodeSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: value.map(|value| vec![value.clone()]),
    }
}

/// Each requirement counts alone, so that a node that meets more of them is better.
fn affinity(wanted: Vec<NodeSelectorRequirement>) -> Affinity {
    let term = |requirement| PreferredSchedulingTerm {
        weight: 100,
        preference: NodeSelectorTerm { match_expressions: Some(vec![requirement]), match_fields: None },
    };
    Affinity {
        node_affinity: Some(NodeAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(
                wanted.into_iter().map(term).collect(),
            ),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    }
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
        assert_eq!(JobNodes::of(&[]), JobNodes::default());
        assert_eq!(JobNodes::of(&[user("accelerator: {class: CPU}")]), JobNodes::default());
        let nodes = JobNodes::of(&[user(
            "placement: {nodeSelector: {rack: r1}, tolerations: [{key: k, operator: Exists, effect: NoSchedule}]}",
        )]);
        let preferred = nodes.affinity.unwrap().node_affinity.unwrap();
        let preferred = preferred.preferred_during_scheduling_ignored_during_execution.unwrap();
        let keys =
            |t: &PreferredSchedulingTerm| t.preference.match_expressions.as_ref().unwrap()[0].key.clone();
        assert_eq!(preferred.iter().map(keys).collect::<Vec<_>>(), [PRODUCT, "rack"]);
        assert_eq!(nodes.tolerations.len(), 2);
        assert_eq!(nodes.tolerations[1].effect.as_deref(), Some("NoSchedule"));
    }
}
