//! Whether what comes over a watch, or as the answer to a write, is newer than what came before.
//!
//! In: the events of one watch, and answers. Out: yes or no. It must not know stores.
//!
//! A watch gives changes in the order in which they were made, so one that is not newer than the last is a repetition,
//! and would bring back what has changed or gone since.

use std::time::Instant;

use kube::Resource;
use kube::runtime::watcher::Event;

/// How far one watch has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Order {
    newest: u64,
    /// When the list was complete that the watch goes on from.
    listed: Option<Instant>,
}

impl Order {
    /// Whether everything has been listed.
    #[must_use]
    pub const fn is_listed(&self) -> bool {
        self.listed.is_some()
    }

    /// Whether an event of the watch is to be followed. A list always is.
    pub fn is_news<K: Resource>(&mut self, event: &Event<K>, now: Instant) -> bool {
        match event {
            Event::Init => *self = Self::default(),
            Event::InitApply(object) => self.newest = self.newest.max(version(object).unwrap_or_default()),
            Event::InitDone => self.listed = Some(now),
            Event::Apply(object) | Event::Delete(object) => {
                let Some(version) = version(object) else { return true };
                if version <= self.newest {
                    return false;
                }
                self.newest = version;
            }
        }
        true
    }

    /// Whether the answer to a write that began at `begun` tells what the watch is still to tell. What the watch has
    /// passed may have changed or gone since, and so may what was written before the list was complete.
    pub fn is_behind<K: Resource>(&self, answer: &K, begun: Instant) -> bool {
        self.listed.is_some_and(|at| begun >= at) && version(answer).is_some_and(|it| it > self.newest)
    }
}

/// The resourceVersion of an object, which later changes of any object of the kind exceed.
pub fn version<K: Resource>(object: &K) -> Option<u64> {
    object.meta().resource_version.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(version: u64) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.resource_version = Some(version.to_string());
        object
    }

    #[test]
    fn what_was_told_before_is_not_told_again() {
        let now = Instant::now();
        let mut order = Order::default();
        let mut is_news = |event: Event<ConfigMap>| order.is_news(&event, now);
        assert!(is_news(Event::Init));
        // A list is in no order.
        assert!(is_news(Event::InitApply(object(5))) && is_news(Event::InitApply(object(3))));
        assert!(is_news(Event::InitDone));
        assert!(!is_news(Event::Apply(object(4))), "a repetition");
        assert!(is_news(Event::Apply(object(7))) && is_news(Event::Delete(object(8))));
        assert!(!is_news(Event::Apply(object(7))), "it has gone since");
        assert!(!is_news(Event::Delete(object(8))));
        assert!(is_news(Event::Init) && is_news(Event::InitApply(object(2))), "a list always counts");
    }

    #[test]
    fn an_answer_tells_what_the_watch_has_not_come_to() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut order = Order::default();
        assert!(!order.is_behind(&object(9), later), "nothing is listed");
        for event in [Event::Init, Event::InitApply(object(5)), Event::InitDone] {
            order.is_news(&event, now);
        }
        assert!(order.is_behind(&object(9), later));
        assert!(!order.is_behind(&object(5), later), "the watch has passed it");
        let before = now.checked_sub(Duration::from_secs(1)).unwrap();
        assert!(!order.is_behind(&object(9), before), "the list may be newer, and without it");
    }
}
