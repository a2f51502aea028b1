//! Why a deployment is as it is: the closed set of reasons in its conditions, but for those that its model has.
//!
//! In: nothing. Out: names, and whether somebody has to act. It must not know what led to a reason.

use std::borrow::Cow;

use contract::exit::ExitReason;

use crate::apply::RefusalReason;
use crate::kubelet::Fault;

/// Why a deployment is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The spec can be served.
    Valid,
    /// The spec contradicts itself.
    Invalid,
    /// The weights are there and verified.
    ModelReady,
    /// Nothing is known of the model yet.
    ModelPending,
    /// There is no model of the name that the spec gives.
    ModelNotFound,
    /// A replica of this model cannot be planned.
    CannotBePlanned,
    /// A newer operator made what runs.
    NewerOperator,
    /// The volume with the weights is not known yet.
    VolumePending,
    /// No node has room.
    DoesNotFit,
    /// Room comes when an older revision leaves.
    WaitingForRoom,
    /// Every replica has its place.
    Placed,
    /// Pods answer.
    Serving,
    /// The spec suspends it.
    Suspended,
    /// The spec asks for no replicas.
    ScaledToZero,
    /// There is no pod yet.
    NoPods,
    /// The first pod is not ready yet.
    Loading,
    /// The kubelet evicted a pod.
    Evicted,
    /// The kubelet rejected a pod.
    PodRejected,
    /// The scheduler finds no node for a pod.
    Unschedulable,
    /// Somebody holds a pod back from the scheduler.
    SchedulingGated,
    /// A container took more memory than its limit.
    OutOfMemory,
    /// A container ended without a word of its own.
    ContainerFailed,
    /// The kubelet cannot start a container.
    Kubelet(Fault),
    /// The runtime said why it ended.
    Exit(ExitReason),
    /// The API server refused an object.
    Refused(RefusalReason),
    /// The API server fails, or does not answer.
    ApiServerError,
    /// All is as asked for.
    Ready,
    /// Nothing is left to roll out.
    Settled,
    /// Replicas are being brought to the target revision.
    RollingOut,
    /// It gets better by itself.
    NotStalled,
}

impl Reason {
    /// As it stands in conditions.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Valid => "Valid",
            Self::Invalid => "Invalid",
            Self::ModelReady => "ModelReady",
            Self::ModelPending => "ModelPending",
            Self::ModelNotFound => "ModelNotFound",
            Self::CannotBePlanned => "CannotBePlanned",
            Self::NewerOperator => "NewerOperator",
            Self::VolumePending => "VolumePending",
            Self::DoesNotFit => "DoesNotFit",
            Self::WaitingForRoom => "WaitingForRoom",
            Self::Placed => "Placed",
            Self::Serving => "Serving",
            Self::Suspended => "Suspended",
            Self::ScaledToZero => "ScaledToZero",
            Self::NoPods => "NoPods",
            Self::Loading => "Loading",
            Self::Evicted => "Evicted",
            Self::PodRejected => "PodRejected",
            Self::Unschedulable => "Unschedulable",
            Self::SchedulingGated => "SchedulingGated",
            Self::OutOfMemory => "OutOfMemory",
            Self::ContainerFailed => "ContainerFailed",
            Self::Kubelet(fault) => fault.name(),
            Self::Exit(reason) => reason.name(),
            Self::Refused(reason) => reason.name(),
            Self::ApiServerError => "ApiServerError",
            Self::Ready => "Ready",
            Self::Settled => "Settled",
            Self::RollingOut => "RollingOut",
            Self::NotStalled => "NotStalled",
        }
    }

    /// Whether something that is missing for this reason comes without anybody's doing.
    pub(super) fn passes(name: &str) -> bool {
        // A pod that is held back waits for its turn: a queue lets it go without anybody's doing.
        let waits = [Self::Loading, Self::NoPods, Self::WaitingForRoom, Self::SchedulingGated];
        waits.iter().chain(&[Self::Suspended, Self::ScaledToZero]).any(|reason| reason.name() == name)
    }
}

impl From<Reason> for Cow<'static, str> {
    fn from(reason: Reason) -> Self {
        reason.name().into()
    }
}
