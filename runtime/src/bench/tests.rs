//! The whole generator against a small server whose times are known.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use contract::http::{COMPLETIONS, MODELS};
use serde_json::{Map, Value, json};

use super::client::{Endpoint, Target};
use super::*;

/// What the server has seen.
#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

const CHUNK_GAP: Duration = Duration::from_millis(10);
/// Tokens that the server adds to each prompt.
const OVERHEAD: u32 = 2;

/// Answers with two tokens in each chunk, one chunk each ten milliseconds; refuses each fifth request.
async fn complete(State(seen): State<Arc<Seen>>, body: String) -> Response {
    let body: Value = serde_json::from_str(&body).unwrap();
    let number = seen.requests.fetch_add(1, Ordering::Relaxed);
    if number % 5 == 4 {
        return (StatusCode::TOO_MANY_REQUESTS, "{}").into_response();
    }
    let now = seen.at_once.fetch_add(1, Ordering::Relaxed) + 1;
    seen.most_at_once.fetch_max(now, Ordering::Relaxed);
    let prompt = body["prompt"].as_str().unwrap().split_whitespace().count() as u32 + OVERHEAD;
    let tokens = body["max_tokens"].as_u64().unwrap();
    let n_chunks = tokens.div_ceil(2);
    let events = stream::iter(0..=n_chunks).then(move |chunk| {
        let seen = Arc::clone(&seen);
        async move {
            let event = if chunk < n_chunks {
                tokio::time::sleep(CHUNK_GAP).await;
                json!({ "choices": [{ "text": "a b", "finish_reason": null }] })
            } else {
                seen.at_once.fetch_sub(1, Ordering::Relaxed);
                json!({ "choices": [], "usage": { "prompt_tokens": prompt, "completion_tokens": tokens } })
            };
            Ok::<_, std::convert::Infallible>(format!("data: {event}\n\n"))
        }
    });
    Body::from_stream(events).into_response()
}

async fn server() -> (Arc<Seen>, Client) {
    let seen = Arc::new(Seen::default());
    let models = get(|| async { json!({ "data": [{ "id": "tiny" }] }).to_string() });
    let app =
        Router::new().route(COMPLETIONS, post(complete)).route(MODELS, models).with_state(Arc::clone(&seen));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, app).await });
    let target = Target {
        url,
        api_key: None,
        model: None,
        endpoint: Endpoint::Completions,
        extra: Map::new(),
        timeout: Duration::from_secs(60),
    };
    // Clients are made with a provider of cryptography, though nothing here uses it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    (seen, Client::connect(target).await.unwrap())
}

fn settings(loads: &[Load]) -> Settings {
    Settings {
        loads: loads.to_vec(),
        prompt_tokens: 12,
        prefix_tokens: 4,
        output_tokens: 6,
        requests: Some(20),
        limit: None,
        cut: false,
        most_at_once: None,
        warmups: 0,
        seed: 1,
        goals: Goals::default(),
    }
}

#[tokio::test]
async fn a_closed_loop_keeps_its_streams_busy() {
    let (seen, client) = server().await;
    let settings = settings(&[Load::Closed { streams: 4 }]);
    let report = measure(&client, &settings).await.unwrap();
    let [run] = report.runs.as_slice() else { panic!("one run for one load") };
    assert_eq!((report.model.as_str(), seen.most_at_once.load(Ordering::Relaxed)), ("tiny", 4));
    // Two requests found the length of the prompt.
    assert_eq!(seen.requests.load(Ordering::Relaxed), 22);
    assert_eq!((run.completed, run.failed), (16, 4));
    assert_eq!((run.prompt_tokens, run.output_tokens, run.tokens_per_chunk), (16 * 12, 16 * 6, 2.0));
    let (e2el, itl, tpot) = (run.e2el_ms.unwrap(), run.itl_ms.unwrap(), run.tpot_ms.unwrap());
    // Timers never fire early; how late they are is the machine's business.
    assert!(e2el.p50 >= 29.0, "{e2el:?}");
    // What is two gaps between chunks is five further tokens.
    assert!((tpot.mean - 0.4 * itl.mean).abs() < 1e-6, "{tpot:?} {itl:?}");
}

#[tokio::test]
async fn an_open_loop_does_not_wait_for_answers() {
    let (seen, client) = server().await;
    let load = Load::Open { rate: 400.0, arrivals: Arrivals::Constant };
    let report = measure(&client, &settings(&[load])).await.unwrap();
    let sent: Vec<_> = report.runs[0].samples.iter().map(|sample| sample.sent_ms).collect();
    let last = sent.iter().copied().fold(0.0, f64::max);
    assert!(last >= 2.5 * 17.0, "the last ones are sent when they are due: {last}");
    assert!(seen.most_at_once.load(Ordering::Relaxed) > 4, "an answer takes the time of twelve arrivals");
}

#[tokio::test]
async fn an_open_loop_can_be_bounded() {
    let (seen, client) = server().await;
    let load = Load::Open { rate: 400.0, arrivals: Arrivals::Constant };
    let settings = Settings { most_at_once: Some(3), ..settings(&[load]) };
    let report = measure(&client, &settings).await.unwrap();
    assert_eq!((report.runs[0].completed, report.runs[0].failed), (16, 4));
    assert_eq!(seen.most_at_once.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_limit_stops_the_sending() {
    let (_, client) = server().await;
    let limit = Some(Duration::from_millis(200));
    let loads = [Load::Closed { streams: 1 }, Load::Open { rate: 100.0, arrivals: Arrivals::Poisson }];
    let settings = Settings { requests: None, limit, ..settings(&loads) };
    for run in measure(&client, &settings).await.unwrap().runs {
        let n = run.completed + run.failed;
        assert!((2..60).contains(&n), "{n} requests, load {}", run.load);
    }
}

#[tokio::test]
async fn who_is_under_way_at_the_end_may_be_cut_off() {
    let (_, client) = server().await;
    let settings = Settings {
        output_tokens: 200,
        requests: None,
        limit: Some(Duration::from_millis(300)),
        cut: true,
        ..settings(&[Load::Closed { streams: 3 }])
    };
    let report = measure(&client, &settings).await.unwrap();
    let run = &report.runs[0];
    // A whole answer takes a second.
    assert_eq!((run.completed, run.cut), (0, 3), "{run:?}");
    assert!(run.seconds < 0.9, "{}", run.seconds);
    assert!(run.itl_ms.unwrap().max >= 9.0, "{run:?}");
}

#[tokio::test]
async fn an_open_loop_without_end_makes_requests_only_when_they_are_due() {
    let (_, client) = server().await;
    let load = Load::Open { rate: 50.0, arrivals: Arrivals::Constant };
    let limit = Some(Duration::from_millis(200));
    let settings = Settings { requests: Some(usize::MAX), limit, ..settings(&[load]) };
    let run = &measure(&client, &settings).await.unwrap().runs[0];
    assert!((2..=10).contains(&(run.completed + run.failed)), "{run:?}");
}
