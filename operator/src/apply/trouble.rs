//! What a person is told of a pass that failed for a passing reason.
//!
//! In: the error of a pass. Out: words, the API server's own where it has some. It must not know what the pass was for.

use std::error::Error;

use crate::client::Fenced;
use crate::telemetry::chain;

/// HTTP status of a write that was based on what is no longer so.
const CONFLICT: u16 = 409;

/// What failed and why, without the outermost error, which says of what kind of object that was. `None` where nothing can
/// be told: this process does not lead, and says nothing for the one that does, or it is the status that failed.
#[must_use]
pub fn words(error: &(dyn Error + 'static)) -> Option<String> {
    let is_status =
        |cause: &(dyn Error + 'static)| matches!(cause.downcast_ref(), Some(super::Error::Status { .. }));
    if causes(error).any(|cause| cause.is::<Fenced>() || is_status(cause)) {
        return None;
    }
    let is_api = |cause: &&(dyn Error + 'static)| cause.is::<kube::Error>();
    let told = causes(error).skip(1).take_while(|cause| !is_api(cause)).map(ToString::to_string);
    let api = causes(error).find(is_api).map(|cause| match cause.downcast_ref() {
        Some(kube::Error::Api(status)) => format!("HTTP {}: {}", status.code, status.message),
        _ => chain(cause),
    });
    Some(told.chain(api).collect::<Vec<_>>().join(": "))
}

/// Whether something that was written is newer than what the pass looked at.
#[must_use]
pub fn is_conflict(error: &(dyn Error + 'static)) -> bool {
    let api = causes(error).find_map(|cause| cause.downcast_ref());
    matches!(api, Some(kube::Error::Api(status)) if status.code == CONFLICT)
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot bring it further")]
    struct Pass(#[source] crate::apply::Error);

    fn pass(source: kube::Error) -> Pass {
        Pass(crate::apply::Error::Apply { kind: "Pod".into(), name: "p".into(), source })
    }

    #[test]
    fn the_api_servers_words_are_told_and_a_follower_tells_nothing() {
        let status = |code: u16| {
            let json = serde_json::json!({ "code": code, "message": "etcd is full", "reason": "" });
            pass(kube::Error::Api(Box::new(serde_json::from_value::<Status>(json).unwrap())))
        };
        let told = words(&status(500)).unwrap();
        assert_eq!(told, "cannot apply Pod p: HTTP 500: etcd is full");
        assert!(is_conflict(&status(409)) && !is_conflict(&status(500)));
        let told = words(&pass(kube::Error::Service("no route".into()))).unwrap();
        assert!(told.starts_with("cannot apply Pod p: ") && told.ends_with("no route"), "{told}");
        assert_eq!(words(&pass(kube::Error::Service(Fenced.into()))), None);
        let source = kube::Error::Service("no route".into());
        let status = crate::apply::Error::Status { kind: "LlmModel".into(), name: "m".into(), source };
        assert_eq!(words(&Pass(status)), None);
    }
}
