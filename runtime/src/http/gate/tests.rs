//! The gate in front of the routes, without a model behind them.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header;
use contract::http::{CHAT_COMPLETIONS, VERSION};
use http_body_util::BodyExt;
use proptest::prelude::*;
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt;

use super::super::{App, Front, app};
use super::*;
use crate::progress::Tracker;

fn router(guard: Guard) -> axum::Router {
    app(App::open(Front { names: vec!["m".into()], guard, longest: None }, Tracker::default()))
}

fn get(path: &str, headers: &[(&str, &str)]) -> Request {
    let request = Request::get(path);
    let add =
        |request: axum::http::request::Builder, (name, value): &(&str, &str)| request.header(*name, *value);
    headers.iter().fold(request, add).body(Body::empty()).unwrap()
}

async fn send(guard: Guard, request: Request) -> (u16, HeaderMap, Value) {
    let (parts, body) = router(guard).oneshot(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), parts.headers, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn only_who_has_a_key_comes_in() {
    let (sender, keys) = watch::channel(Arc::new(Keys::parse(&[b"secret".to_vec()]).unwrap()));
    let guard = || Guard { keys: Some(keys.clone()), origins: Vec::new() };
    let (status, _, answer) = send(guard(), get(VERSION, &[])).await;
    assert_eq!((status, &answer["error"]["code"]), (401, &"invalid_api_key".into()), "{answer}");
    assert_eq!(answer["error"]["type"], "authentication_error");
    assert_eq!(send(guard(), get(VERSION, &[("authorization", "Bearer wrong")])).await.0, 401);
    assert_eq!(send(guard(), get(VERSION, &[("authorization", "Bearer secret")])).await.0, 200);
    assert_eq!(send(guard(), get(VERSION, &[("x-api-key", "secret")])).await.0, 200);
    assert_eq!(send(guard(), get(HEALTH, &[])).await.0, 503, "probes need none");
    let (status, _, answer) = send(guard(), get(MESSAGES, &[])).await;
    assert_eq!((status, &answer["error"]["type"]), (401, &"authentication_error".into()), "{answer}");
    assert_eq!(answer["type"], "error");
    sender.send_replace(Arc::new(Keys::parse(&[b"other".to_vec()]).unwrap()));
    assert_eq!(send(guard(), get(VERSION, &[("x-api-key", "secret")])).await.0, 401, "keys change");
}

#[tokio::test]
async fn a_request_keeps_its_name_or_gets_one() {
    let name = async |given: &str| {
        let (_, headers, _) = send(Guard::default(), get(VERSION, &[(REQUEST_ID_HEADER, given)])).await;
        headers[REQUEST_ID_HEADER].to_str().unwrap().to_owned()
    };
    assert_eq!(name("abc-1").await, "abc-1");
    for bad in ["", "a b", "<script>", &"x".repeat(129)] {
        assert!(name(bad).await.starts_with("req_"), "{bad}");
    }
    let (_, headers, _) = send(Guard::default(), get("/none", &[])).await;
    assert!(headers.contains_key(REQUEST_ID_HEADER));
}

#[tokio::test]
async fn pages_of_other_origins_may_only_where_they_are_named() {
    let guard =
        |origins: &[&str]| Guard { keys: None, origins: origins.iter().map(|o| (*o).into()).collect() };
    let page = [("origin", "https://a.example")];
    let allowed = async |guard| {
        let (_, headers, _) = send(guard, get(VERSION, &page)).await;
        headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).cloned()
    };
    assert_eq!(allowed(guard(&[])).await, None);
    assert_eq!(allowed(guard(&["https://b.example"])).await, None);
    assert_eq!(allowed(guard(&["https://a.example"])).await.unwrap(), "https://a.example");
    assert_eq!(allowed(guard(&["*"])).await.unwrap(), "https://a.example");
    let preflight = |guard| {
        let mut request =
            get(CHAT_COMPLETIONS, &[page[0], ("access-control-request-headers", "authorization")]);
        *request.method_mut() = Method::OPTIONS;
        send(guard, request)
    };
    let (status, headers, _) = preflight(guard(&["*"])).await;
    assert_eq!(
        (status, &headers[header::ACCESS_CONTROL_ALLOW_HEADERS]),
        (204, &"authorization".parse().unwrap())
    );
    assert_eq!(preflight(guard(&[])).await.0, 405);
}

#[tokio::test]
async fn headers_and_paths_have_limits() {
    let many: Vec<_> = (0..=MAX_HEADERS).map(|n| (format!("x-{n}"), "1")).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let long = "x".repeat(MAX_HEADER_BYTES);
    for headers in [&many[..], &[("x-long", &long)]] {
        let (status, _, answer) = send(Guard::default(), get(VERSION, headers)).await;
        assert_eq!((status, &answer["error"]["code"]), (431, &"headers_too_large".into()), "{answer}");
    }
    let path = format!("{VERSION}?{}", "x".repeat(MAX_PATH_BYTES));
    assert_eq!(send(Guard::default(), get(&path, &[])).await.0, 414);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever bytes headers have, the answer has a name that can stand in a log, and nobody comes in by chance.
    #[test]
    fn any_header_is_survived(
        values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 4),
    ) {
        let names = [REQUEST_ID_HEADER, "authorization", "x-api-key", "origin"];
        let mut request = get(VERSION, &[]);
        for (name, value) in names.into_iter().zip(&values) {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                request.headers_mut().insert(name, value);
            }
        }
        let (_sender, keys) = watch::channel(Arc::new(Keys::parse(&[b"secret".to_vec()]).unwrap()));
        let guard = Guard { keys: Some(keys), origins: vec!["https://a.example".into()] };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (status, headers, _) = runtime.block_on(send(guard, request));
        prop_assert_eq!(status, 401);
        let name = headers[REQUEST_ID_HEADER].to_str().unwrap();
        prop_assert!((1..=MAX_NAME_BYTES).contains(&name.len()) && !name.contains(char::is_whitespace));
    }
}
