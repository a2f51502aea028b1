//! `inspect`: says what a checkpoint is and what it would take to serve it.

use std::path::PathBuf;

use contract::device::DeviceClass;
use contract::dtype::KvDType;
use contract::exit::{ExitReason, ExitReport};
use contract::inspect::Inspection;
use contract::memory::{Capacity, plan};
use serde_json::json;

use crate::checkpoint::Checkpoint;
use crate::command::{device_class, kv_dtype, positive, until_terminated};
use crate::exit;
use crate::inspect::{InspectError, inspect, table};
use crate::load::check;

/// Reads the headers of a checkpoint and hashes its files.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A .gguf file, or a folder with one checkpoint in it.
    path: PathBuf,
    /// Print JSON instead of a table.
    #[arg(long, conflicts_with = "line")]
    json: bool,
    /// Print the one line that the operator reads.
    #[arg(long)]
    line: bool,
    /// Tokens of one sequence in the memory plan; the model's own if not given.
    #[arg(long, value_parser = positive::<u32>)]
    context_length: Option<u32>,
    /// Sequences in flight in the memory plan.
    #[arg(long, default_value = "4", value_parser = positive::<u32>)]
    concurrency: u32,
    /// Element type of the cache in the memory plan: F32 or F16.
    #[arg(long, default_value = "F32", value_parser = kv_dtype)]
    kv_dtype: KvDType,
    /// Class of device in the memory plan: CPU or Nvidia.
    #[arg(long, default_value = "CPU", value_parser = device_class)]
    device: DeviceClass,
}

/// Runs it.
pub async fn run(args: &Args) -> Result<(), ExitReport> {
    let (path, line) = (args.path.clone(), args.line);
    let work = tokio::task::spawn_blocking(move || {
        // People may look at what cannot be served; the operator must not place it.
        let checkpoint = Checkpoint::open(&path).map_err(InspectError::from)?;
        if line {
            check(&checkpoint)?;
        }
        Ok(inspect(&checkpoint)?)
    });
    let work = async { work.await.expect("inspecting does not panic and is not aborted") };
    let Some(inspection) = until_terminated(work).await? else {
        let message = "the inspection was asked to stop before it was done".to_owned();
        return Err(ExitReport { reason: ExitReason::VolumeFailed, message });
    };
    print!("{}", args.text(&inspection)?);
    Ok(())
}

impl Args {
    fn text(&self, inspection: &Inspection) -> Result<String, ExitReport> {
        if self.line {
            return Ok(inspection.to_line().map_err(InspectError::from)? + "\n");
        }
        let capacity = Capacity {
            context_length: self.context_length.unwrap_or(inspection.geometry.context_length),
            concurrency: self.concurrency,
            kv_dtype: self.kv_dtype,
        };
        if !self.json {
            return Ok(table(inspection, capacity, self.device));
        }
        let plan = plan(&inspection.geometry, &inspection.tensors, capacity, self.device);
        let plan = plan.map_err(|e| exit::report(ExitReason::ModelUnsupported, &e))?;
        Ok(format!("{:#}\n", json!({ "inspection": inspection, "capacity": capacity, "memory": plan })))
    }
}
