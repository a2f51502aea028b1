//! The first process of a lab, which all others descend from.
//!
//! It is the init of a PID namespace and holds mount and network namespaces. So when it ends, in whatever way, the
//! kernel ends every process of the lab, container shims and pods included, and with the last of them go all mounts,
//! links, routes and packet filter rules. That is what makes "leaves nothing behind" hold without a list to clean up.
//!
//! In: orders on a socket (start, stop, status). It starts what it is told and reaps; it does not restart anything and
//! does not know what a Kubernetes is.

pub mod client;
pub mod namespaces;
pub mod protocol;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::fd::AsFd;

use namespaces::Namespaces;
use protocol::{Network, Order, Process, ProcessState, Reply, Spec};

/// Nobody may hold up the supervisor by connecting and saying nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Becomes the supervisor of the lab in `folder`; `socket` is where it takes orders.
/// To be called by a program's only thread, which is the first of a new PID namespace.
pub fn run(folder: &Path, socket: &Path) -> Result<()> {
    let namespaces = namespaces::enter(folder)?;
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block()?;
    let ended = SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    match fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let orders =
        UnixListener::bind(socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    let mut supervisor = Supervisor { namespaces, processes: BTreeMap::new() };
    loop {
        let mut ready =
            [PollFd::new(orders.as_fd(), PollFlags::POLLIN), PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let order_waits = ready[0].any().unwrap_or(false);
        while ended.read_signal()?.is_some() {}
        supervisor.reap();
        if order_waits {
            let (connection, _) = orders.accept()?;
            // A client that went away in between is its own loss.
            if let Err(error) = supervisor.serve(&connection) {
                eprintln!("an order failed: {error:#}");
            }
        }
    }
}

struct Supervisor {
    namespaces: Namespaces,
    processes: BTreeMap<String, (Pid, ProcessState)>,
}

impl Supervisor {
    fn serve(&mut self, connection: &UnixStream) -> Result<()> {
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_write_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::new(connection).read_line(&mut line)?;
        if line.is_empty() {
            // Someone only wanted to know who listens.
            return Ok(());
        }
        let reply = match serde_json::from_str(&line) {
            Ok(order) => self.obey(order).unwrap_or_else(|error| Reply::Refused(format!("{error:#}"))),
            Err(error) => Reply::Refused(format!("not an order: {error}")),
        };
        let mut answer = serde_json::to_vec(&reply)?;
        answer.push(b'\n');
        { connection }.write_all(&answer)?;
        Ok(())
    }

    fn obey(&mut self, order: Order) -> Result<Reply> {
        match order {
            Order::Start(spec) => {
                if !matches!(self.processes.get(&spec.name), Some((_, ProcessState::Running))) {
                    let pid = self.start(&spec)?;
                    self.processes.insert(spec.name, (pid, ProcessState::Running));
                }
                Ok(Reply::Done)
            }
            Order::Stop { name, signal } => {
                if let Some((pid, ProcessState::Running)) = self.processes.get(&name) {
                    kill(*pid, Signal::try_from(signal)?)?;
                }
                Ok(Reply::Done)
            }
            Order::Status => Ok(Reply::Processes(self.processes.iter().map(describe).collect())),
        }
    }

    fn start(&self, spec: &Spec) -> Result<Pid> {
        let output = File::options().create(true).append(true).open(&spec.log)?;
        let mut command = Command::new(&spec.program);
        command.args(&spec.arguments).env_clear().envs(&spec.environment);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // This is the only thread, so nothing else sees the other network.
        if spec.network == Network::Host {
            setns(&self.namespaces.host_network, CloneFlags::CLONE_NEWNET)?;
        }
        let child = command.spawn();
        if spec.network == Network::Host {
            setns(&self.namespaces.lab_network, CloneFlags::CLONE_NEWNET)?;
        }
        let child = child.with_context(|| format!("cannot start {}", spec.program.display()))?;
        Ok(Pid::from_raw(i32::try_from(child.id())?))
    }

    /// Takes note of every child that has ended, also of orphans that the lab's init inherits.
    fn reap(&mut self) {
        loop {
            let (pid, state) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => {
                    (pid, ProcessState::Ended(format!("exit status {code}")))
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, ProcessState::Ended(signal.to_string())),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            if let Some((_, known)) = self.processes.values_mut().find(|(known, _)| *known == pid) {
                *known = state;
            }
        }
    }
}

fn describe((name, (pid, state)): (&String, &(Pid, ProcessState))) -> Process {
    let proc = Path::new("/proc").join(pid.to_string());
    let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
    Process {
        name: name.clone(),
        pid: pid.as_raw(),
        state: state.clone(),
        resident_bytes: resident_bytes(&status),
    }
}

fn resident_bytes(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes_and_is_zero_for_what_has_ended() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"), 2 << 20);
        assert_eq!(resident_bytes(""), 0);
    }
}
