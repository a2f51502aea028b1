//! `lab`: a real Kubernetes for development and tests, on this machine, without touching its network.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use e2e::paths::Cache;
use e2e::tools::Tools;

#[derive(Parser)]
#[command(name = "lab", about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build all tools and keep them in the cache.
    Tools,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Tools => Tools::locate(&Cache::from_env()?)?.ensure_all().await,
    }
}
