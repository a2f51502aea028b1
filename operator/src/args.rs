//! What the command line and the environment say.
//!
//! In: arguments. Out: [`Command`]. It must not know what the settings do.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::security::Identity;

/// Places models on a cluster, provisions their weights, runs and rolls them out.
#[derive(Debug, Parser)]
#[command(name = "llm-fleet-operator", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watches LlmDeployment and LlmModel objects and brings the cluster to what they ask for.
    Run(Box<RunArgs>),
    /// Writes the custom resource definitions, one file each.
    Crd {
        /// Folder to write to.
        #[arg(long, default_value = "crds")]
        output_dir: PathBuf,
    },
    /// Asks an operator whether it is ready, for up to half a minute.
    Check {
        /// Where it says whether it is ready, through its service.
        url: axum::http::Uri,
    },
    /// Takes the operator's finalizer off all models: for when there will be no operator to do so.
    Release {
        /// Namespace of the models; repeatable. Without any, those of all namespaces.
        #[arg(long = "watch-namespace", value_delimiter = ',')]
        watch_namespaces: Vec<String>,
    },
}

/// How `run` behaves.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// What the objects that the operator makes are made of.
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Namespace to watch; repeatable. Without any, all namespaces are watched.
    #[arg(long = "watch-namespace", env = "LLMFLEET_WATCH_NAMESPACE", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Namespace of the leader election lease; by default the pod's own.
    #[arg(long, env = "LLMFLEET_LEADER_ELECTION_NAMESPACE")]
    pub leader_election_namespace: Option<String>,
    /// Name of the leader election lease.
    #[arg(long, env = "LLMFLEET_LEADER_ELECTION_ID", default_value = "llm-fleet-operator")]
    pub leader_election_id: String,
    /// Name of this process in the lease and in events; by default the pod's name.
    #[arg(long, env = "LLMFLEET_IDENTITY")]
    pub identity: Option<String>,
    /// Name of this pod, from the downward API.
    #[arg(long, env = "POD_NAME", hide = true)]
    pub pod_name: Option<String>,
    /// Namespace of this pod, from the downward API.
    #[arg(long, env = "POD_NAMESPACE", hide = true)]
    pub pod_namespace: Option<String>,
    /// Port of /healthz, /readyz and /metrics.
    #[arg(long, env = "LLMFLEET_ADMIN_PORT", default_value_t = contract::http::ADMIN_PORT)]
    pub admin_port: u16,
    /// Address to listen on.
    #[arg(long, env = "LLMFLEET_ADMIN_HOST", default_value = "0.0.0.0")]
    pub admin_host: std::net::IpAddr,
    /// How log lines look. RUST_LOG says which there are.
    #[arg(long, env = "LLMFLEET_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// What pods and jobs are made of.
#[derive(Clone, Debug, Args)]
pub struct RuntimeArgs {
    /// Image reference of the runtime for nodes without cards: serving pods of class CPU, jobs that fetch models, and
    /// simulated cards.
    #[arg(long, env = "LLMFLEET_RUNTIME_IMAGE")]
    pub runtime_image: String,
    /// Image reference of the runtime for cards: serving pods of class Nvidia. Without it, the other image is for both.
    #[arg(long, env = "LLMFLEET_RUNTIME_CUDA_IMAGE")]
    pub runtime_cuda_image: Option<String>,
    /// When kubelets pull these images.
    #[arg(long, env = "LLMFLEET_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pub image_pull_policy: String,
    /// Name of a pull secret in the namespace of the pods; repeatable.
    #[arg(long = "image-pull-secret", env = "LLMFLEET_IMAGE_PULL_SECRET", value_delimiter = ',')]
    pub image_pull_secrets: Vec<String>,
    /// Who names the user of pods and jobs. What runs already stays as it is.
    #[arg(long, env = "LLMFLEET_POD_IDENTITY", value_enum, default_value_t)]
    pub pod_identity: Identity,
    /// Leaves out the annotations by which Prometheus finds the runtimes: for clusters where a PodMonitor names them.
    #[arg(long, env = "LLMFLEET_NO_SCRAPE_ANNOTATIONS")]
    pub no_scrape_annotations: bool,
    /// Runs the CPU image with a simulated device where a GPU was asked for. For tests only.
    #[arg(long, env = "LLMFLEET_ALLOW_SIMULATED_DEVICES")]
    pub allow_simulated_devices: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> RunArgs {
        let all = [&["llm-fleet-operator", "run", "--runtime-image", "runtime:1"], arguments].concat();
        match Cli::try_parse_from(all).unwrap().command {
            Command::Run(args) => *args,
            _ => panic!("not the command that was given"),
        }
    }

    #[test]
    fn lists_repeat_and_take_commas() {
        let args = run(&["--watch-namespace", "a,b", "--watch-namespace", "c"]);
        assert_eq!(args.watch_namespaces, ["a", "b", "c"]);
        assert!(run(&[]).watch_namespaces.is_empty() && run(&[]).runtime.image_pull_secrets.is_empty());
    }

    #[test]
    fn defaults_are_the_contract() {
        let args = run(&[]);
        assert_eq!(args.admin_port, contract::http::ADMIN_PORT);
        assert_eq!(args.runtime.image_pull_policy, "IfNotPresent");
        assert_eq!(args.runtime.pod_identity, Identity::Fixed);
        assert_eq!(run(&["--pod-identity", "assigned"]).runtime.pod_identity, Identity::Assigned);
        assert!(!args.runtime.allow_simulated_devices && !args.runtime.no_scrape_annotations);
    }
}
