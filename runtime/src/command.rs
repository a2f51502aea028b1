//! The subcommands: arguments in, side effects and an exit out. One file each.

pub mod bench;
pub mod fetch;
pub mod inspect;
pub mod pack;
pub mod selftest;
pub mod serve;

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use contract::device::DeviceClass;
use contract::dtype::KvDType;
use contract::exit::{ExitReason, ExitReport};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit;

/// Runs `work`, or ends early and in order when the process is asked to terminate.
///
/// In a container the process is number 1, for which a signal without a handler does nothing at all.
async fn until_terminated<T>(
    work: impl Future<Output = Result<T, ExitReport>>,
) -> Result<Option<T>, ExitReport> {
    let mut terminate = terminations()?;
    tokio::select! {
        result = work => result.map(Some),
        _ = terminate.recv() => Ok(None),
        _ = tokio::signal::ctrl_c() => Ok(None),
    }
}

fn terminations() -> Result<Signal, ExitReport> {
    signal(SignalKind::terminate()).map_err(|e: io::Error| exit::report(ExitReason::Internal, &e))
}

/// Listens on an address, or on all: of both families where the node has both.
async fn listen(host: Option<IpAddr>, port: u16) -> Result<TcpListener, ExitReport> {
    let listener = match host {
        Some(host) => TcpListener::bind((host, port)).await,
        None => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
            }
            result => result,
        },
    };
    listener.map_err(|error| {
        let message = format!("cannot listen on port {port}: {error}");
        ExitReport { reason: ExitReason::ConfigInvalid, message }
    })
}

pub(crate) fn kv_dtype(text: &str) -> Result<KvDType, String> {
    named(text, &[("F32", KvDType::F32), ("F16", KvDType::F16), ("Q8_0", KvDType::Q8_0)])
}

fn device_class(text: &str) -> Result<DeviceClass, String> {
    named(text, &[("CPU", DeviceClass::Cpu), ("Nvidia", DeviceClass::Nvidia)])
}

fn named<T: Copy>(text: &str, known: &[(&str, T)]) -> Result<T, String> {
    let found = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    let names = || known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    found.map(|(_, value)| *value).ok_or_else(|| format!("expected one of: {}", names()))
}

/// A number of at least one.
pub(crate) fn positive<T: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<T, String> {
    text.parse().ok().filter(|n| *n >= T::from(1)).ok_or_else(|| "expected a number from 1".to_owned())
}
