//! `serve`: listens at once, loads in the engine's thread, serves, drains.
//!
//! # Flow
//! 1. Both listeners open, so that health and progress can be asked for from the first moment.
//! 2. The engine's thread loads the model and then serves until the process ends.
//! 3. SIGTERM: `/readyz` says no, while requests are still taken for as long as others may not know yet; then
//!    nothing new is taken, streams in flight are finished within the deadline, and the process exits with 0.

use std::future::IntoFuture;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use contract::exit::{ExitReason, ExitReport};
use contract::http::Phase;
use rustls::ServerConfig;
use tokio::sync::oneshot;

use crate::command::{listen, terminations};
use crate::config::{Args, Settings};
use crate::exit::report;
use crate::http::admin::{Drain, admin};
use crate::http::gate::Guard;
use crate::http::keys::Keys;
use crate::http::server::{Listening, serve};
use crate::http::watched::{Watched, watch};
use crate::http::{App, Front, app, tls};
use crate::load::load;
use crate::metrics::EngineMetrics;
use crate::progress::Tracker;
use kernels::Isa;

/// Time that endpoints take to converge: requests that arrive meanwhile are served.
const CONVERGENCE: Duration = Duration::from_secs(3);

/// Runs it.
pub async fn run(args: &Args) -> Result<(), ExitReport> {
    let settings = settings(args)?;
    let mut terminate = terminations()?;
    let app_state = App::open(front(&settings).await?, Tracker::default());
    let tls = certificate(&settings).await?;
    let (api, admin_listener) =
        (listen(settings.host, settings.port).await?, listen(settings.host, settings.admin_port).await?);
    let address = api.local_addr().map_err(|e| report(ExitReason::Internal, &e))?;
    let admin_address = admin_listener.local_addr().map_err(|e| report(ExitReason::Internal, &e))?;
    tracing::info!(api = %address, admin = %admin_address, "listening");
    let drain = drain_guard(args, &settings)?;
    tokio::spawn(axum::serve(admin_listener, admin(app_state.clone(), drain)).into_future());
    let (stop, stopped) = oneshot::channel();
    let stopped = async {
        // Dropping the sender stops as well.
        let _ = stopped.await;
    };
    let encrypted = tls.is_some();
    let listening = Listening { listener: api, most: settings.server.max_connections, tls };
    let mut server = tokio::spawn(serve(listening, app(app_state.clone()), stopped));
    let mut ended = engine(settings.clone(), Isa::detect(), app_state.clone())?;
    let scheme = if encrypted { "https" } else { "http" };
    tokio::spawn(greet(app_state.progress.clone(), settings.clone(), format!("{scheme}://{address}")));

    tokio::select! {
        result = &mut ended => return Err(ended_report(result)),
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    let was_ready = app_state.progress.phase() >= Phase::Ready;
    app_state.progress.enter(Phase::Draining);
    if !was_ready {
        return Ok(());
    }
    tracing::info!(deadline_seconds = settings.config.drain_seconds, "draining");
    let drained = async {
        if settings.managed {
            tokio::time::sleep(CONVERGENCE).await;
        }
        // The server may have ended by itself, and then there is nothing to stop.
        let _ = stop.send(());
        let deadline = Duration::from_secs(settings.config.drain_seconds.into());
        if tokio::time::timeout(deadline, &mut server).await.is_err() {
            tracing::warn!("the deadline has passed; requests in flight are cut off");
        }
    };
    tokio::select! {
        () = drained => Ok(()),
        result = ended => Err(ended_report(result)),
        // Whoever asks twice does not want to wait.
        _ = terminate.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

fn settings(args: &Args) -> Result<Settings, ExitReport> {
    let json = args.config.as_ref().map(std::fs::read_to_string).transpose();
    let json = json.map_err(|error| {
        let message = format!("cannot read the configuration: {error}");
        ExitReport { reason: ExitReason::ConfigInvalid, message }
    })?;
    Settings::new(args, json.as_deref()).map_err(|e| report(ExitReason::ConfigInvalid, &e))
}

fn drain_guard(args: &Args, settings: &Settings) -> Result<Option<Drain>, ExitReport> {
    let Some(path) = &args.admin_token_file else { return Ok(None) };
    let invalid = |message: String| ExitReport { reason: ExitReason::ConfigInvalid, message };
    let token = std::fs::read_to_string(path);
    let token = token.map_err(|error| invalid(format!("cannot read the admin token: {error}")))?;
    if token.trim().is_empty() {
        return Err(invalid("the admin token is empty".into()));
    }
    let within = Duration::from_secs(settings.config.drain_seconds.into());
    Ok(Some(Drain { token: token.trim().to_owned(), within }))
}

/// What the settings say of the API, with the keys that they name.
async fn front(settings: &Settings) -> Result<Front, ExitReport> {
    let server = &settings.server;
    let keys = match &server.api_keys_file {
        None => None,
        Some(path) => Some(watch(vec![path.clone()], Keys::parse).await.map_err(|e| invalid(&e))?),
    };
    let names = std::iter::once(&settings.config.served_name).chain(&settings.aliases).cloned().collect();
    let guard = Guard { keys, origins: server.cors_origin.clone() };
    let longest = server.max_request_seconds.map(|seconds| Duration::from_secs(seconds.into()));
    Ok(Front { names, guard, longest })
}

/// The certificate that the settings name.
async fn certificate(settings: &Settings) -> Result<Option<Watched<ServerConfig>>, ExitReport> {
    match (&settings.server.tls_cert, &settings.server.tls_key) {
        (Some(chain), Some(key)) => {
            let files = vec![chain.clone(), key.clone()];
            Ok(Some(watch(files, tls::parse).await.map_err(|e| invalid(&e))?))
        }
        _ => Ok(None),
    }
}

fn invalid(error: &dyn std::error::Error) -> ExitReport {
    report(ExitReason::ConfigInvalid, error)
}

/// Starts the engine's thread; the receiver hears how it ended, which it never should.
///
/// # Errors
/// Where there is no thread to be had.
pub fn engine(
    settings: Settings,
    isa: Isa,
    app: Arc<App>,
) -> Result<oneshot::Receiver<Result<(), ExitReport>>, ExitReport> {
    let (tell, ended) = oneshot::channel();
    let work = move || {
        let result = load(&settings, isa, &app.progress).map(|(worker, serving)| {
            app.metrics.cache(serving.engine.load().blocks, settings.config.kv_dtype);
            app.serve(serving);
            worker.observed_by(Box::new(EngineMetrics::new(app.metrics.clone()))).run();
        });
        // Nobody listens any more while the process is on its way out.
        let _ = tell.send(result);
    };
    std::thread::Builder::new()
        .name("engine".into())
        .spawn(work)
        .map_err(|e| report(ExitReason::Internal, &e))?;
    Ok(ended)
}

fn ended_report(result: Result<Result<(), ExitReport>, oneshot::error::RecvError>) -> ExitReport {
    match result {
        Ok(Err(report)) => report,
        Ok(Ok(())) | Err(_) => {
            let message = "the engine has ended, which it never should".to_owned();
            ExitReport { reason: ExitReason::Internal, message }
        }
    }
}

/// Says where the model is served, once it is.
async fn greet(progress: Tracker, settings: Settings, address: String) {
    progress.reached(Phase::Ready).await;
    if progress.phase() != Phase::Ready {
        return;
    }
    let seconds: f64 = progress.snapshot().seconds.iter().map(|(_, s)| s).sum();
    let name = &settings.config.served_name;
    tracing::info!(model = name, address, seconds, "ready");
    if !settings.managed && io::stderr().is_terminal() {
        eprintln!("\n  {name} is served at {address}/v1 (ready in {seconds:.1} s). Try:\n");
        eprintln!("  curl {address}/v1/chat/completions -H 'content-type: application/json' \\");
        eprintln!(
            "    -d '{{\"model\":\"{name}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello!\"}}]}}'\n"
        );
    }
}
