//! Flags of the API's listener: who may use it, under which limits.

use std::path::PathBuf;

/// Connections at once where nobody says: many more than requests that may run and wait.
const DEFAULT_CONNECTIONS: usize = 1024;

/// Arguments about the API's listener.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct ServerArgs {
    /// File with the keys of clients, one a line, each as it is or as `sha256:` and its digest in hexadecimal digits.
    /// It is read again when it changes. Without it, everybody is served.
    #[arg(long, value_name = "FILE")]
    pub api_keys_file: Option<PathBuf>,
    /// Certificate chain of the API, in PEM; read again when it changes.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Key of that certificate, in PEM; read again when it changes.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Origin whose pages may use the API from a browser, or `*` for all; may be given again.
    #[arg(long, value_name = "ORIGIN")]
    pub cors_origin: Vec<String>,
    /// Connections to the API at once; where there are more, the one that has been idle longest is closed.
    #[arg(long, default_value_t = DEFAULT_CONNECTIONS, value_parser = crate::command::positive::<usize>)]
    pub max_connections: usize,
    /// Seconds after which a request that is not answered to the end is given up; without it, none is.
    #[arg(long, value_parser = crate::command::positive::<u32>)]
    pub max_request_seconds: Option<u32>,
}
