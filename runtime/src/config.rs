//! What a serving process is told: the revision's configuration, or flags for use without Kubernetes, and what the
//! booking says.
//!
//! In: arguments, which may come from the environment, and the configuration's JSON. Out: [`Settings`]. Pure.

pub mod server;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use contract::bytes::Bytes;
use contract::config::{
    CONFIG_VERSION, ConfigError, DEFAULT_DRAIN_SECONDS, DEFAULT_QUEUE, DEFAULT_QUEUE_TOKENS, ENV_BUDGET,
    ENV_CONCURRENCY, ENV_SIMULATED_DEVICE, RuntimeConfig,
};
use contract::device::DeviceClass;
use contract::dtype::KvDType;
use contract::http::{ADMIN_PORT, API_PORT};

use crate::dialect::{ReasoningParser, Said, ToolParser};
use server::ServerArgs;

/// Sequences in flight where nobody says.
const DEFAULT_CONCURRENCY: u32 = 4;

/// Arguments of `serve`.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Configuration of a revision, as the operator writes it.
    #[arg(long, value_name = "FILE", required_unless_present = "model")]
    pub config: Option<PathBuf>,
    /// A .gguf file, or a folder with one checkpoint in it.
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    model: Option<PathBuf>,
    /// Name that clients ask for; the file's own if not given. Given again, names that it has too.
    #[arg(long, conflicts_with = "config")]
    served_name: Vec<String>,
    /// Tokens that one sequence may have; the model's own if not given.
    #[arg(long, conflicts_with = "config", value_parser = crate::command::positive::<u32>)]
    context_length: Option<u32>,
    /// Element type of the cache: F32 or F16.
    #[arg(long, conflicts_with = "config", value_parser = crate::command::kv_dtype)]
    kv_dtype: Option<KvDType>,
    /// Sequences in flight.
    #[arg(long, env = ENV_CONCURRENCY, default_value_t = DEFAULT_CONCURRENCY,
          value_parser = crate::command::positive::<u32>)]
    concurrency: u32,
    /// Most bytes that this process may take, for example 4Gi.
    #[arg(long, env = ENV_BUDGET)]
    budget: Option<Bytes>,
    /// Bytes of the simulated device, for tests of what places models.
    #[arg(long, env = ENV_SIMULATED_DEVICE, hide = true)]
    simulated_device: Option<Bytes>,
    /// Address to listen on; all of them with --config, else only this machine.
    #[arg(long)]
    host: Option<IpAddr>,
    /// Port of the API.
    #[arg(long, default_value_t = API_PORT)]
    port: u16,
    /// Port of health, progress and metrics.
    #[arg(long, default_value_t = ADMIN_PORT)]
    admin_port: u16,
    /// Threads that compute; as many as this process may use if not given.
    #[arg(long, value_parser = crate::command::positive::<usize>)]
    threads: Option<usize>,
    /// How the model writes calls of tools, by the name of vLLM's parser, or none; its template shows it if not given.
    #[arg(long, value_name = "NAME")]
    tool_parser: Option<ToolParser>,
    /// Whether the model reasons between <think> and </think>, by the name of vLLM's parser, or none; its template
    /// shows it if not given.
    #[arg(long, value_name = "NAME")]
    reasoning_parser: Option<ReasoningParser>,
    /// File with the token that POST /drain must carry; without it, only SIGTERM drains.
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Who may use the API, and how.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// What a serving process does.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Everything that changes the answer or the memory.
    pub config: RuntimeConfig,
    /// Names that the model has beside its own.
    pub aliases: Vec<String>,
    /// Sequences in flight.
    pub concurrency: u32,
    /// Requests that may wait.
    pub queue: u32,
    /// Tokens of their prompts.
    pub queue_tokens: u32,
    /// Most bytes that this process may take.
    pub budget: Option<Bytes>,
    /// Bytes of the simulated device.
    pub simulated: Option<Bytes>,
    /// Address to listen on; absent: all.
    pub host: Option<IpAddr>,
    /// Port of the API.
    pub port: u16,
    /// Port of health, progress and metrics.
    pub admin_port: u16,
    /// Threads that compute; absent: as many as this process may use.
    pub threads: Option<usize>,
    /// Who may use the API, and how.
    pub server: ServerArgs,
    /// What was said about how the model writes.
    pub dialect: Said,
    /// Whether others must first learn that this process is going away.
    pub managed: bool,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The configuration itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Neither a configuration nor a model.
    #[error("either --config or --model must be given")]
    Nothing,
    /// A path that is no text.
    #[error("the path {0:?} is not UTF-8")]
    Path(PathBuf),
    /// A device that this program cannot use.
    #[error("this program has no CUDA; the class Nvidia needs an image that has")]
    Device,
}

impl Settings {
    /// Settings from arguments and, if they name one, the content of the configuration.
    pub fn new(args: &Args, config: Option<&str>) -> Result<Self, SettingsError> {
        let managed = config.is_some();
        let config = match (config, &args.model) {
            (Some(json), _) => RuntimeConfig::from_json(json)?,
            (None, Some(model)) => from_flags(args, model)?,
            (None, None) => return Err(SettingsError::Nothing),
        };
        if config.device == DeviceClass::Nvidia && args.simulated_device.is_none() {
            return Err(SettingsError::Device);
        }
        Ok(Self {
            config,
            aliases: args.served_name.iter().skip(1).cloned().collect(),
            concurrency: args.concurrency,
            queue: DEFAULT_QUEUE,
            queue_tokens: DEFAULT_QUEUE_TOKENS,
            budget: args.budget,
            simulated: args.simulated_device,
            host: args.host.or((!managed).then_some(IpAddr::V4(Ipv4Addr::LOCALHOST))),
            port: args.port,
            admin_port: args.admin_port,
            threads: args.threads,
            server: args.server.clone(),
            dialect: Said { tools: args.tool_parser, reasoning: args.reasoning_parser },
            managed,
        })
    }
}

fn from_flags(args: &Args, model: &Path) -> Result<RuntimeConfig, SettingsError> {
    let path = |p: &Path| p.to_str().map(str::to_owned).ok_or_else(|| SettingsError::Path(p.to_owned()));
    let stem = model.file_stem().unwrap_or(model.as_os_str());
    let served_name = match args.served_name.first() {
        Some(name) => name.clone(),
        None => path(Path::new(stem))?,
    };
    let device = if args.simulated_device.is_some() { DeviceClass::Nvidia } else { DeviceClass::Cpu };
    Ok(RuntimeConfig {
        version: CONFIG_VERSION,
        served_name,
        model_path: path(model)?,
        digest: None,
        device,
        context_length: args.context_length,
        kv_dtype: args.kv_dtype.unwrap_or_default(),
        drain_seconds: DEFAULT_DRAIN_SECONDS,
    })
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

    fn settings(args: &[&str], config: Option<&str>) -> Result<Settings, String> {
        let args = std::iter::once(&"serve").chain(args);
        let args = Program::try_parse_from(args).map_err(|e| e.to_string())?.args;
        Settings::new(&args, config).map_err(|e| crate::exit::chain(&e))
    }

    #[test]
    fn flags_are_enough_without_kubernetes() {
        let s = settings(&["--model", "/models/tiny.gguf", "--budget", "4Gi", "--kv-dtype", "f16"], None)
            .unwrap();
        assert_eq!((s.config.served_name.as_str(), s.config.kv_dtype), ("tiny", KvDType::F16));
        assert_eq!((s.budget, s.concurrency), (Some(Bytes(4 << 30)), DEFAULT_CONCURRENCY));
        assert!(s.host.is_some_and(|h| h.is_loopback()) && !s.managed);
    }

    #[test]
    fn the_first_name_is_the_models_and_others_are_aliases() {
        let s = settings(&["--model", "m", "--served-name", "a", "--served-name", "b"], None).unwrap();
        assert_eq!((s.config.served_name.as_str(), s.aliases), ("a", vec!["b".to_owned()]));
        assert!(settings(&["--model", "m", "--tls-cert", "c"], None).is_err(), "a certificate needs its key");
        assert!(settings(&["--model", "m", "--max-connections", "0"], None).is_err());
    }

    #[test]
    fn a_revision_says_everything_but_what_its_booking_says() {
        let json = settings(&["--model", "/models"], None).unwrap().config.to_json();
        let s = settings(&["--config", "x", "--concurrency", "9"], Some(&json)).unwrap();
        assert_eq!((s.config.model_path.as_str(), s.concurrency, s.host), ("/models", 9, None));
        assert!(settings(&["--config", "x", "--context-length", "9"], Some(&json)).is_err());
        let nvidia = json.replace("\"CPU\"", "\"Nvidia\"");
        assert!(settings(&["--config", "x"], Some(&nvidia)).unwrap_err().contains("no CUDA"));
        assert!(settings(&["--config", "x", "--simulated-device", "24Gi"], Some(&nvidia)).is_ok());
        assert!(
            settings(&["--config", "x"], Some("{}")).unwrap_err().starts_with("the runtime configuration")
        );
        assert!(
            settings(&[], None).is_err() && settings(&["--model", "m", "--concurrency", "0"], None).is_err()
        );
    }
}
