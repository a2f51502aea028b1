//! Arguments → telemetry → one subcommand → exit.

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use contract::exit::{ExitReason, ExitReport};
use runtime::{command, exit};
use tracing_subscriber::EnvFilter;

/// The thread pools of libraries: ours is the only one that computes, and theirs ignore the cgroup.
const LIBRARY_THREADS: [&str; 2] = ["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS"];

/// Threads for work that takes long, such as encoding prompts and hashing files: it waits for its turn.
const BLOCKING_THREADS: usize = 2;

/// Serves language models, and brings their weights to where they are served.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Format of the log on standard error.
    #[arg(long, global = true, env = "LLMFLEET_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    Bench(Box<command::bench::Args>),
    Fetch(command::fetch::Args),
    Inspect(command::inspect::Args),
    Pack(command::pack::Args),
    Selftest(command::selftest::Args),
    Serve(Box<runtime::config::Args>),
}

fn main() -> ExitCode {
    // SAFETY: nothing has started a thread yet, so nobody reads the environment meanwhile.
    unsafe {
        for name in LIBRARY_THREADS {
            std::env::set_var(name, "1");
        }
    }
    let args = Args::parse();
    start_log(args.log_format);
    exit::report_panics();
    // The only error is that a provider is installed already, which this process does nowhere else.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(&args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(report) => {
            exit::last_words(&report);
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<(), ExitReport> {
    // One worker: the kernels' own threads do the work, and this one only moves bytes.
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).max_blocking_threads(BLOCKING_THREADS).enable_all().build();
    let runtime = runtime.map_err(|e| exit::report(ExitReason::Internal, &e))?;
    let result = runtime.block_on(async {
        match command {
            Command::Bench(args) => command::bench::run(args).await,
            Command::Fetch(args) => command::fetch::run(args).await,
            Command::Inspect(args) => command::inspect::run(args).await,
            Command::Pack(args) => command::pack::run(args).await,
            Command::Selftest(args) => command::selftest::run(args),
            Command::Serve(args) => command::serve::run(args).await,
        }
    });
    // Blocking work that is still under way has been abandoned on purpose.
    runtime.shutdown_background();
    result
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
