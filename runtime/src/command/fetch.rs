//! `fetch`: brings a checkpoint onto a volume and says what it is.

use std::path::PathBuf;

use contract::exit::{ExitReason, ExitReport};
use contract::fetch::FetchSpec;
use contract::http::ADMIN_PORT;
use contract::inspect::Inspection;

use crate::checkpoint::Checkpoint;
use crate::command::{listen, until_terminated};
use crate::exit;
use crate::fetch::{Options, fetch};
use crate::http::admin::progress_routes;
use crate::inspect::{InspectError, inspect_fetched};
use crate::load::check;
use crate::packing;
use crate::progress::Tracker;

/// Fetches the files of a checkpoint, verifies them, and publishes all of them or none.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to fetch: {"files":[{"url","sha256","path"}]}.
    #[arg(long, value_name = "JSON")]
    spec: String,
    /// Folder to publish in.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// End with the one line that the operator reads.
    #[arg(long)]
    line: bool,
    /// Port that tells health and progress; 0 for none.
    #[arg(long, default_value_t = ADMIN_PORT)]
    admin_port: u16,
}

/// Runs it.
pub async fn run(args: &Args) -> Result<(), ExitReport> {
    let spec = FetchSpec::from_json(&args.spec).map_err(|e| exit::report(ExitReason::ConfigInvalid, &e))?;
    let progress = Tracker::default();
    tell(args.admin_port, progress.clone()).await;
    let fetched = fetch(&spec, &args.output, Options::default(), &progress, |folder, manifest| {
        let checkpoint = Checkpoint::open(folder).map_err(InspectError::from)?;
        if args.line {
            check(&checkpoint)?;
        }
        inspect_fetched(&checkpoint, manifest).map_err(ExitReport::from)
    });
    let fetched = async {
        let inspection = fetched.await?;
        pack(args.output.clone()).await;
        Ok(inspection)
    };
    match until_terminated(fetched).await? {
        Some(inspection) => print(&inspection, args.line),
        None => {
            let message = "the fetch was asked to stop before it was done".to_owned();
            Err(ExitReport { reason: ExitReason::SourceUnavailable, message })
        }
    }
}

/// Packs what was fetched, if the volume has room. Whoever serves does without, so it is no failure.
async fn pack(folder: PathBuf) {
    let packed = tokio::task::spawn_blocking(move || {
        let checkpoint = Checkpoint::open(&folder).map_err(|error| exit::chain(&error))?;
        packing::keep(&checkpoint).map_err(|error| exit::chain(&error))
    });
    match packed.await.expect("packing does not panic and is not aborted") {
        Ok(made) => tracing::info!(made, "packed weights lie beside the files"),
        Err(error) => {
            tracing::warn!(error, "weights are not packed: each start packs them, which takes longer");
        }
    }
}

fn print(inspection: &Inspection, line: bool) -> Result<(), ExitReport> {
    if line {
        println!("{}", inspection.to_line().map_err(InspectError::from)?);
    } else {
        println!("{}", inspection.digest);
    }
    Ok(())
}

/// Serves progress beside the work. A taken port costs only the view, so it does not stop the fetch.
async fn tell(port: u16, progress: Tracker) {
    if port == 0 {
        return;
    }
    match listen(None, port).await {
        Ok(listener) => {
            tokio::spawn(async move { axum::serve(listener, progress_routes(progress)).await });
        }
        Err(report) => tracing::warn!(error = report.message, "progress cannot be served"),
    }
}
