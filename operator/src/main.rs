//! `llm-fleet-operator`: arguments in, one of its commands out.

use std::future::Future;

use anyhow::Context;
use clap::Parser;
use operator::args::{Cli, Command};
use operator::{check, crd, release, run, telemetry};

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Crd { output_dir } => crd::write(&output_dir).context("cannot write the definitions"),
        Command::Check { url } => on_threads(check::check(&url)),
        Command::Release { watch_namespaces } => on_threads(release::release(&watch_namespaces)),
        Command::Run(args) => {
            telemetry::init(args.log_format).context("cannot start logging")?;
            on_threads(run::run(*args))
        }
    }
}

fn on_threads(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start threads")?.block_on(work)
}
