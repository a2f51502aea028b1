//! `bench`: loads a server and says how fast it answers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgGroup;
use contract::exit::{ExitReason, ExitReport};
use contract::http::API_PORT;
use serde_json::{Map, Value};

use crate::bench::client::{Endpoint, Target};
use crate::bench::plot::plot;
use crate::bench::statistics::{Goals, Summary};
use crate::bench::{Arrivals, Client, Load, Report, Run, Settings, measure};
use crate::command::{positive, until_terminated};
use crate::exit;

/// Loads a server that speaks OpenAI's protocol, and measures what its clients see.
///
/// Prompts and answers have fixed lengths in tokens, as the server counts them. In a closed loop (--concurrency), so
/// many clients send their next request when their last is answered; in an open one (--rate), requests come whether or
/// not others have been answered. Several numbers, separated by commas, are measured one after the other.
///
/// Times, in milliseconds: TTFT from sending a request to its first token; TPOT the mean time of each further token of
/// a request; ITL the gaps between the chunks of all requests; E2EL from sending to the last token. These are vLLM's definitions, but a
/// last chunk without text counts as no token.
#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("load").required(true)))]
pub struct Args {
    /// The server, without /v1.
    #[arg(long, default_value_t = format!("http://127.0.0.1:{API_PORT}"))]
    url: String,
    /// The model to ask for; the first that the server lists if not given.
    #[arg(long)]
    model: Option<String>,
    /// Key to send as a bearer token.
    #[arg(long, env = "LLMFLEET_BENCH_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Where to send requests.
    #[arg(long, value_enum, default_value = "completions")]
    endpoint: Endpoint,
    /// Clients at a time, each with one request (closed loop); several numbers for a sweep.
    #[arg(long, group = "load", value_delimiter = ',', value_parser = positive::<u32>, value_name = "N,...")]
    concurrency: Vec<u32>,
    /// Requests a second (open loop); several numbers for a sweep.
    #[arg(long, group = "load", value_delimiter = ',', value_parser = rate, value_name = "R,...")]
    rate: Vec<f64>,
    /// How the requests of an open loop are spread.
    #[arg(long, value_enum, default_value = "poisson")]
    arrivals: Arrivals,
    /// Tokens of each prompt.
    #[arg(long, default_value = "128", value_parser = positive::<u32>)]
    prompt_tokens: u32,
    /// Tokens at their beginning that all prompts share.
    #[arg(long, default_value = "0")]
    prefix_tokens: u32,
    /// Tokens of each answer; it does not end before, whatever the model says.
    #[arg(long, default_value = "128", value_parser = positive::<u32>)]
    output_tokens: u32,
    /// Requests of each load; if neither this nor --seconds is given, four for each client.
    #[arg(long, value_parser = positive::<u32>)]
    requests: Option<u32>,
    /// Stop sending after so many seconds of each load.
    #[arg(long, value_parser = rate)]
    seconds: Option<f64>,
    /// Hang up after --seconds on those that are under way; of these only the gaps between chunks count, with the one
    /// that is cut short.
    #[arg(long, requires = "seconds")]
    cut: bool,
    /// Most requests of an open loop that are under way at a time; those that are due then wait.
    #[arg(long, value_parser = positive::<u32>, value_name = "N", conflicts_with = "concurrency")]
    max_outstanding: Option<u32>,
    /// Requests before each load that do not count.
    #[arg(long, default_value = "2")]
    warmups: u32,
    /// What prompts and arrivals follow from.
    #[arg(long, default_value = "0")]
    seed: u64,
    /// What makes a request a good one, in milliseconds: ttft:500,tpot:50,e2el:9000.
    #[arg(long, value_parser = Goals::parse)]
    goodput: Option<Goals>,
    /// Fields to add to each request, as a JSON object.
    #[arg(long, value_name = "JSON", value_parser = object)]
    extra_body: Option<Map<String, Value>>,
    /// Longest that an answer may take, in seconds.
    #[arg(long, default_value = "600", value_parser = rate)]
    timeout: f64,
    /// Write all results there, as JSON.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Draw latency against load there, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// What the plot calls this server.
    #[arg(long, default_value = "this server", value_name = "NAME")]
    plot_name: String,
    /// Draw an earlier --output as well.
    #[arg(long, value_name = "NAME=FILE", value_parser = named_file, requires = "plot")]
    plot_with: Vec<(String, PathBuf)>,
}

/// Runs it.
pub async fn run(args: &Args) -> Result<(), ExitReport> {
    // What is wrong with files is found before minutes are spent.
    let others = args.plot_with.iter().map(|(name, path)| Ok((name.clone(), read(path)?)));
    let others = others.collect::<Result<Vec<_>, ExitReport>>()?;
    let work = async {
        let unavailable = |error| exit::report(ExitReason::SourceUnavailable, &error);
        let client = Client::connect(args.target()).await.map_err(unavailable)?;
        measure(&client, &args.settings()).await.map_err(unavailable)
    };
    let Some(report) = until_terminated(work).await? else {
        let message = "the measurement was asked to stop before it was done".to_owned();
        return Err(ExitReport { reason: ExitReason::Internal, message });
    };
    print!("{}", table(&report));
    if let Some(path) = &args.output {
        let json = serde_json::to_string_pretty(&report).expect("strings and numbers serialize");
        write(path, &(json + "\n"))?;
    }
    let unanswered = report.runs.iter().find(|run| run.completed == 0).map(|run| run.errors.clone());
    if let Some(path) = &args.plot {
        let this = (args.plot_name.clone(), report);
        write(path, &plot(&[vec![this], others].concat()))?;
    }
    match unanswered {
        Some(errors) => {
            let message = format!("under one of the loads no request was answered: {errors:?}");
            Err(ExitReport { reason: ExitReason::SourceUnavailable, message })
        }
        None => Ok(()),
    }
}

impl Args {
    fn target(&self) -> Target {
        Target {
            url: self.url.trim_end_matches('/').to_owned(),
            api_key: self.api_key.clone(),
            model: self.model.clone(),
            endpoint: self.endpoint,
            extra: self.extra_body.clone().unwrap_or_default(),
            timeout: Duration::from_secs_f64(self.timeout),
        }
    }

    fn settings(&self) -> Settings {
        let closed = self.concurrency.iter().map(|streams| Load::Closed { streams: *streams as usize });
        let open = self.rate.iter().map(|rate| Load::Open { rate: *rate, arrivals: self.arrivals });
        Settings {
            loads: closed.chain(open).collect(),
            prompt_tokens: self.prompt_tokens,
            prefix_tokens: self.prefix_tokens,
            output_tokens: self.output_tokens,
            requests: self.requests.map(|n| n as usize),
            limit: self.seconds.map(Duration::from_secs_f64),
            cut: self.cut,
            most_at_once: self.max_outstanding.map(|n| n as usize),
            warmups: self.warmups as usize,
            seed: self.seed,
            goals: self.goodput.unwrap_or_default(),
        }
    }
}

/// One line for each load.
fn table(report: &Report) -> String {
    let head = format!(
        "{:<28} {:>9} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
        "load",
        "answered",
        "failed",
        "tokens/s",
        "TTFT p50",
        "TTFT p99",
        "TPOT p50",
        "ITL p50",
        "ITL p99",
        "goodput"
    );
    let figure = |summary: Option<Summary>, of: fn(Summary) -> f64| {
        summary.map_or_else(|| "-".to_owned(), |summary| format!("{:.1}", of(summary)))
    };
    let line = |run: &Run| {
        format!(
            "{:<28} {:>9} {:>7} {:>9.1} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
            run.load.to_string(),
            run.completed,
            run.failed,
            run.output_throughput,
            figure(run.ttft_ms, |ttft| ttft.p50),
            figure(run.ttft_ms, |ttft| ttft.p99),
            figure(run.tpot_ms, |tpot| tpot.p50),
            figure(run.itl_ms, |itl| itl.p50),
            figure(run.itl_ms, |itl| itl.p99),
            run.goodput.map_or_else(|| "-".to_owned(), |goodput| format!("{goodput:.2}")),
        )
    };
    head + &report.runs.iter().map(line).collect::<String>()
}

fn read(path: &Path) -> Result<Report, ExitReport> {
    let refused = |why: String| ExitReport {
        reason: ExitReason::ConfigInvalid,
        message: format!("{} is not the output of a measurement: {why}", path.display()),
    };
    let text = fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| refused(error.to_string()))
}

fn write(path: &Path, text: &str) -> Result<(), ExitReport> {
    fs::write(path, text).map_err(|error| ExitReport {
        reason: ExitReason::VolumeFailed,
        message: format!("cannot write {}: {error}", path.display()),
    })
}

/// A number above zero, but not without end.
fn rate(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (1e-3..=1e6).contains(number));
    number.ok_or_else(|| "expected a number from 0.001 to 1000000".to_owned())
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("expected a JSON object: {error}"))
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or_else(|| "expected NAME=FILE".to_owned())?;
    Ok((name.to_owned(), file.into()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    fn settings(args: &[&str]) -> Result<Settings, String> {
        let args = std::iter::once(&"bench").chain(args);
        Program::try_parse_from(args)
            .map(|program| program.args.settings())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_is_a_sweep_and_one_kind_of_load_is_needed() {
        let closed = settings(&["--concurrency", "1,8", "--seconds", "2.5"]).unwrap();
        assert_eq!(closed.loads, [Load::Closed { streams: 1 }, Load::Closed { streams: 8 }]);
        assert_eq!((closed.limit, closed.requests), (Some(Duration::from_millis(2500)), None));
        let open = settings(&["--rate", "0.5", "--arrivals", "constant", "--goodput", "ttft:5"]).unwrap();
        assert_eq!(open.loads, [Load::Open { rate: 0.5, arrivals: Arrivals::Constant }]);
        assert_eq!(open.goals.ttft, Some(5.0));
        for bad in [&[][..], &["--rate", "1", "--concurrency", "1"], &["--rate", "0"], &["--rate", "nan"]] {
            assert!(settings(bad).is_err(), "{bad:?}");
        }
        assert!(settings(&["--rate", "1", "--extra-body", "[]"]).is_err());
    }
}
