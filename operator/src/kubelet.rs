//! What the kubelet says of a container that does not start: one list, for pods that serve and pods that fetch.
//!
//! In: the reason of a waiting container. Out: a [`Fault`] with its name in conditions. It must not know whose pod it is.

/// Why a container does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The image cannot be pulled.
    ImagePullFailed,
    /// The container cannot be made.
    ContainerNotCreated,
}

impl Fault {
    /// The fault behind the kubelet's reason, if there is one: a container also waits while all is well.
    #[must_use]
    pub fn of(waiting: &str) -> Option<Self> {
        match waiting {
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "SignatureValidationFailed" => Some(Self::ImagePullFailed),
            "CreateContainerConfigError"
            | "CreateContainerError"
            | "PreCreateHookError"
            | "PreStartHookError"
            | "PostStartHookError"
            | "RunContainerError" => Some(Self::ContainerNotCreated),
            _ => None,
        }
    }

    /// As it stands in conditions.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ImagePullFailed => "ImagePullFailed",
            Self::ContainerNotCreated => "ContainerNotCreated",
        }
    }
}
