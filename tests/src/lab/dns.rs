//! CoreDNS, a process on the node behind the cluster's DNS service.

use super::site::{ConfigFile, Site, identity};
use crate::addresses::{CLUSTER_DOMAIN, DNS, DNS_METRICS, DNS_READY};
use crate::supervisor::protocol::Spec;

/// The process's and the tool's name.
pub const NAME: &str = "coredns";

/// Its configuration.
pub fn files(site: &Site<'_>) -> Vec<ConfigFile> {
    let kubeconfig = site.paths.inside_kubeconfig(identity::DNS);
    let text = format!(
        "{CLUSTER_DOMAIN}:{port} in-addr.arpa:{port} ip6.arpa:{port} {{
    bind {address}
    errors
    ready {DNS_READY}
    prometheus {DNS_METRICS}
    kubernetes {{
        kubeconfig {kubeconfig}
        ttl 5
    }}
}}
# There is no way out of a lab, so every other name does not exist.
.:{port} {{
    bind {address}
    errors
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
",
        port = DNS.port(),
        address = DNS.ip(),
        kubeconfig = kubeconfig.display(),
    );
    vec![(site.config("Corefile"), text)]
}

/// Its process.
pub fn process(site: &Site<'_>) -> Spec {
    site.tool(NAME, vec!["-conf".to_owned(), site.config("Corefile").to_string_lossy().into_owned()])
}
