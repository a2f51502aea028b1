//! Why a model is ready or not: the closed set of reasons in its conditions.
//!
//! In: nothing. Out: names and what they mean for waiting. It must not know what led to a reason.

use contract::exit::ExitReason;

use crate::apply::RefusalReason;
use crate::kubelet::Fault;

/// Why a model is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The weights are on the volume and are what they should be.
    WeightsVerified,
    /// A job was made; its pod does not run yet.
    Starting,
    /// Files are being brought onto the volume.
    Fetching,
    /// The files of an existing claim are being read.
    Inspecting,
    /// The object is being deleted, and what it made with it.
    Deleting,
    /// The object is being deleted, but deployments still use it.
    InUse,
    /// There is no claim of the name that the source gives.
    ClaimNotFound,
    /// The claim that held the weights is gone, or its volume is.
    ClaimLost,
    /// The claim is being deleted.
    ClaimTerminating,
    /// A claim of the model's name belongs to somebody else.
    NameTaken,
    /// The claim gets no volume.
    ProvisioningFailed,
    /// No node takes the job's pod.
    Unschedulable,
    /// The kubelet cannot start the container.
    Kubelet(Fault),
    /// The job's pod cannot be made.
    PodRefused,
    /// The job's pod ended without a word of its own.
    PodFailed,
    /// The job ended well but its log does not say what it found.
    InspectionMissing,
    /// The job's pod said why it ended.
    Exit(ExitReason),
    /// The API server refused an object.
    Refused(RefusalReason),
    /// The API server fails, or does not answer.
    ApiServerError,
}

/// What a reason means for somebody who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Nothing is left to do.
    Done,
    /// It is being worked on.
    Working,
    /// Something outside must change, even though it is tried again.
    Stuck,
}

impl Reason {
    /// As it stands in conditions.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WeightsVerified => "WeightsVerified",
            Self::Starting => "Starting",
            Self::Fetching => "Fetching",
            Self::Inspecting => "Inspecting",
            Self::Deleting => "Deleting",
            Self::InUse => "InUse",
            Self::ClaimNotFound => "ClaimNotFound",
            Self::ClaimLost => "ClaimLost",
            Self::ClaimTerminating => "ClaimTerminating",
            Self::NameTaken => "NameTaken",
            Self::ProvisioningFailed => "ProvisioningFailed",
            Self::Unschedulable => "Unschedulable",
            Self::Kubelet(fault) => fault.name(),
            Self::PodRefused => "PodRefused",
            Self::PodFailed => "PodFailed",
            Self::InspectionMissing => "InspectionMissing",
            Self::Exit(reason) => reason.name(),
            Self::Refused(reason) => reason.name(),
            Self::ApiServerError => "ApiServerError",
        }
    }

    /// What it means for somebody who waits.
    #[must_use]
    pub const fn mood(self) -> Mood {
        match self {
            Self::WeightsVerified => Mood::Done,
            Self::Starting
            | Self::Fetching
            | Self::Inspecting
            | Self::Deleting
            | Self::ClaimTerminating
            | Self::ApiServerError => Mood::Working,
            Self::InUse
            | Self::ClaimNotFound
            | Self::ClaimLost
            | Self::NameTaken
            | Self::ProvisioningFailed
            | Self::Unschedulable
            | Self::Kubelet(_)
            | Self::PodRefused
            | Self::PodFailed
            | Self::InspectionMissing
            | Self::Exit(_)
            | Self::Refused(_) => Mood::Stuck,
        }
    }
}

/// A reason, and what to tell a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// One of the closed set.
    pub reason: Reason,
    /// What happened, and what to do about it where something can be done.
    pub message: String,
}

impl Cause {
    /// A reason with its words.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}
