//! The Service: one address for all replicas that are promoted.

use contract::http::{API_PORT, API_PORT_NAME};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::api::LlmDeployment;
use crate::deployment::names;

/// The Service of a deployment.
///
/// Pods that are not ready get nothing from it. That is the default, and it is left unsaid because the API server
/// does not give a `false` back, which would look like a difference at every pass.
#[must_use]
pub fn service(owner: &LlmDeployment) -> Service {
    let name = owner.name_any();
    let port = ServicePort {
        name: Some(API_PORT_NAME.to_owned()),
        port: i32::from(API_PORT),
        target_port: Some(IntOrString::String(API_PORT_NAME.to_owned())),
        protocol: Some("TCP".to_owned()),
        app_protocol: Some("http".to_owned()),
        node_port: None,
    };
    Service {
        metadata: super::metadata(owner, names::service(&name), names::common_labels(&name)),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(names::service_selector(&name)),
            ports: Some(vec![port]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
