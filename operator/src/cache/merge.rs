//! Many watches, one store: turns the events of one watch per namespace into those of a single one.
//!
//! In: the events of each source. Out: one initial list, once all sources have listed, and then single changes.
//! A source that lists again gives the deletions that it missed. It must not know what the objects are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};

/// Namespace and name; the namespace is empty for objects of the cluster.
pub type Key = (String, String);

/// The key of an object.
pub fn key<K: Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Merges the events of so many sources.
#[derive(Debug)]
pub enum Merge<K> {
    /// Some source has not listed yet: what each has sent so far, and whether that was all.
    Listing(Vec<(BTreeMap<Key, K>, bool)>),
    /// All have. A source that lists again has the keys that it has sent so far.
    Following(Vec<Option<BTreeSet<Key>>>),
}

impl<K: Resource + Clone> Merge<K> {
    /// Sources are numbered from 0.
    #[must_use]
    pub fn new(n_sources: usize) -> Self {
        Self::Listing((0..n_sources).map(|_| (BTreeMap::new(), false)).collect())
    }

    /// What an event of a source means for the store. `stored` lists what the store has of that source.
    pub fn event(
        &mut self,
        source: usize,
        event: Event<K>,
        stored: impl Fn() -> Vec<Arc<K>>,
    ) -> Vec<Event<K>> {
        match self {
            Self::Listing(sources) => {
                let (objects, listed) = &mut sources[source];
                match event {
                    Event::Init => {
                        objects.clear();
                        *listed = false;
                    }
                    Event::InitApply(object) | Event::Apply(object) => {
                        objects.insert(key(&object), object);
                    }
                    Event::Delete(object) => {
                        objects.remove(&key(&object));
                    }
                    Event::InitDone => *listed = true,
                }
                if !sources.iter().all(|(_, listed)| *listed) {
                    return Vec::new();
                }
                let n_sources = sources.len();
                let listed =
                    std::mem::take(sources).into_iter().flat_map(|(objects, _)| objects.into_values());
                let mut events = vec![Event::Init];
                events.extend(listed.map(Event::InitApply));
                events.push(Event::InitDone);
                *self = Self::Following(vec![None; n_sources]);
                events
            }
            Self::Following(relists) => {
                let relist = &mut relists[source];
                match event {
                    Event::Init => {
                        *relist = Some(BTreeSet::new());
                        Vec::new()
                    }
                    Event::InitApply(object) => {
                        relist.get_or_insert_default().insert(key(&object));
                        vec![Event::Apply(object)]
                    }
                    Event::InitDone => {
                        let kept = relist.take().unwrap_or_default();
                        let gone = |object: &Arc<K>| !kept.contains(&key(object.as_ref()));
                        stored()
                            .into_iter()
                            .filter(gone)
                            .map(|object| Event::Delete((*object).clone()))
                            .collect()
                    }
                    Event::Apply(_) | Event::Delete(_) => vec![event],
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::reflector::store;

    use super::*;

    fn object(namespace: &str, name: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some(namespace.into());
        object.metadata.name = Some(name.into());
        object
    }

    /// Feeds `(source, event)` to a merge of the namespaces `a` and `b`; what is in the store after each.
    fn check(events: Vec<(usize, Event<ConfigMap>)>, expected: &[&str]) {
        let (reader, mut writer) = store::<ConfigMap>();
        let mut merge = Merge::new(2);
        let mut seen = Vec::new();
        for (source, event) in events {
            let namespace = ["a", "b"][source];
            let stored = || reader.state().into_iter().filter(|o| key(o.as_ref()).0 == namespace).collect();
            for event in merge.event(source, event, stored) {
                writer.apply_watcher_event(&event);
            }
            let mut names: Vec<_> = reader.state().iter().map(|o| o.name_any()).collect();
            names.sort();
            seen.push(names.join(" "));
        }
        assert_eq!(seen, expected);
    }

    #[test]
    fn nothing_is_known_before_all_have_listed() {
        check(
            vec![
                (0, Event::Init),
                (0, Event::InitApply(object("a", "x"))),
                (0, Event::InitDone),
                (0, Event::Apply(object("a", "y"))),
                (0, Event::Delete(object("a", "x"))),
                (1, Event::Init),
                (1, Event::InitApply(object("b", "z"))),
                (1, Event::InitDone),
            ],
            &["", "", "", "", "", "", "", "y z"],
        );
    }

    #[test]
    fn a_list_that_is_begun_again_is_not_complete() {
        check(
            vec![
                (0, Event::InitApply(object("a", "x"))),
                (0, Event::InitDone),
                (0, Event::Init),
                (1, Event::InitDone),
                (0, Event::InitApply(object("a", "x"))),
                (0, Event::InitDone),
            ],
            &["", "", "", "", "", "x"],
        );
    }

    #[test]
    fn a_source_that_lists_again_removes_what_it_misses_and_leaves_the_others_alone() {
        check(
            vec![
                (0, Event::InitApply(object("a", "x"))),
                (0, Event::InitDone),
                (1, Event::InitApply(object("b", "z"))),
                (1, Event::InitDone),
                (0, Event::Init),
                (0, Event::InitApply(object("a", "y"))),
                (0, Event::InitDone),
            ],
            &["", "", "", "x z", "x z", "x y z", "y z"],
        );
    }
}
