//! Counts what the pods of a lab try to reach: the first packet of every connection, as it leaves the pod and before it
//! is translated or dropped.
//!
//! In: the lab's network, in which the kernel counts, so that nothing is missed. Out: who tried to reach what. It must
//! not know what a pod is for. IPv6 is not counted: pods have no address in it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::addresses::POD_CIDR;
use crate::process::output;

/// The table of the packet filter, beside kube-proxy's own.
const TABLE: &str = "attempts";

/// Where somebody tried to get to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// `tcp`, `udp`, `icmp`, …
    pub protocol: String,
    /// As the pod named it: the address of a service stands for itself.
    pub address: Ipv4Addr,
    /// 0 where the protocol has none.
    pub port: u16,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}:{}", self.protocol, self.address, self.port)
    }
}

/// First packets by pod's address and target. One that is not answered is sent again, and counted again.
pub type Attempts = BTreeMap<(Ipv4Addr, Target), u64>;

/// Begins to count in this network, which has not been counted in before.
pub fn count(network: &Path) -> Result<()> {
    let mut nft = within(network);
    output(nft.args(["nft", &rules()])).map(drop).context("the kernel cannot count packets")
}

/// What was counted so far.
pub fn attempts(network: &Path) -> Result<Attempts> {
    let told = output(within(network).args(["nft", "--json", "list", "table", "ip", TABLE]))?;
    parse(&serde_json::from_str(&told)?).with_context(|| told)
}

fn within(network: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", network.display()));
    command
}

/// The chain comes before the one in which kube-proxy translates services' addresses.
fn rules() -> String {
    format!(
        "table ip {TABLE} {{
            set ports {{ type ipv4_addr . inet_proto . ipv4_addr . inet_service; size 65535; flags dynamic; }}
            set hosts {{ type ipv4_addr . inet_proto . ipv4_addr; size 65535; flags dynamic; }}
            chain seen {{
                type filter hook prerouting priority mangle; policy accept;
                ip saddr != {POD_CIDR} return
                tcp flags & (syn | ack) == syn update @ports {{ ip saddr . ip protocol . ip daddr . tcp dport counter }}
                ip protocol tcp return
                ct state != new return
                ip protocol udp update @ports {{ ip saddr . ip protocol . ip daddr . udp dport counter }} return
                update @hosts {{ ip saddr . ip protocol . ip daddr counter }}
            }}
        }}"
    )
}

fn parse(ruleset: &Value) -> Option<Attempts> {
    let elements = ruleset["nftables"].as_array()?.iter().filter_map(|entry| entry["set"]["elem"].as_array());
    let attempt = |element: &Value| {
        let parts = element["elem"]["val"]["concat"].as_array()?;
        let [from, protocol, address, ..] = &parts[..] else { return None };
        // A protocol without a name is a number.
        let protocol = protocol.as_str().map_or_else(|| protocol.to_string(), str::to_owned);
        let port = parts.get(3).map_or(Some(0), Value::as_u64)?.try_into().ok()?;
        let target = Target { protocol, address: address.as_str()?.parse().ok()?, port };
        let packets = element["elem"]["counter"]["packets"].as_u64()?;
        Some(((from.as_str()?.parse().ok()?, target), packets))
    };
    elements.flatten().map(attempt).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nft_tells_is_read() {
        let element =
            |value: &Value| json!({ "elem": { "val": { "concat": value }, "counter": { "packets": 2 } } });
        let told = json!({ "nftables": [
            { "table": { "name": TABLE } },
            { "set": { "name": "ports", "elem": [element(&json!(["10.244.0.5", "udp", "10.96.0.10", 53]))] } },
            { "set": { "name": "hosts", "elem": [element(&json!(["10.244.0.6", 132, "10.96.0.1"]))] } },
            { "set": { "name": "empty" } },
        ] });
        let attempts = parse(&told).unwrap();
        let lines: Vec<_> = attempts.iter().map(|((from, to), n)| format!("{from} {to} {n}")).collect();
        assert_eq!(lines, ["10.244.0.5 udp 10.96.0.10:53 2", "10.244.0.6 132 10.96.0.1:0 2"]);
        assert!(parse(&json!({ "nftables": [{ "set": { "elem": [{}] } }] })).is_none());
    }
}
