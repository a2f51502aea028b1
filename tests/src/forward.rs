//! Carries TCP connections from this machine's loopback into a lab's network.
//!
//! A socket stays in the network where it was made. So the listener is made outside, and for each connection a thread
//! enters the lab's network, connects there, and copies.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

/// Inside one machine, a server that is there answers at once.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A listener and what it forwards to. Dropping it closes the listener; connections that stand go on to their end.
#[derive(Debug)]
pub struct Forward {
    local: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Forward {
    /// Listens on `listen` (port 0: any free one). `network` is a file such as `/proc/<pid>/ns/net`.
    pub fn start(network: PathBuf, listen: SocketAddr, target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
        let local = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || accept(&listener, &stopped, &network, target));
        Ok(Self { local, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn local(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // The thread waits for a connection, so it gets one.
        let woken = TcpStream::connect_timeout(&self.local, CONNECT_LIMIT).is_ok();
        if let (true, Some(thread)) = (woken, self.thread.take()) {
            // It has nothing to report.
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, stop: &AtomicBool, network: &Path, target: SocketAddr) {
    for connection in listener.incoming() {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let Ok(connection) = connection else { continue };
        let network = network.to_owned();
        thread::spawn(move || {
            // The client sees a closed connection, as it would without a forwarder.
            if let Err(error) = carry(&connection, &network, target) {
                tracing::debug!(%target, "{error:#}");
            }
        });
    }
}

fn carry(outer: &TcpStream, network: &Path, target: SocketAddr) -> Result<()> {
    setns(File::open(network)?, CloneFlags::CLONE_NEWNET)?;
    let inner = TcpStream::connect_timeout(&target, CONNECT_LIMIT)?;
    outer.set_nodelay(true)?;
    inner.set_nodelay(true)?;
    thread::scope(|scope| {
        scope.spawn(|| copy(outer, &inner));
        copy(&inner, outer);
    });
    Ok(())
}

/// Copies until the end of one direction and passes that end on.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = [0; 16 * 1024];
    let mut turn = || -> io::Result<usize> {
        let read = from.read(&mut buffer)?;
        to.write_all(&buffer[..read])?;
        Ok(read)
    };
    while turn().is_ok_and(|read| read > 0) {}
    // The other side may have closed already.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_ends_pass_both_ways_and_the_port_is_free_afterwards() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        let echo = thread::spawn(move || {
            let (mut connection, _) = server.accept().unwrap();
            let mut all = Vec::new();
            connection.read_to_end(&mut all).unwrap();
            connection.write_all(&all).unwrap();
        });
        // To enter a network takes rights even if it is one's own; tests run as root, like the lab.
        let forward =
            Forward::start("/proc/self/ns/net".into(), "127.0.0.1:0".parse().unwrap(), target).unwrap();
        let local = forward.local();
        let mut client = TcpStream::connect(local).unwrap();
        client.write_all(b"there and back").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "there and back");
        echo.join().unwrap();
        drop(forward);
        // Another test may hold the same port for a moment, so it is tried more than once.
        let is_free = || {
            thread::sleep(Duration::from_millis(10));
            TcpListener::bind(local).is_ok()
        };
        assert!((0..100).any(|_| is_free()));
    }
}
