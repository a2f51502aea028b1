//! The command lines of etcd, the API server, the controller manager and the scheduler. Pure.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::addresses::{CLUSTER_DOMAIN, POD_CIDR, SERVICE_CIDR};
use crate::certs::Pki;

/// What all of them need to know of each other.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Keys and certificates; see [`super::identities`].
    pub pki: Pki,
    /// The folder for state and configuration.
    pub folder: PathBuf,
    /// Where etcd serves clients.
    pub etcd: SocketAddr,
    /// Where etcd would serve peers.
    pub etcd_peer: SocketAddr,
    /// Where the API server listens.
    pub api_server: SocketAddr,
    /// The address written into the endpoints of `default/kubernetes`; without a node there are none.
    pub advertised: Option<std::net::IpAddr>,
    /// Whether a controller manager makes the service accounts that every pod needs; without it none is asked for.
    pub controllers: bool,
}

/// The API server's files, relative to the plan's folder.
pub const TOKENS: &str = "config/tokens.csv";
/// Admission configuration.
pub const ADMISSION: &str = "config/admission.yaml";
/// What is audited.
pub const AUDIT_POLICY: &str = "config/audit.yaml";
/// What has been audited.
pub const AUDIT_LOG: &str = "log/audit.log";

/// etcd. It need not survive a power cut, so it does not wait for the disk.
pub fn etcd(plan: &Plan, metrics: Option<SocketAddr>) -> Vec<String> {
    let Plan { pki, folder, etcd, etcd_peer, .. } = plan;
    let mut arguments = vec![
        flag("name", "lab"),
        path("data-dir", &folder.join("etcd")),
        flag("listen-client-urls", format!("https://{etcd}")),
        flag("advertise-client-urls", format!("https://{etcd}")),
        flag("listen-peer-urls", format!("http://{etcd_peer}")),
        flag("initial-advertise-peer-urls", format!("http://{etcd_peer}")),
        flag("initial-cluster", format!("lab=http://{etcd_peer}")),
        path("cert-file", &pki.certificate("etcd")),
        path("key-file", &pki.key("etcd")),
        path("trusted-ca-file", &pki.authority()),
        flag("client-cert-auth", "true"),
        flag("unsafe-no-fsync", "true"),
        flag("log-level", "warn"),
    ];
    arguments.extend(metrics.map(|address| flag("listen-metrics-urls", format!("http://{address}"))));
    arguments
}

/// The API server, with Node and RBAC authorization, Pod Security admission and an audit log.
pub fn api_server(plan: &Plan) -> Vec<String> {
    let Plan { pki, folder, etcd, api_server, advertised, .. } = plan;
    let mut arguments = vec![
        flag("etcd-servers", format!("https://{etcd}")),
        path("etcd-cafile", &pki.authority()),
        path("etcd-certfile", &pki.certificate("etcd-client")),
        path("etcd-keyfile", &pki.key("etcd-client")),
        flag("bind-address", api_server.ip()),
        flag("secure-port", api_server.port()),
        path("tls-cert-file", &pki.certificate("api-server")),
        path("tls-private-key-file", &pki.key("api-server")),
        path("client-ca-file", &pki.authority()),
        path("token-auth-file", &folder.join(TOKENS)),
        flag("authorization-mode", "Node,RBAC"),
        flag("enable-admission-plugins", "NodeRestriction"),
        path("admission-control-config-file", &folder.join(ADMISSION)),
        path("audit-policy-file", &folder.join(AUDIT_POLICY)),
        path("audit-log-path", &folder.join(AUDIT_LOG)),
        flag("audit-log-maxsize", "256"),
        path("service-account-key-file", &pki.service_accounts_public()),
        path("service-account-signing-key-file", &pki.key("service-accounts")),
        flag("service-account-issuer", format!("https://kubernetes.default.svc.{CLUSTER_DOMAIN}")),
        flag("service-cluster-ip-range", SERVICE_CIDR),
        flag("allow-privileged", "true"),
        flag("profiling", "false"),
        path("kubelet-certificate-authority", &pki.authority()),
        path("kubelet-client-certificate", &pki.certificate("api-server-kubelet")),
        path("kubelet-client-key", &pki.key("api-server-kubelet")),
        // Nodes' names resolve nowhere; without this `kubectl logs` and `exec` would look them up.
        flag("kubelet-preferred-address-types", "InternalIP"),
    ];
    if !plan.controllers {
        arguments.push(flag("disable-admission-plugins", "ServiceAccount"));
    }
    match advertised {
        Some(address) => arguments.push(flag("advertise-address", address)),
        None => arguments.push(flag("endpoint-reconciler-type", "none")),
    }
    arguments
}

/// The controller manager. There is one, so it need not wait to become leader.
pub fn controller_manager(plan: &Plan, kubeconfig: &Path, health: Option<SocketAddr>) -> Vec<String> {
    let mut arguments = vec![
        path("kubeconfig", kubeconfig),
        path("root-ca-file", &plan.pki.authority()),
        path("service-account-private-key-file", &plan.pki.key("service-accounts")),
        path("cluster-signing-cert-file", &plan.pki.authority()),
        path("cluster-signing-key-file", &plan.pki.key("ca")),
        flag("use-service-account-credentials", "true"),
        // It makes this folder, on the machine if it is not told otherwise.
        path("flex-volume-plugin-dir", &plan.folder.join("volume-plugins")),
        flag("allocate-node-cidrs", "true"),
        flag("cluster-cidr", POD_CIDR),
        flag("service-cluster-ip-range", SERVICE_CIDR),
        flag("leader-elect", "false"),
        flag("kube-api-qps", "200"),
        flag("kube-api-burst", "400"),
        flag("profiling", "false"),
    ];
    arguments.extend(serving(plan, kubeconfig, "controller-manager-server", health));
    arguments
}

/// The scheduler.
pub fn scheduler(plan: &Plan, kubeconfig: &Path, health: SocketAddr) -> Vec<String> {
    let mut arguments = vec![
        path("kubeconfig", kubeconfig),
        flag("leader-elect", "false"),
        flag("kube-api-qps", "200"),
        flag("kube-api-burst", "400"),
        flag("profiling", "false"),
    ];
    arguments.extend(serving(plan, kubeconfig, "scheduler-server", Some(health)));
    arguments
}

/// `server` names the certificate under which health and metrics are served.
fn serving(plan: &Plan, kubeconfig: &Path, server: &str, health: Option<SocketAddr>) -> Vec<String> {
    let Some(health) = health else { return vec![flag("secure-port", 0)] };
    vec![
        flag("bind-address", health.ip()),
        flag("secure-port", health.port()),
        path("tls-cert-file", &plan.pki.certificate(server)),
        path("tls-private-key-file", &plan.pki.key(server)),
        path("authentication-kubeconfig", kubeconfig),
        path("authorization-kubeconfig", kubeconfig),
        flag("authentication-skip-lookup", "true"),
    ]
}

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}

fn path(name: &str, value: &Path) -> String {
    flag(name, value.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(advertised: Option<&str>) -> Plan {
        Plan {
            pki: Pki("/p".into()),
            folder: "/f".into(),
            etcd: "127.0.0.1:1".parse().unwrap(),
            etcd_peer: "127.0.0.1:2".parse().unwrap(),
            api_server: "127.0.0.1:3".parse().unwrap(),
            advertised: advertised.map(|address| address.parse().unwrap()),
            controllers: true,
        }
    }

    #[test]
    fn the_api_server_finds_etcd_and_checks_its_certificate() {
        let server = api_server(&plan(None));
        assert!(server.contains(&"--etcd-servers=https://127.0.0.1:1".to_owned()));
        assert!(etcd(&plan(None), None).contains(&"--listen-client-urls=https://127.0.0.1:1".to_owned()));
        assert!(server.contains(&"--etcd-cafile=/p/ca.crt".to_owned()));
    }

    #[test]
    fn endpoints_are_kept_only_where_there_is_an_address_to_advertise() {
        assert!(api_server(&plan(None)).contains(&"--endpoint-reconciler-type=none".to_owned()));
        let advertised = api_server(&plan(Some("198.18.0.1")));
        assert!(advertised.contains(&"--advertise-address=198.18.0.1".to_owned()));
        assert!(!advertised.iter().any(|argument| argument.starts_with("--endpoint-reconciler-type")));
    }
}
