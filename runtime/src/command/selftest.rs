//! `selftest`: shows whether the kernels of this machine compute what they should.

use std::time::Instant;

use contract::exit::ExitReport;
use kernels::Isa;

use crate::command::positive;
use crate::load::tested_kernels;

/// Runs the built-in model on every kernel set of this machine and compares its logits with the committed ones.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Threads that compute; as many as this process may use if not given.
    #[arg(long, value_parser = positive::<usize>)]
    threads: Option<usize>,
}

/// Runs it: one line for each kernel set, the fastest last. The first that is wrong ends it.
///
/// # Errors
/// Where a kernel set gives wrong numbers.
pub fn run(args: &Args) -> Result<(), ExitReport> {
    let threads = args.threads.unwrap_or_else(kernels::threads::available);
    for isa in Isa::available() {
        let began = Instant::now();
        tested_kernels(isa, threads)?;
        println!("{:<12} passed in {:.1} ms", isa.name(), began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(())
}
