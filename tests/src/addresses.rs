//! Addresses and ports inside a lab's network namespace. Every lab has a namespace of its own, so they never clash.

use std::net::{Ipv4Addr, SocketAddr};

/// The node's address, out of the range kept for benchmarks (RFC 2544), which no real network uses.
pub const NODE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The node's address with its prefix.
pub const NODE_CIDR: &str = "198.18.0.1/24";
/// Where pods get their addresses.
pub const POD_CIDR: &str = "10.244.0.0/16";
/// Where services get their addresses.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The service `default/kubernetes`: always the first address of the range.
pub const KUBERNETES_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The cluster DNS service.
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The domain below which services are named.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// The node's name.
pub const NODE_NAME: &str = "lab";

/// The API server as the node and pods reach it.
pub const API_SERVER: SocketAddr = on_node(6443);
/// Prometheus as forwarders reach it.
pub const PROMETHEUS: SocketAddr = on_node(9090);
/// The DNS server behind the DNS service.
pub const DNS: SocketAddr = on_node(53);
/// etcd for clients, on the namespace's loopback.
pub const ETCD: SocketAddr = on_loopback(2379);
/// etcd for peers, of which there are none.
pub const ETCD_PEER: SocketAddr = on_loopback(2380);
/// Plain etcd metrics.
pub const ETCD_METRICS: SocketAddr = on_loopback(2381);
/// kube-proxy's metrics.
pub const KUBE_PROXY_METRICS: SocketAddr = on_loopback(10249);
/// CoreDNS's metrics.
pub const DNS_METRICS: SocketAddr = on_loopback(9153);
/// CoreDNS's readiness.
pub const DNS_READY: SocketAddr = on_loopback(8181);
/// The controller manager's health.
pub const CONTROLLER_MANAGER: SocketAddr = on_loopback(10257);
/// The scheduler's health.
pub const SCHEDULER: SocketAddr = on_loopback(10259);

const fn on_node(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(NODE), port)
}

const fn on_loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_manifests_say_the_same() {
        let manifests = include_str!("../lab/manifests/cluster.yaml");
        let objects: Vec<Value> =
            serde_norway::Deserializer::from_str(manifests).map(|d| Value::deserialize(d).unwrap()).collect();
        let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
        let ports = |object: &Value| object["ports"].as_array().unwrap().clone();
        assert_eq!(of_kind("Service")["spec"]["clusterIP"], json!(DNS_SERVICE));
        let slice = of_kind("EndpointSlice");
        assert_eq!(slice["endpoints"][0]["addresses"], json!([DNS.ip()]));
        let all = [ports(&of_kind("Service")["spec"]), ports(slice)].concat();
        assert!(all.len() == 4 && all.iter().all(|port| port["port"] == DNS.port()), "{all:?}");
    }
}
