//! The operator's own HTTP listener: health, readiness, metrics.
//!
//! In: checks and metrics. Out: a router. It must not know what is checked.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use contract::http::{HEALTHZ, METRICS, READYZ};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Something that must hold before this process is ready.
pub struct Check {
    /// What it is about.
    pub name: &'static str,
    /// Whether it holds now.
    pub holds: Box<dyn Fn() -> bool + Send + Sync>,
}

/// The router's state.
struct Admin {
    metrics: Metrics,
    checks: Vec<Check>,
}

/// `/healthz` answers while the process lives, `/readyz` when all checks hold, `/metrics` always.
pub fn router(metrics: Metrics, checks: Vec<Check>) -> Router {
    Router::new()
        .route(HEALTHZ, get(|| async { "ok\n" }))
        .route(READYZ, get(readyz))
        .route(METRICS, get(expose))
        .with_state(Arc::new(Admin { metrics, checks }))
}

/// Serves until `shutdown`.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(address: SocketAddr, router: Router, shutdown: CancellationToken) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "health and metrics are served");
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

async fn readyz(State(admin): State<Arc<Admin>>) -> (StatusCode, String) {
    let waiting: Vec<&str> =
        admin.checks.iter().filter(|check| !(check.holds)()).map(|check| check.name).collect();
    if waiting.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", waiting.join(", ")))
    }
}

async fn expose(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], admin.metrics.render())
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn get(path: &str, holds: bool) -> (StatusCode, String) {
        let checks = vec![Check { name: "pods", holds: Box::new(move || holds) }];
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(Metrics::default(), checks).oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_names_what_is_missing_and_health_does_not_care() {
        assert_eq!(get(READYZ, false).await, (StatusCode::SERVICE_UNAVAILABLE, "waiting for: pods\n".into()));
        assert_eq!(get(READYZ, true).await.0, StatusCode::OK);
        assert_eq!(get(HEALTHZ, false).await.0, StatusCode::OK);
        assert_eq!(get(METRICS, false).await.0, StatusCode::OK);
    }
}
