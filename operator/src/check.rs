//! `llm-fleet-operator check`: whether an operator is ready, seen from another pod, for `helm test`.
//!
//! In: the address of its readiness. Out: success, or why not. It must not know what readiness means.

use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::{sleep, timeout};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is asked, and the pause in between: an operator that is being replaced is there again by then.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_secs(3);
/// Most bytes of an answer.
const MAX_ANSWER: usize = 4 << 10;

/// Asks until the answer is good, and says so.
///
/// # Errors
/// When no answer was; with what stands in the last.
pub async fn check(url: &Uri) -> anyhow::Result<()> {
    let mut last = ask(url).await;
    for _ in 1..ATTEMPTS {
        if last.is_ok() {
            break;
        }
        sleep(PAUSE).await;
        last = ask(url).await;
    }
    println!("{url}: {}", last.with_context(|| format!("the operator at {url} is not ready"))?.trim());
    Ok(())
}

async fn ask(url: &Uri) -> anyhow::Result<String> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<&'static [u8]>>();
    let answer = async {
        let response = client.get(url.clone()).await.context("it cannot be reached")?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(anyhow::Error::from_boxed).context("its answer cannot be read")?.to_bytes();
        let words = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() { Ok(words) } else { bail!("{status}: {}", words.trim()) }
    };
    timeout(PATIENCE, answer).await.context("it does not answer")?
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::{Router, routing::get};

    use super::*;

    #[tokio::test]
    async fn what_is_not_ready_says_what_it_waits_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at =
            |path: &str| format!("http://{}{path}", listener.local_addr().unwrap()).parse::<Uri>().unwrap();
        let (ready, waits) = (at("/ready"), at("/waits"));
        let router = Router::new()
            .route("/ready", get(|| async { "ok\n" }))
            .route("/waits", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, "waiting for: pods\n") }));
        tokio::spawn(async { axum::serve(listener, router).await });
        assert_eq!(ask(&ready).await.unwrap(), "ok\n");
        let error = format!("{:#}", ask(&waits).await.unwrap_err());
        assert!(error.contains("503") && error.ends_with("waiting for: pods"), "{error}");
        let nobody = ask(&"http://127.0.0.1:1/".parse().unwrap()).await.unwrap_err();
        assert_eq!(nobody.to_string(), "it cannot be reached");
    }
}
