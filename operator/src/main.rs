//! `llm-fleet-operator`: arguments in, `run` or `crd` out.

use anyhow::Context;
use clap::Parser;
use operator::args::{Cli, Command};
use operator::{crd, run, telemetry};

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Crd { output_dir } => crd::write(&output_dir).context("cannot write the definitions"),
        Command::Run(args) => {
            telemetry::init(args.log_format).context("cannot start logging")?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            runtime.context("cannot start threads")?.block_on(run::run(*args))
        }
    }
}
