//! `pack`: writes a checkpoint's weights beside it as they are kept in memory, so that each start only maps them.

use std::path::PathBuf;

use contract::exit::{ExitReason, ExitReport};

use crate::checkpoint::Checkpoint;
use crate::command::until_terminated;
use crate::exit::report;
use crate::packing;

/// Packs the weights of a checkpoint into a hidden file beside it, which `serve` then maps instead of packing them.
///
/// The file is as large as the weights. It is made anew when the weights or the layout have changed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A .gguf file, or a folder with one checkpoint in it.
    path: PathBuf,
}

/// Runs it.
///
/// # Errors
/// Where there is no checkpoint, or the file cannot be written.
pub async fn run(args: &Args) -> Result<(), ExitReport> {
    let path = args.path.clone();
    let work = async {
        let packed = tokio::task::spawn_blocking(move || {
            let checkpoint = Checkpoint::open(&path).map_err(|e| report(e.reason(), &e))?;
            packing::keep(&checkpoint).map_err(|e| report(ExitReason::VolumeFailed, &e))
        });
        packed.await.expect("packing does not panic and is not aborted")
    };
    match until_terminated(work).await? {
        Some(made) => {
            println!("{}", if made { "packed" } else { "already packed" });
            Ok(())
        }
        None => {
            let message = "packing was asked to stop before it was done".to_owned();
            Err(ExitReport { reason: ExitReason::VolumeFailed, message })
        }
    }
}
