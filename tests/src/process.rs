//! Child processes that end with this one, logs, and waiting for what a process does.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::prctl;
use nix::sys::signal::Signal;

/// Fails early, and with the reason, for whoever is not root.
pub fn ensure_root(why: &str) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "this takes root: {why}");
    Ok(())
}

/// Waits for the only lock on `file`. Not on this thread, which may be the one of whoever holds it.
pub async fn lock(file: File) -> Result<Flock<File>> {
    let locked = tokio::task::spawn_blocking(move || Flock::lock(file, FlockArg::LockExclusive));
    locked.await?.map_err(|(_, errno)| errno.into())
}

/// How much of a log is shown when its process fails.
const SHOWN_LINES: usize = 12;

/// A child that is killed when it is dropped, and by the kernel when this program ends in any other way.
#[derive(Debug)]
pub struct Bound {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Bound {
    /// Starts `command` with its output in `log`.
    pub fn spawn(name: &'static str, mut command: Command, log: PathBuf) -> Result<Self> {
        let output = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
        unsafe { command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from)) };
        let child = on_lasting_thread(command).with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, log })
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails, with the last lines of the log, if the process has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.exited() {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}\n{}", self.name, last_lines(&self.log)),
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Both fail only if the process has already gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A child's death signal comes when the thread that forked it ends, so one thread that never ends forks them all.
fn on_lasting_thread(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static THREAD: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let thread = THREAD.get_or_init(|| {
        let (orders, receiver) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in receiver {
                // The one who asked may have gone; then the child is dropped and stays bound to this program.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, child) = mpsc::channel();
    thread.send((command, answer)).expect("the thread ends with the program");
    child.recv().expect("the thread answers every order")
}

/// The last lines of a log and where the rest is, for an error.
pub fn last_lines(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
    format!("last lines of {}:\n    {}", log.display(), shown.join("\n    "))
}

/// Polls `attempt` until it is done. Its error is why it is not done yet, and becomes this one's after `limit`.
pub async fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(why) if started.elapsed() >= limit => {
                return Err(why.context(format!("gave up on {what} after {} s", limit.as_secs())));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Runs a program to its end; its standard output, or an error with its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let result =
        command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !result.status.success() {
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        bail!(
            "{} {} failed ({}): {}",
            command.get_program().display(),
            arguments.join(" "),
            result.status,
            String::from_utf8_lossy(&result.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_child_ends_with_its_handle_and_outlives_the_thread_that_asked_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("sleep.log");
        let mut command = Command::new("sleep");
        command.arg("60");
        let mut child =
            std::thread::spawn(move || Bound::spawn("sleep", command, log).unwrap()).join().unwrap();
        assert!(child.exited().is_none());
        let proc = PathBuf::from(format!("/proc/{}", child.pid()));
        drop(child);
        assert!(!proc.exists());
    }

    #[test]
    fn a_failed_child_is_reported_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such flag >&2; exit 3"]);
        let mut child = Bound::spawn("sh", command, folder.path().join("sh.log")).unwrap();
        child.child.wait().unwrap();
        let error = child.check().unwrap_err().to_string();
        assert!(error.contains("no such flag") && error.contains("sh.log"), "{error}");
    }

    #[tokio::test]
    async fn who_waits_for_a_lock_does_not_hold_up_the_thread_of_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = lock(File::create(&path).unwrap()).await.unwrap();
        let second = lock(File::create(&path).unwrap());
        let give_back = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        tokio::join!(second, give_back).0.unwrap();
    }

    #[tokio::test]
    async fn waiting_ends_with_the_last_reason() {
        let attempt = async || bail!("port is closed");
        let error = wait_for::<()>("a server", Duration::ZERO, attempt).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "gave up on a server after 0 s: port is closed");
    }
}
