//! Names, labels and selectors of everything that a deployment owns.
//!
//! In: the deployment's name, and what tells its objects apart. Out: strings and labels. It must not know what the
//! objects say.

use std::collections::BTreeMap;

use contract::http::API_PORT;
use contract::labels;
use sha2::{Digest, Sha256};

/// What part the objects of a deployment play, and the name of the container that serves.
pub const COMPONENT: &str = "server";
/// Value of [`labels::SERVING`] on pods that get traffic.
pub const SERVING: &str = "true";
/// Hex digits of revisions and bookings. Eight keep the longest pod name within 62 characters.
const DIGITS: usize = 8;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// The first digits of the sha256 of a text.
#[must_use]
pub fn digest(text: &str) -> String {
    let mut digest = hex::encode(Sha256::digest(text));
    digest.truncate(DIGITS);
    digest
}

/// The booking of one attempt to run one replica of one revision of the deployment with this uid.
#[must_use]
pub fn booking(uid: &str, revision: &str, replica: u32, attempt: u32) -> String {
    digest(&format!("{uid}/{revision}/{replica}/{attempt}"))
}

/// Name of the pod that spends a booking: at most 62 characters for names of 40 and three-digit replicas.
#[must_use]
pub fn pod(deployment: &str, revision: &str, replica: u32, booking: &str) -> String {
    format!("{deployment}-{revision}-{replica}-{booking}")
}

/// Name of the ConfigMap that freezes a revision.
#[must_use]
pub fn config_map(deployment: &str, revision: &str) -> String {
    format!("{deployment}-{revision}")
}

/// Name of the Service.
#[must_use]
pub fn service(deployment: &str) -> String {
    deployment.to_owned()
}

/// Address of the API inside the cluster.
#[must_use]
pub fn endpoint(deployment: &str, namespace: &str) -> String {
    format!("http://{}.{namespace}.svc:{API_PORT}", service(deployment))
}

/// Labels of every object of the deployment.
#[must_use]
pub fn common_labels(deployment: &str) -> Labels {
    owned([
        (labels::APP_NAME, labels::MANAGER),
        (labels::APP_INSTANCE, deployment),
        (labels::APP_COMPONENT, COMPONENT),
        (labels::APP_MANAGED_BY, labels::MANAGER),
        (labels::DEPLOYMENT, deployment),
    ])
}

/// Those labels that tell whose an object is, whatever part it plays.
#[must_use]
pub fn marks(deployment: &str) -> Labels {
    owned([(labels::APP_MANAGED_BY, labels::MANAGER), (labels::DEPLOYMENT, deployment)])
}

/// Labels of the ConfigMap of a revision.
#[must_use]
pub fn revision_labels(deployment: &str, revision: &str) -> Labels {
    let mut all = common_labels(deployment);
    all.extend(owned([(labels::REVISION, revision)]));
    all
}

/// Labels of a pod when it is made. It gets no traffic until it is promoted, hence no [`labels::SERVING`].
#[must_use]
pub fn pod_labels(deployment: &str, revision: &str, replica: u32, booking: &str) -> Labels {
    let mut all = revision_labels(deployment, revision);
    all.extend(owned([(labels::REPLICA, replica.to_string().as_str()), (labels::BOOKING, booking)]));
    all
}

/// Which pods the Service sends traffic to.
#[must_use]
pub fn service_selector(deployment: &str) -> Labels {
    owned([(labels::DEPLOYMENT, deployment), (labels::SERVING, SERVING)])
}

/// Selector of all pods of the deployment, as the scale subresource wants it.
#[must_use]
pub fn pod_selector(deployment: &str) -> String {
    format!("{}={deployment}", labels::DEPLOYMENT)
}

/// What a user may add: everything but keys of our own, which decide about traffic and bookings.
#[must_use]
pub fn foreign(user: &Labels) -> Labels {
    let prefix = |key: &str| key.split_once('/').map(|(prefix, _)| prefix.to_owned());
    let ours = |key: &str| {
        prefix(key).is_some_and(|prefix| {
            prefix == labels::GROUP
                || prefix.strip_suffix(labels::GROUP).is_some_and(|rest| rest.ends_with('.'))
        })
    };
    user.iter().filter(|(key, _)| !ours(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn owned<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_names_are_names() {
        let (name, revision) = ("a".repeat(40), digest("revision"));
        let pod = pod(&name, &revision, 999, &booking("uid", &revision, 999, u32::MAX));
        assert_eq!(pod.len(), 62);
        assert!(pod.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
        assert!(config_map(&name, &revision).len() < 63 && service(&name).len() < 63);
    }

    #[test]
    fn bookings_differ_in_every_part_and_are_pinned() {
        let all = [
            booking("u", "r", 0, 0),
            booking("v", "r", 0, 0),
            booking("u", "s", 0, 0),
            booking("u", "r", 1, 0),
            booking("u", "r", 0, 1),
            booking("u", "r", 1, 10),
            booking("u", "r", 11, 0),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert!(all.iter().all(|booking| booking.len() == DIGITS));
        // Bookings are in the status of objects that exist: another version of this program must find them again.
        assert_eq!(booking("6d9f1c1e-0000-4000-8000-000000000000", "0123abcd", 2, 1), "0477ca1d");
    }

    #[test]
    fn a_promoted_pod_is_selected_and_a_new_one_is_not() {
        let mut pod = pod_labels("chat", "0123abcd", 0, "89abcdef");
        let selector = service_selector("chat");
        let selected = |pod: &Labels| selector.iter().all(|(key, value)| pod.get(key) == Some(value));
        assert!(!selected(&pod));
        pod.insert(labels::SERVING.to_owned(), SERVING.to_owned());
        assert!(selected(&pod));
        let (key, value) =
            pod_selector("chat").split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap();
        assert_eq!(pod.get(&key), Some(&value));
    }

    #[test]
    fn a_user_cannot_set_what_is_ours() {
        let user =
            owned([("team", "a"), ("x.dev/a", "b"), (labels::SERVING, "true"), ("sub.llmfleet.dev/x", "y")]);
        assert_eq!(foreign(&user).into_keys().collect::<Vec<_>>(), ["team", "x.dev/a"]);
        assert!(foreign(&owned([("notllmfleet.dev/x", "y")])).len() == 1);
    }
}
