//! What Pod Security `restricted` asks of every pod, which all of ours meet in the same way.
//!
//! In: who names the user. Out: security contexts. It must not know what a pod does.

use clap::ValueEnum;
use k8s_openapi::api::core::v1::{Capabilities, PodSecurityContext, SeccompProfile, SecurityContext};

/// Any user but root will do; this one is what distroless images call `nonroot`.
const USER: i64 = 65532;

/// Who names the user and the groups of a pod. Images name a user by number, so `runAsNonRoot` holds either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Identity {
    /// We do, since volumes must belong to somebody: what one pod fetched another can read.
    #[default]
    Fixed,
    /// The cluster does: OpenShift's `restricted-v2` refuses pods that name a user or a group outside the range of
    /// their namespace, and gives those that name none the user and the volumes' group of that range.
    Assigned,
}

/// Of a pod.
///
/// How volumes get their group is said in both cases: it refuses nothing, and without it every start walks through
/// all files.
#[must_use]
pub fn of_pod(identity: Identity) -> PodSecurityContext {
    let user = match identity {
        Identity::Fixed => Some(USER),
        Identity::Assigned => None,
    };
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: user,
        run_as_group: user,
        fs_group: user,
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
