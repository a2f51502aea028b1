//! Which deployments a change may matter to.
//!
//! In: what changed, and the stores. Out: references. It must not know what is done about it.
//!
//! Deployments that wait for room are many when a fleet is full, and pods and nodes change all the time: they are
//! looked at when there may be more room than before, and at nothing else that befalls others.

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use super::status;
use crate::api::condition::{ConditionStatus, find};
use crate::api::{LlmDeployment, LlmModel};
use crate::cache::{Stores, Touched, kind_of};
use crate::model::name::served_by;

/// Deployments that a change may matter to.
#[must_use]
pub fn affected(touched: &Touched, stores: &Stores) -> Vec<ObjectRef<LlmDeployment>> {
    let Touched { kind, namespace, name, deployment, model, spec_changed, news } = touched;
    let one = |name: &str| ObjectRef::new(name).within(namespace);
    let mut affected = if news.room { those(stores, waits) } else { Vec::new() };
    if let Some(owner) = deployment {
        affected.push(one(owner));
    } else if *kind == kind_of::<LlmDeployment>() {
        affected.extend((*spec_changed || news.lost).then(|| one(name)));
    } else if let Some(model) = model.as_ref().or_else(|| (*kind == kind_of::<LlmModel>()).then_some(name)) {
        let uses = |llm: &LlmDeployment| {
            llm.namespace().as_ref() == Some(namespace) && served_by(&llm.spec).as_ref() == Some(model)
        };
        affected.extend(those(stores, uses));
    }
    affected
}

fn those(stores: &Stores, which: impl Fn(&LlmDeployment) -> bool) -> Vec<ObjectRef<LlmDeployment>> {
    stores.deployments.state_filter(which).iter().map(|llm| ObjectRef::from_obj(llm.as_ref())).collect()
}

/// Whether it waits for room.
fn waits(llm: &LlmDeployment) -> bool {
    let conditions = llm.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    find(conditions, status::PLACED).is_some_and(|c| c.status == ConditionStatus::False.name())
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector::{Store, store};
    use kube::runtime::watcher::Event;

    use super::*;
    use crate::cache::News;

    fn empty<K: kube::Resource<DynamicType = ()> + Clone + 'static>() -> Store<K> {
        store().0
    }

    fn stores(deployments: Store<LlmDeployment>) -> Stores {
        Stores {
            deployments,
            models: empty(),
            pods: empty(),
            nodes: empty(),
            claims: empty(),
            volumes: empty(),
            jobs: empty(),
            services: empty(),
            config_maps: empty(),
            runtime_classes: empty(),
        }
    }

    #[test]
    fn who_waits_is_looked_at_when_there_may_be_room_and_at_nothing_else() {
        let (reader, mut writer) = store();
        for (name, placed) in [("placed", "True"), ("waits", "False")] {
            let llm = format!(
                "{{apiVersion: llmfleet.dev/v1alpha1, kind: LlmDeployment, metadata: {{name: {name}, namespace: a}}, \
                 spec: {{model: {{modelRef: {{name: m-{name}}}}}}}, status: {{conditions: [{{type: Placed, \
                 status: '{placed}', reason: r, message: m, lastTransitionTime: '2026-01-01T00:00:00Z'}}]}}}}"
            );
            writer.apply_watcher_event(&Event::Apply(serde_norway::from_str(&llm).unwrap()));
        }
        let stores = stores(reader);
        let of = |kind, name: &str, deployment: Option<&str>, room| {
            let touched = Touched {
                kind,
                namespace: "a".into(),
                name: name.into(),
                deployment: deployment.map(str::to_owned),
                model: None,
                spec_changed: true,
                news: News { room, ..News::default() },
            };
            affected(&touched, &stores).into_iter().map(|one| one.name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("Pod", "stranger", None, false), "");
        assert_eq!(of("Pod", "stranger", None, true), "waits");
        assert_eq!(of("Node", "n", None, false), "");
        assert_eq!(of("Pod", "p", Some("placed"), false), "placed");
        assert_eq!(of("Pod", "p", Some("placed"), true), "waits placed");
        assert_eq!(of("LlmDeployment", "placed", None, false), "placed");
        assert_eq!(of("LlmModel", "m-placed", None, false), "placed");
    }
}
