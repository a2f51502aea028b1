//! What the kubelet, provisioners and controllers say of an object that does not get on: their events.
//!
//! In: an object. Out: events, and which of them still matters. It must not know what follows from them.

use k8s_openapi::api::core::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};

/// Events about one object that are read.
const EVENTS: u32 = 50;
/// The kubelet says so at each try, whether it gets on or not.
const NO_NEWS: &str = "SandboxChanged";

/// The events about this very object.
pub async fn about<K: Resource<DynamicType = ()>>(client: &Client, object: &K) -> kube::Result<Vec<Event>> {
    let api: Api<Event> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let selector = format!("involvedObject.uid={}", object.uid().unwrap_or_default());
    Ok(api.list(&ListParams::default().fields(&selector).limit(EVENTS)).await?.items)
}

/// The newest warning.
#[must_use]
pub fn newest(events: &[Event]) -> Option<&Event> {
    events.iter().filter(|event| is_warning(event)).max_by_key(|event| time(event))
}

/// What a controller says of pods that it cannot make for `owner`, without what differs at each try: the pod's made-up
/// name, and that it was said before. Written as it comes, each try would be another status.
#[must_use]
pub fn of_any_pod(message: &str, owner: &str) -> String {
    const AGAIN: &str = "(combined from similar events): ";
    let message = message.strip_prefix(AGAIN).unwrap_or(message);
    let name = format!("\"{owner}-");
    let parts = message.split_once(&name).and_then(|(before, rest)| Some((before, rest.split_once('"')?.1)));
    parts.map_or_else(|| message.to_owned(), |(before, after)| format!("{before}{name}*\"{after}"))
}

/// The newest warning, unless something went well after it.
#[must_use]
pub fn unresolved(events: &[Event]) -> Option<&Event> {
    let went_well = |event: &&Event| !is_warning(event) && event.reason.as_deref() != Some(NO_NEWS);
    let well = events.iter().filter(went_well).map(time).max().flatten();
    newest(events).filter(|warning| time(warning) >= well)
}

fn is_warning(event: &Event) -> bool {
    event.type_.as_deref() == Some("Warning")
}

fn time(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.clone());
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    series.or_else(|| event.event_time.clone()).map(|time| time.0).max(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(all: &[(&str, &str, u32)]) -> Vec<Event> {
        let event = |(type_, reason, second): &(&str, &str, u32)| {
            serde_norway::from_str(&format!(
                "{{metadata: {{}}, involvedObject: {{}}, type: {type_}, reason: {reason}, \
                 lastTimestamp: '2026-01-01T00:00:{second:02}Z'}}"
            ))
            .unwrap()
        };
        all.iter().map(event).collect()
    }

    #[test]
    fn a_pod_that_is_refused_again_is_refused_in_the_same_words() {
        let words = |pod: &str| {
            format!("Error creating: pods \"m-fetch-1-{pod}\" is forbidden: exceeded quota: \"q\"")
        };
        let expected = words("*");
        assert_eq!(of_any_pod(&words("kljxv"), "m-fetch-1"), expected);
        let again = format!("(combined from similar events): {}", words("jdlkl"));
        assert_eq!(of_any_pod(&again, "m-fetch-1"), expected);
        for other in ["no name in it", "\"m-fetch-1-open"] {
            assert_eq!(of_any_pod(other, "m-fetch-1"), other);
        }
    }

    #[test]
    fn a_warning_matters_until_something_goes_well() {
        let reason = |all: &[(&str, &str, u32)]| {
            unresolved(&events(all)).and_then(|event| event.reason.clone()).unwrap_or_default()
        };
        let scheduled = ("Normal", "Scheduled", 1);
        assert_eq!(reason(&[scheduled]), "");
        assert_eq!(reason(&[scheduled, ("Warning", "FailedMount", 2)]), "FailedMount");
        assert_eq!(reason(&[("Warning", "FailedMount", 2), ("Normal", "Pulling", 4), scheduled]), "");
        let again = [("Warning", "FailedCreatePodSandBox", 2), ("Normal", "SandboxChanged", 9)];
        assert_eq!(reason(&again), "FailedCreatePodSandBox");
        let two = events(&[("Warning", "b", 5), ("Warning", "a", 3), ("Normal", "c", 9)]);
        assert_eq!(newest(&two).and_then(|event| event.reason.as_deref()), Some("b"));
    }
}
