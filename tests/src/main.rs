//! `lab`: a real Kubernetes for development and tests, on this machine, without touching its network.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use e2e::faults::report;
use e2e::forward::Forward;
use e2e::lab::settings::Card;
use e2e::lab::up::Options;
use e2e::lab::{DEFAULT_NAME, Lab, down, status, up};
use e2e::paths::{Cache, LabPaths};
use e2e::tools::Tools;
use e2e::{demo, discovery, provisioner, supervisor};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::setsid;

#[derive(Parser)]
#[command(name = "lab", about, max_term_width = 100)]
struct Arguments {
    /// Which lab: several can run side by side.
    #[arg(long, global = true, default_value = DEFAULT_NAME)]
    name: String,
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Build all tools, or those named, and keep them in the cache; prints the paths of those named.
    Tools {
        /// Names such as `helm`.
        names: Vec<String>,
    },
    /// From nothing to a model that answers.
    #[command(after_help = demo::wishes::HELP)]
    Demo {
        /// Only say what is wanting for it.
        #[arg(long, conflicts_with = "down")]
        check: bool,
        /// Remove what it made, and nothing else.
        #[arg(long)]
        down: bool,
    },
    /// Join what the fault tests found into one report, and fail if it is not as it must be.
    Faults {
        /// Only remove what was found before.
        #[arg(long)]
        forget: bool,
    },
    /// Start the lab, or heal it, or check that it runs.
    Up(Choices),
    /// Stop the lab and remove everything of it.
    Down,
    /// Show the lab's processes and the ways in.
    Status,
    /// Import docker-archives into the node.
    LoadImage {
        /// Files as `buildah push IMAGE docker-archive:FILE:NAME` writes them.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print the path of the administrator's kubeconfig.
    Kubeconfig,
    /// Run a command in the lab's network, with its kubeconfig and tools.
    Exec {
        /// The command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// Forward a port of this machine's loopback into the lab until interrupted.
    Forward {
        /// ADDRESS:PORT or NAMESPACE/SERVICE:PORT.
        #[arg(long)]
        to: String,
        /// Where to listen; port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    #[command(name = supervisor::client::ENTER, hide = true)]
    Enter { folder: PathBuf },
    #[command(name = supervisor::client::INSIDE, hide = true)]
    Supervise { folder: PathBuf },
    #[command(name = up::FORWARDER, hide = true)]
    Forwarder { pairs: Vec<String> },
    #[command(name = provisioner::NAME, hide = true)]
    Provisioner { kubeconfig: PathBuf, folder: PathBuf },
    #[command(name = discovery::NAME, hide = true)]
    Discovery { kubeconfig: PathBuf, file: PathBuf },
}

#[derive(Args)]
struct Choices {
    /// The card to simulate, as GPU feature discovery names it [default: NVIDIA-L4].
    #[arg(long, requires = "gpu_memory_mib")]
    gpu_product: Option<String>,
    /// Memory of one card [default: 23034].
    #[arg(long)]
    gpu_memory_mib: Option<u32>,
    /// How many cards [default: 2].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    gpu_count: Option<u32>,
}

/// The first two subcommands need a program with one thread; so the runtime is made only after them.
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Subcommands::Enter { folder } => enter(folder),
        Subcommands::Supervise { folder } => supervise(folder),
        _ => run(arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Makes the PID namespace, whose first process is the next child, and leaves that child to itself.
fn enter(folder: &Path) -> Result<ExitCode> {
    unshare(CloneFlags::CLONE_NEWPID).context("cannot make a PID namespace: not root?")?;
    Command::new(std::env::current_exe()?)
        .arg(supervisor::client::INSIDE)
        .arg(folder)
        .stdin(Stdio::null())
        .spawn()?;
    Ok(ExitCode::SUCCESS)
}

fn supervise(folder: &Path) -> Result<ExitCode> {
    setsid()?;
    supervisor::run(folder, &folder.join(LabPaths::SUPERVISOR_SOCKET))?;
    Ok(ExitCode::SUCCESS)
}

#[tokio::main(flavor = "current_thread")]
async fn run(arguments: Arguments) -> Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "info,kube_client=off".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let name = &arguments.name;
    match arguments.command {
        Subcommands::Tools { names } => build_tools(&names).await?,
        Subcommands::Up(choices) => {
            let lab = up::up(&options(name, choices)?).await?;
            println!("\n{}", status::describe(&lab)?);
            println!("export KUBECONFIG={}", lab.kubeconfig().display());
        }
        Subcommands::Demo { check: true, .. } => demo::check(&std::env::current_exe()?)?,
        Subcommands::Demo { down: true, .. } => demo::remove().await?,
        Subcommands::Demo { .. } => demo::run(std::env::current_exe()?).await?,
        Subcommands::Faults { forget: true } => report::forget()?,
        Subcommands::Faults { forget: false } => report::gather()?,
        Subcommands::Down => down::down(&Cache::from_env()?.lab(name)?).await?,
        Subcommands::Status => print!("{}", status::describe(&Lab::open(name)?)?),
        Subcommands::LoadImage { files } => {
            let lab = Lab::open(name)?;
            for file in files {
                lab.load_image(&file)?;
                println!("{} is loaded", file.display());
            }
        }
        Subcommands::Kubeconfig => println!("{}", Lab::open(name)?.kubeconfig().display()),
        Subcommands::Exec { command } => {
            let (program, rest) = command.split_first().context("no command")?;
            // On success this program has become the other.
            return Err(Lab::open(name)?.command(program).args(rest).exec().into());
        }
        Subcommands::Forward { to, listen } => {
            let forward = Lab::open(name)?.forward(&to, listen).await?;
            println!("{} → {to}, until interrupted", forward.local());
            tokio::signal::ctrl_c().await?;
        }
        Subcommands::Forwarder { pairs } => {
            let _forwards = pairs.iter().map(|pair| standing(pair)).collect::<Result<Vec<_>>>()?;
            std::future::pending::<()>().await;
        }
        Subcommands::Provisioner { kubeconfig, folder } => provisioner::run(&kubeconfig, &folder).await?,
        Subcommands::Discovery { kubeconfig, file } => discovery::run(&kubeconfig, &file).await?,
        Subcommands::Enter { .. } | Subcommands::Supervise { .. } => bail!("handled before"),
    }
    Ok(ExitCode::SUCCESS)
}

async fn build_tools(names: &[String]) -> Result<()> {
    let tools = Tools::locate(&Cache::from_env()?)?;
    if names.is_empty() {
        return tools.ensure_all().await;
    }
    tools.ensure(&names.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    for name in names {
        println!("{}", tools.path(name).display());
    }
    Ok(())
}

fn options(name: &str, choices: Choices) -> Result<Options> {
    let Choices { gpu_product, gpu_memory_mib, gpu_count } = choices;
    let chosen = gpu_product.is_some() || gpu_memory_mib.is_some() || gpu_count.is_some();
    let usual = Card::default();
    let card = chosen.then(|| Card {
        product: gpu_product.unwrap_or(usual.product),
        memory_mib: gpu_memory_mib.unwrap_or(usual.memory_mib),
        count: gpu_count.unwrap_or(usual.count),
    });
    Ok(Options { name: name.to_owned(), card, program: std::env::current_exe()? })
}

/// `LISTEN=TARGET`, of a process whose first relative is the lab's supervisor.
fn standing(pair: &str) -> Result<Forward> {
    let (listen, target) = pair.split_once('=').context("not LISTEN=TARGET")?;
    Forward::start("/proc/1/ns/net".into(), listen.parse()?, target.parse()?)
}
