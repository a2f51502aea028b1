//! Labels, annotations, finalizers and field managers of the API group.

/// The API group.
pub const GROUP: &str = "llmfleet.dev";
/// The served and stored version.
pub const VERSION: &str = "v1alpha1";

/// `metadata.name` of the deployment that an object belongs to.
pub const DEPLOYMENT: &str = "llmfleet.dev/deployment";
/// `metadata.name` of the model that an object belongs to.
pub const MODEL: &str = "llmfleet.dev/model";
/// Eight hex digits of the revision.
pub const REVISION: &str = "llmfleet.dev/revision";
/// Index of the replica, from 0.
pub const REPLICA: &str = "llmfleet.dev/replica";
/// Eight hex digits of the booking that a pod spends.
pub const BOOKING: &str = "llmfleet.dev/booking";
/// Annotation of a pod: its booking as JSON, from which it is known again when the status is lost.
pub const BOOKED: &str = "llmfleet.dev/booked";
/// Number of a job's attempt, from 1.
pub const ATTEMPT: &str = "llmfleet.dev/attempt";
/// Annotation of a job: eight hex digits of what its pod was made from.
pub const MADE_FROM: &str = "llmfleet.dev/made-from";
/// `"true"` on pods that get traffic from the Service.
pub const SERVING: &str = "llmfleet.dev/serving";
/// Annotation: leave this object alone.
pub const PAUSED: &str = "llmfleet.dev/paused";
/// Finalizer of models.
pub const FINALIZER: &str = "llmfleet.dev/cleanup";

/// Standard labels (`app.kubernetes.io/*`).
pub const APP_NAME: &str = "app.kubernetes.io/name";
/// Instance of the application: the owning object's name.
pub const APP_INSTANCE: &str = "app.kubernetes.io/instance";
/// Part that an object plays: `server`, `fetch`.
pub const APP_COMPONENT: &str = "app.kubernetes.io/component";
/// What manages an object.
pub const APP_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`APP_MANAGED_BY`] and [`APP_NAME`] on everything that the operator makes.
pub const MANAGER: &str = "llm-fleet";

/// Field manager of objects that follow from a spec.
pub const FIELD_MANAGER: &str = "llmfleet";
/// Field manager of `.status.placement`.
pub const FIELD_MANAGER_PLACEMENT: &str = "llmfleet-placement";
/// Field manager of the rest of the status.
pub const FIELD_MANAGER_STATUS: &str = "llmfleet-status";

/// Scrape annotations that Prometheus's usual Kubernetes jobs read.
pub const SCRAPE: &str = "prometheus.io/scrape";
/// Port to scrape.
pub const SCRAPE_PORT: &str = "prometheus.io/port";
/// Path to scrape.
pub const SCRAPE_PATH: &str = "prometheus.io/path";
