//! What earlier operators wrote: it must be read as it was meant, and lead to nothing.
//!
//! The files beside this one are objects of a real API server, as the first operator left them when all had settled. They
//! are never changed: clusters are full of such objects. Another format gets files of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use contract::labels;
use contract::memory::MemoryPlan;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::build::{self, Frozen, config_map};
use super::demand::choose;
use super::plan::plan;
use super::rebook::{Evidence, rebook, unbooked};
use super::revision::{Weights, revision};
use super::rollout::{Situation, steps, strays, unseen};
use super::validate::validate;
use crate::api::deployment::PlacementStatus;
use crate::api::{LlmDeployment, LlmModel};
use crate::apply::differ;
use crate::args::RuntimeArgs;
use crate::model::plan::{self as model_plan, Plan};
use crate::owner::owns;
use crate::security::Identity;

/// Names of deployments that were written by the first operator.
const ALL: [&str; 2] = ["chat", "small"];

struct Written {
    llm: LlmDeployment,
    model: LlmModel,
    map: ConfigMap,
    service: Service,
    pod: Pod,
}

fn documents(name: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("src/deployment/tests/{name}.yaml"));
    let text = std::fs::read_to_string(path).unwrap();
    text.split("\n---\n").map(|document| serde_norway::from_str(document).unwrap()).collect()
}

fn read(documents: Vec<Value>) -> Written {
    fn one<T: DeserializeOwned>(documents: &mut impl Iterator<Item = Value>) -> T {
        serde_json::from_value(documents.next().unwrap()).unwrap()
    }
    let all = &mut documents.into_iter();
    Written { llm: one(all), model: one(all), map: one(all), service: one(all), pod: one(all) }
}

/// The settings of a newer operator.
fn settings() -> RuntimeArgs {
    RuntimeArgs {
        runtime_image: "llm-fleet-runtime:newer".to_owned(),
        runtime_cuda_image: Some("llm-fleet-runtime-cuda:newer".to_owned()),
        image_pull_policy: "Always".to_owned(),
        image_pull_secrets: vec![],
        pod_identity: Identity::Assigned,
        no_scrape_annotations: true,
        allow_simulated_devices: false,
    }
}

impl Written {
    fn pods(&self) -> BTreeMap<String, Arc<Pod>> {
        BTreeMap::from([(self.pod.name_any(), Arc::new(self.pod.clone()))])
    }

    /// The revision that this code computes.
    fn revision(&self) -> String {
        let status = self.model.status.as_ref().unwrap();
        let inspection = status.inspection.as_ref().unwrap();
        let validated = validate(&self.llm).unwrap();
        let chosen = choose(&self.llm.spec, &validated, inspection, false).unwrap();
        revision(&self.llm.name_any(), &self.llm.spec, &Weights::of(status).unwrap(), chosen.capacity).hash
    }

    /// Fails if there is anything to do about pods.
    fn leads_to_nothing(&self) {
        let (name, uid) = (self.llm.name_any(), self.llm.uid().unwrap());
        let placement = &self.llm.status.as_ref().unwrap().placement;
        let (pods, target) = (self.pods(), self.revision());
        let usable_nodes = BTreeSet::from([placement[0].node.clone()]);
        let now = Situation {
            owner: (&name, &uid),
            target: Some(&target),
            replicas: self.llm.spec.replicas,
            placement,
            pods: &pods,
            usable_nodes: &usable_nodes,
            now: Timestamp::UNIX_EPOCH,
        };
        let steps = steps(&now);
        assert_eq!((&steps.keep, steps.book.len(), steps.delete.len()), (placement, 0, 0), "{name}");
        let plan = plan(&now, &steps, None);
        assert_eq!((&plan.placement, plan.delete.len(), plan.waiting.len()), (placement, 0, 0), "{name}");
        assert!(unseen(&now).is_empty() && strays(&name, placement, &pods).is_empty(), "{name}");
    }
}

#[test]
fn the_revision_is_the_same_and_nothing_is_done() {
    for name in ALL {
        let written = read(documents(name));
        let carried = &written.pod.labels()[labels::REVISION];
        assert_eq!(written.revision(), *carried, "another hash restarts every model");
        assert_eq!(&written.map.labels()[labels::REVISION], carried);
        let frozen = config_map::read(&written.map).unwrap();
        assert_eq!(frozen.revision.hash, *carried);
        assert_eq!(
            frozen.image, "registry.invalid/llm-fleet-runtime:test",
            "a newer image waits for a change"
        );
        let own = Frozen::new(frozen.revision.clone(), &settings());
        assert_ne!(own, frozen);
        written.leads_to_nothing();
        assert!(owns(&written.llm, &written.pod) && owns(&written.llm, &written.map));
        let (desired, seen) = (build::service(&written.llm), written.service);
        let [desired, seen] = [desired, seen].map(|service| serde_json::to_value(service).unwrap());
        assert!(differ::contains(&seen, &desired), "the service would be written: {desired}");
    }
}

#[test]
fn a_model_that_was_verified_stays_verified() {
    for name in ALL {
        let Written { llm, model, .. } = read(documents(name));
        let claim = model.status.as_ref().unwrap().claim_name.clone().unwrap();
        let claim: PersistentVolumeClaim =
            serde_json::from_value(json!({ "metadata": { "name": claim } })).unwrap();
        let (inspection, model) = (model.status.clone().unwrap().inspection, Arc::new(model));
        let observed = crate::model::observe::Observed {
            claim: Some(Arc::new(claim)),
            users: vec![Arc::new(llm)],
            ..crate::model::observe::Observed::of(model)
        };
        let Plan::Keep(keep) = model_plan::plan(&observed, &settings()) else { panic!("{name} goes") };
        assert!(!keep.make_claim && keep.start.is_none() && keep.discard.is_empty(), "{keep:?}");
        assert_eq!(keep.inspection, inspection);
    }
}

#[test]
fn lost_bookings_are_read_back_from_pods_that_do_not_carry_them() {
    for name in ALL {
        let written = read(documents(name));
        let (name, uid) = (written.llm.name_any(), written.llm.uid().unwrap());
        let frozen = config_map::read_all([&written.map]);
        let model = written.model.status.as_ref().and_then(|status| status.inspection.as_ref());
        let evidence = Evidence { owner: (&name, &uid), known: &[], frozen: &frozen, model };
        let pods = written.pods();
        assert_eq!(unbooked(&evidence, &pods), BTreeSet::from([written.pod.name_any()]));
        let rebooked = rebook(&evidence, &pods);
        // How the bytes were cut then may be known no more; how many there are is.
        let whole = |booking: &PlacementStatus| {
            let memory = MemoryPlan { reserve: booking.memory.total().unwrap(), ..MemoryPlan::default() };
            PlacementStatus { memory, ..booking.clone() }
        };
        let placement = written.llm.status.clone().unwrap().placement;
        let [rebooked_whole, placed] =
            [&rebooked.bookings, &placement].map(|all| all.iter().map(whole).collect::<Vec<_>>());
        assert_eq!(rebooked_whole, placed);
        // As long as the model is not known, nothing is said of them.
        let early = rebook(&Evidence { model: None, ..evidence }, &pods);
        assert_eq!((early.bookings.len(), early.unclear), (0, BTreeSet::from([written.pod.name_any()])));
        assert!(unbooked(&Evidence { known: &rebooked.bookings, ..evidence }, &pods).is_empty());
    }
}

/// Adds a field that nobody knows to every object within.
fn with_more(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(with_more);
            fields.insert("unheardOf".to_owned(), json!({ "of": 1 }));
        }
        Value::Array(items) => items.iter_mut().for_each(with_more),
        _ => {}
    }
}

/// The other direction: what a newer operator adds is left aside by this one.
#[test]
fn fields_that_are_not_known_are_left_aside() {
    for name in ALL {
        let plain = read(documents(name));
        let mut documents = documents(name);
        for object in &mut documents[..2] {
            with_more(&mut object["status"]);
        }
        let data = documents[2]["data"].as_object_mut().unwrap();
        let mut operators: Value = serde_json::from_str(data["operator.json"].as_str().unwrap()).unwrap();
        with_more(&mut operators);
        data["operator.json"] = operators.to_string().into();
        let newer = read(documents);
        assert_eq!((&newer.llm.status, &newer.model.status), (&plain.llm.status, &plain.model.status));
        assert_eq!(config_map::read(&newer.map).unwrap(), config_map::read(&plain.map).unwrap());
        newer.leads_to_nothing();
    }
}
