//! What Pod Security `restricted` asks of every pod, which all of ours meet in the same way.
//!
//! In: nothing. Out: security contexts. It must not know what a pod does.

use k8s_openapi::api::core::v1::{Capabilities, PodSecurityContext, SeccompProfile, SecurityContext};

/// Any user but root will do; this one is what distroless images call `nonroot`.
const USER: i64 = 65532;

/// Of a pod. Volumes belong to one group, so that what one pod fetched another can read.
#[must_use]
pub fn of_pod() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..Default::default() }),
        ..PodSecurityContext::default()
    }
}

/// Of a container.
#[must_use]
pub fn of_container() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        read_only_root_filesystem: Some(true),
        ..SecurityContext::default()
    }
}
