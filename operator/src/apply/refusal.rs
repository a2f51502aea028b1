//! Writes that the API server refuses for a reason that a person has to deal with.
//!
//! In: an error of the client. Out: a [`Refusal`], or `None` when trying again may help.

use kube::core::Status;

/// Why the API server refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalReason {
    /// Another field manager owns a field and wants another value.
    FieldManagerConflict,
    /// A ResourceQuota or a LimitRange.
    QuotaExceeded,
    /// The namespace is being deleted, or is gone.
    NamespaceTerminating,
    /// Pod Security admission.
    PodSecurity,
    /// RBAC, or an admission webhook.
    Forbidden,
    /// An admission webhook does not answer, or fails.
    WebhookFailed,
    /// The object is not valid here, or changes what cannot be changed.
    Invalid,
    /// An object of the name is there, and it is somebody else's.
    NameTaken,
}

impl RefusalReason {
    /// As it stands in conditions and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FieldManagerConflict => "FieldManagerConflict",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::NamespaceTerminating => "NamespaceTerminating",
            Self::PodSecurity => "PodSecurity",
            Self::Forbidden => "Forbidden",
            Self::WebhookFailed => "WebhookFailed",
            Self::Invalid => "Invalid",
            Self::NameTaken => "NameTaken",
        }
    }
}

/// What the API server says where a ResourceQuota or a LimitRange refuses. One says all that it finds at once, in a list;
/// the last is what follows from the limit that a LimitRange gives to who names none, since we ask for no more than the
/// limits that we name.
const QUOTA: [&str; 6] = [
    "exceeded quota: ",
    "failed quota: ",
    "insufficient quota to match these scopes: ",
    " usage per ",
    " limit to request ratio per ",
    "must be less than or equal to cpu limit of ",
];

/// A refusal, with the API server's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One of the closed set.
    pub reason: RefusalReason,
    /// What the API server says.
    pub message: String,
}

/// The refusal in an error of the client, if it is one.
#[must_use]
pub fn of(error: &kube::Error) -> Option<Refusal> {
    let kube::Error::Api(status) = error else { return None };
    let reason = reason(status)?;
    Some(Refusal { reason, message: status.message.clone() })
}

fn reason(status: &Status) -> Option<RefusalReason> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let caused_by = |name: &str| causes.clone().any(|cause| cause.reason == name);
    let says = |words: &str| status.message.contains(words);
    match status.code {
        409 if caused_by("FieldManagerConflict") => Some(RefusalReason::FieldManagerConflict),
        403 if caused_by("NamespaceTerminating") || says("because it is being terminated") => {
            Some(RefusalReason::NamespaceTerminating)
        }
        404 if says("namespaces ") => Some(RefusalReason::NamespaceTerminating),
        403 | 422 if QUOTA.iter().any(|words| says(words)) => Some(RefusalReason::QuotaExceeded),
        403 if says("violates PodSecurity") => Some(RefusalReason::PodSecurity),
        403 => Some(RefusalReason::Forbidden),
        500 if says("failed calling webhook") => Some(RefusalReason::WebhookFailed),
        400 | 422 => Some(RefusalReason::Invalid),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason_of(json: serde_json::Value) -> Option<RefusalReason> {
        let status: Status = serde_json::from_value(json).unwrap();
        of(&kube::Error::Api(Box::new(status))).map(|refusal| refusal.reason)
    }

    #[test]
    fn refusals_are_told_apart_from_passing_trouble() {
        let status =
            |code: u16, message: &str| serde_json::json!({"code": code, "message": message, "reason": ""});
        let cases = [
            (
                403,
                r#"pods "x" is forbidden: exceeded quota: q, requested: pods=1"#,
                RefusalReason::QuotaExceeded,
            ),
            (
                403,
                r#"pods "x" is forbidden: failed quota: q: must specify limits.cpu for: server"#,
                RefusalReason::QuotaExceeded,
            ),
            (
                403,
                r#"pods "x" is forbidden: insufficient quota to match these scopes: [{PriorityClass In [high]}]"#,
                RefusalReason::QuotaExceeded,
            ),
            (
                403,
                r#"pods "x" is forbidden: [maximum cpu usage per Container is 1, but limit is 2, maximum memory usage per Container is 1Gi, but limit is 2Gi]"#,
                RefusalReason::QuotaExceeded,
            ),
            (
                403,
                r#"persistentvolumeclaims "x" is forbidden: maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 10Gi"#,
                RefusalReason::QuotaExceeded,
            ),
            (
                403,
                r#"pods "x" is forbidden: cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000"#,
                RefusalReason::QuotaExceeded,
            ),
            (
                403,
                r#"pods "x" is forbidden: no PriorityClass with name high was found"#,
                RefusalReason::Forbidden,
            ),
            (
                403,
                r#"unable to create new content in namespace a because it is being terminated"#,
                RefusalReason::NamespaceTerminating,
            ),
            (404, r#"namespaces "a" not found"#, RefusalReason::NamespaceTerminating),
            (
                403,
                r#"pods "x" is forbidden: violates PodSecurity "restricted:latest""#,
                RefusalReason::PodSecurity,
            ),
            (403, r#"admission webhook "w" denied the request"#, RefusalReason::Forbidden),
            (
                500,
                r#"Internal error occurred: failed calling webhook "w": connection refused"#,
                RefusalReason::WebhookFailed,
            ),
            (
                422,
                r#"Pod "x" is invalid: spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1"#,
                RefusalReason::QuotaExceeded,
            ),
            (422, "field is immutable", RefusalReason::Invalid),
        ];
        for (code, message, expected) in cases {
            assert_eq!(reason_of(status(code, message)), Some(expected), "{message}");
        }
        for code in [409, 429, 500, 503, 504] {
            assert_eq!(reason_of(status(code, "later")), None, "{code}");
        }
        let conflict = serde_json::json!({"code": 409, "message": "conflict", "reason": "Conflict",
            "details": {"causes": [{"reason": "FieldManagerConflict", "message": "m", "field": ".spec"}]}});
        assert_eq!(reason_of(conflict), Some(RefusalReason::FieldManagerConflict));
    }
}
