//! Finds, asks and ends a lab's supervisor from outside.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::Pid;

use super::protocol::{Order, Process, ProcessState, Reply, Spec};
use crate::paths::LabPaths;
use crate::process::{last_lines, wait_for};

/// The hidden subcommand that makes the namespaces and starts the supervisor in them.
pub const ENTER: &str = "init";
/// The hidden subcommand that is the supervisor.
pub const INSIDE: &str = "supervise";

/// A running supervisor.
#[derive(Clone, Debug)]
pub struct Supervisor {
    socket: PathBuf,
    /// Its process id as this process sees it.
    pid: Pid,
}

impl Supervisor {
    /// The supervisor of this lab, if it runs. Its socket cannot lie: nobody listens on what a dead one left.
    pub fn find(paths: &LabPaths) -> Option<Self> {
        let socket = paths.supervisor_socket();
        let connection = UnixStream::connect(&socket).ok()?;
        let peer = getsockopt(&connection, sockopt::PeerCredentials).ok()?;
        // The supervisor serves one connection at a time, and the next lines open another.
        drop(connection);
        let found = Self { socket, pid: Pid::from_raw(peer.pid()) };
        found.processes().is_ok().then_some(found)
    }

    /// Starts one. `lab` is the program `lab`.
    pub async fn start(paths: &LabPaths, lab: &Path) -> Result<Self> {
        fs::create_dir_all(paths.join("log"))?;
        let log = paths.log("supervisor");
        let output = fs::File::options().create(true).append(true).open(&log)?;
        let status = Command::new(lab)
            .arg(ENTER)
            .arg(paths.root())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .status()?;
        ensure!(status.success(), "the lab's supervisor could not be started\n{}", last_lines(&log));
        wait_for("the lab's supervisor", Duration::from_secs(10), async || {
            Self::find(paths).with_context(|| last_lines(&log))
        })
        .await
    }

    /// Starts a process unless it runs.
    pub fn launch(&self, spec: Spec) -> Result<()> {
        self.order(&Order::Start(spec)).map(drop)
    }

    /// Sends a signal to a process of the lab.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        self.order(&Order::Stop { name: name.to_owned(), signal: signal as i32 }).map(drop)
    }

    /// All processes started so far.
    pub fn processes(&self) -> Result<Vec<Process>> {
        match self.order(&Order::Status)? {
            Reply::Processes(processes) => Ok(processes),
            other => bail!("the supervisor answered {other:?}"),
        }
    }

    /// Fails, with the end of its log, if the process `name` does not run.
    pub fn check(&self, paths: &LabPaths, name: &str) -> Result<()> {
        let processes = self.processes()?;
        match processes.iter().find(|process| process.name == name).map(|process| &process.state) {
            Some(ProcessState::Running) => Ok(()),
            Some(ProcessState::Ended(how)) => {
                bail!("{name} ended with {how}\n{}", last_lines(&paths.log(name)))
            }
            None => bail!("{name} was not started"),
        }
    }

    /// A file that stands for the lab's network, for `setns` and `nsenter --net`.
    pub fn network(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.pid))
    }

    /// The process whose namespaces are the lab's, as this process sees it.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    fn order(&self, order: &Order) -> Result<Reply> {
        let connection = UnixStream::connect(&self.socket).context("the lab's supervisor has ended")?;
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        (&connection).write_all(&line)?;
        let mut answer = String::new();
        BufReader::new(&connection).read_line(&mut answer)?;
        match serde_json::from_str(&answer).context("the supervisor's answer")? {
            Reply::Refused(why) => bail!(why),
            reply => Ok(reply),
        }
    }
}

/// Kills every supervisor of this lab, also one that is still starting, and waits until the kernel has ended all that
/// descended from it.
pub async fn kill_all(paths: &LabPaths) -> Result<()> {
    let mut killed = BTreeSet::new();
    wait_for("the lab's processes to end", Duration::from_secs(30), async || {
        for pid in supervisors(paths)? {
            // It may have ended since it was seen.
            let _ = kill(pid, Signal::SIGKILL);
            killed.insert(pid);
        }
        // The init of a PID namespace becomes a zombie, or is gone, only after all others in it are.
        killed.retain(|pid| lives(*pid));
        ensure!(killed.is_empty(), "the kernel has not ended {killed:?} yet");
        Ok(())
    })
    .await
}

fn supervisors(paths: &LabPaths) -> Result<Vec<Pid>> {
    let folder = paths.root().to_string_lossy().into_owned();
    let lines = [ENTER, INSIDE].map(|subcommand| [subcommand.to_owned(), folder.clone()]);
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that ends meanwhile has no command line any more.
        let command_line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if lines.iter().any(|arguments| is_called_with(&command_line, arguments)) {
            found.push(Pid::from_raw(pid));
        }
    }
    Ok(found)
}

fn lives(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name stands in parentheses and may itself contain some; the state is the word after the last.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// Whether a `/proc/<pid>/cmdline` is some program with exactly these arguments.
fn is_called_with(command_line: &[u8], arguments: &[String]) -> bool {
    let words = command_line.split(|&byte| byte == 0).skip(1).take_while(|word| !word.is_empty());
    words.eq(arguments.iter().map(String::as_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_arguments_are_taken_for_the_supervisor_of_a_lab() {
        let arguments = [ENTER.to_owned(), "/c/labs/a".to_owned()];
        assert!(is_called_with(b"/bin/lab\0init\0/c/labs/a\0", &arguments));
        assert!(!is_called_with(b"/bin/lab\0init\0/c/labs/ab\0", &arguments));
        assert!(!is_called_with(b"grep\0-r\0init\0/c/labs/a\0", &arguments));
        assert!(!is_called_with(b"", &arguments));
    }
}
