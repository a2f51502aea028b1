use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::reflector::store;
use serde_json::json;

use super::*;

fn map(name: &str, version: u64) -> ConfigMap {
    let metadata = json!({ "name": name, "namespace": "a", "resourceVersion": version.to_string() });
    serde_json::from_value(json!({ "metadata": metadata })).unwrap()
}

fn answer(name: &str, version: u64) -> DynamicObject {
    let mut map = serde_json::to_value(map(name, version)).unwrap();
    map["apiVersion"] = json!("v1");
    map["kind"] = json!("ConfigMap");
    serde_json::from_value(map).unwrap()
}

/// A keeper that has listed these.
fn keeper(listed: &[(&str, u64)]) -> Keeper<ConfigMap> {
    let (store, writer) = store();
    let mut keeper = Keeper {
        kind: "ConfigMap",
        namespaces: vec![None],
        trim: |_| {},
        store,
        writer,
        changes: Changes::default(),
        merge: Merge::new(1),
        orders: vec![Order::default()],
        waiting: Vec::new(),
    };
    list(&mut keeper, listed);
    keeper
}

fn list(keeper: &mut Keeper<ConfigMap>, listed: &[(&str, u64)]) {
    keeper.event(0, Event::Init);
    listed.iter().for_each(|(name, version)| keeper.event(0, Event::InitApply(map(name, *version))));
    keeper.event(0, Event::InitDone);
}

/// Names and versions of what is kept.
fn kept(keeper: &Keeper<ConfigMap>) -> String {
    let state = keeper.store.state();
    let mut kept: Vec<_> =
        state.iter().map(|map| format!("{}@{}", map.name_any(), map.resource_version().unwrap())).collect();
    kept.sort();
    kept.join(" ")
}

#[test]
fn what_was_written_is_kept_before_the_watch_tells_it_and_told_once() {
    let mut keeper = keeper(&[("x", 3)]);
    let mut told = keeper.changes.subscribe();
    keeper.answer(answer("y", 7), Instant::now());
    keeper.answer(answer("x", 8), Instant::now());
    assert_eq!(kept(&keeper), "x@8 y@7");
    assert_eq!([told.try_recv().unwrap().name, told.try_recv().unwrap().name], ["y", "x"]);
    // The watch is late: what it tells of the time before changes nothing.
    for event in [Event::Apply(map("x", 4)), Event::Apply(map("y", 7)), Event::Apply(map("x", 8))] {
        keeper.event(0, event);
    }
    assert_eq!(kept(&keeper), "x@8 y@7");
    assert!(told.try_recv().is_err());
    keeper.event(0, Event::Delete(map("y", 9)));
    assert_eq!(kept(&keeper), "x@8");
    keeper.answer(answer("y", 7), Instant::now());
    assert_eq!(kept(&keeper), "x@8", "it has gone since");
    keeper.answer(answer("x", 12), Instant::now());
    keeper.event(0, Event::Delete(map("x", 11)));
    assert_eq!(kept(&keeper), "x@12", "it was made anew after that");
}

#[test]
fn a_watch_that_repeats_itself_brings_nothing_back() {
    let mut keeper = keeper(&[("x", 3), ("y", 4)]);
    keeper.event(0, Event::Apply(map("x", 5)));
    keeper.event(0, Event::Delete(map("y", 6)));
    for event in [Event::Apply(map("y", 4)), Event::Apply(map("x", 3)), Event::Delete(map("x", 5))] {
        keeper.event(0, event);
    }
    assert_eq!(kept(&keeper), "x@5");
}

#[test]
fn who_asks_for_a_list_waits_for_all_of_it() {
    let mut keeper = keeper(&[("x", 3)]);
    let (done, mut listed) = oneshot::channel();
    keeper.begins_again(done);
    keeper.event(0, Event::Init);
    keeper.event(0, Event::InitApply(map("y", 4)));
    assert!(listed.try_recv().is_err());
    assert_eq!(kept(&keeper), "x@3 y@4");
    keeper.event(0, Event::InitDone);
    assert!(listed.try_recv().is_ok());
    assert_eq!(kept(&keeper), "y@4");
}

#[test]
fn a_list_is_what_there_is_even_if_the_api_server_was_set_back() {
    let mut keeper = keeper(&[("x", 30)]);
    list(&mut keeper, &[("x", 3)]);
    keeper.event(0, Event::Apply(map("x", 4)));
    assert_eq!(kept(&keeper), "x@4");
}
