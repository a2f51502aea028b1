//! What is said on the supervisor's socket: one JSON line each way. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What to do.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Order {
    /// Start a process, unless one of that name runs.
    Start(Spec),
    /// Send a signal to the process of that name, if it runs.
    Stop {
        /// Its name.
        name: String,
        /// The signal's number.
        signal: i32,
    },
    /// Tell of every process that was ever started.
    Status,
}

/// The answer.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// It could not be done, and why.
    Refused(String),
    /// The processes, by name.
    Processes(Vec<Process>),
}

/// A process to start.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Spec {
    /// By which it is known; its log too.
    pub name: String,
    /// The program's path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// All of its environment.
    pub environment: BTreeMap<String, String>,
    /// Where its output is appended.
    pub log: PathBuf,
    /// In which network it runs.
    pub network: Network,
}

/// A network.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Network {
    /// The lab's own.
    Lab,
    /// The machine's: for forwarders, which must listen there.
    Host,
}

/// A process that was started.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Process {
    /// Its name.
    pub name: String,
    /// Its id in the lab's namespace.
    pub pid: i32,
    /// Whether it runs.
    pub state: ProcessState,
    /// Memory in RAM.
    pub resident_bytes: u64,
}

/// Whether a process runs.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ProcessState {
    /// It does.
    Running,
    /// It has ended, and how.
    Ended(String),
}
