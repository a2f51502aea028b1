//! HTTP clients. What listens on loopback is reached directly, whatever proxy the environment names; what does not is
//! reached as the environment says.

use std::net::IpAddr;

use anyhow::{Context, Result};

/// A client for `url`, without a limit of time.
pub fn client(url: &str) -> Result<reqwest::Client> {
    let parsed = reqwest::Url::parse(url).with_context(|| format!("{url:?} is no URL"))?;
    let builder = reqwest::Client::builder();
    let builder = if parsed.host_str().is_some_and(is_loopback) { builder.no_proxy() } else { builder };
    Ok(builder.build()?)
}

/// Gets `url`.
pub async fn get(url: &str) -> Result<reqwest::Response> {
    client(url)?.get(url).send().await.with_context(|| format!("cannot reach {url}"))
}

/// Whether a URL's host is this machine itself.
pub fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        assert!(["localhost", "127.0.0.1", "127.9.9.9", "[::1]", "::1"].into_iter().all(is_loopback));
        assert!(!["10.0.0.1", "example.com", "localhost.example.com"].into_iter().any(is_loopback));
    }
}
