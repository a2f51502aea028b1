//! Asks the admin ports of our own pods.
//!
//! In: a pod's address and a path. Out: the answer, or nothing: a pod that starts, ends or hangs has no news, which is
//! no failure. Plain HTTP within the cluster, bounded in time and bytes. It must not know what is asked.

use std::net::IpAddr;
use std::time::Duration;

use contract::http::ADMIN_PORT;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;

/// How long an answer may take; whoever wants it asks again later.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most bytes of an answer.
const MAX_ANSWER: usize = 64 << 10;

/// Asks pods. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Ask(Client<HttpConnector, Empty<&'static [u8]>>);

impl Default for Ask {
    fn default() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }
}

impl Ask {
    /// What the pod at `ip` answers on `path`, if it answers in time and as expected.
    pub async fn get<T: DeserializeOwned>(&self, ip: &str, path: &str) -> Option<T> {
        let host = match ip.parse::<IpAddr>().ok()? {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        let url = format!("http://{host}:{ADMIN_PORT}{path}").parse().ok()?;
        let answer = async {
            let response = self.0.get(url).await.ok()?;
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.ok()?;
            serde_json::from_slice(&body.to_bytes()).ok()
        };
        tokio::time::timeout(PATIENCE, answer).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_address_has_no_news() {
        assert_eq!(Ask::default().get::<u32>("not an address", "/progress").await, None);
    }
}
