//! Puts the calling process into a lab's own mount and network namespaces and furnishes them.
//!
//! In: the lab's folder. Out: handles of both networks. It runs before any other process of the lab exists.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::addresses::NODE_CIDR;
use crate::paths::{KEPT, VOLATILE};

/// The kubelet's folder, as processes of the lab see it.
pub const KUBELET: &str = "/var/lib/kubelet";
/// The node's network device. It is a bridge, since not every kernel has the `dummy` type.
const DEVICE: &str = "lab0";

/// Settings of the whole machine that a kubelet changes where they are not like this, and the values it wants.
pub const TUNABLES: [(&str, &str); 6] = [
    ("/proc/sys/vm/overcommit_memory", "1"),
    ("/proc/sys/vm/panic_on_oom", "0"),
    ("/proc/sys/kernel/panic", "10"),
    ("/proc/sys/kernel/panic_on_oops", "1"),
    ("/proc/sys/kernel/keys/root_maxkeys", "1000000"),
    ("/proc/sys/kernel/keys/root_maxbytes", "25000000"),
];

/// The two networks that processes of a lab may run in.
#[derive(Debug)]
pub struct Namespaces {
    /// The machine's network.
    pub host_network: File,
    /// The lab's network.
    pub lab_network: File,
}

/// Enters new namespaces.
///
/// # Flow
/// 1. keep a handle of the machine's network; unshare mounts and network;
/// 2. stop mounts from spreading to the machine, then cover `/proc` (of the new PID namespace), [`VOLATILE`]
///    and [`KEPT`], where containerd, CNI plug-ins and the kubelet write whatever they are told, and [`TUNABLES`],
///    which are left as they are on the machine;
/// 3. bring up loopback and the node's address, with a default route, without which services' addresses would be
///    unreachable before any packet filter sees them; switch on forwarding.
pub fn enter(folder: &Path) -> Result<Namespaces> {
    let host_network = File::open("/proc/self/ns/net")?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .context("cannot make namespaces: not root?")?;

    mount_at("none", "/", None, MsFlags::MS_REC | MsFlags::MS_SLAVE)?;
    mount_at("proc", "/proc", Some("proc"), MsFlags::empty())?;
    mount_at("tmpfs", VOLATILE, Some("tmpfs"), MsFlags::empty())?;
    for covered in KEPT {
        let own = folder.join(covered.trim_start_matches('/'));
        fs::create_dir_all(&own)?;
        mount_at(&own.to_string_lossy(), covered, None, MsFlags::MS_BIND)?;
    }
    tunables(&folder.join("tunables"))?;
    network()?;
    Ok(Namespaces { host_network, lab_network: File::open("/proc/self/ns/net")? })
}

/// Covers each with a file that says what a kubelet wants to read, and takes what it may write.
fn tunables(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for (setting, value) in TUNABLES {
        let own = folder.join(setting.trim_start_matches("/proc/sys/").replace('/', "."));
        fs::write(&own, value)?;
        mount_at(&own.to_string_lossy(), setting, None, MsFlags::MS_BIND)?;
    }
    Ok(())
}

fn mount_at(source: &str, target: &str, kind: Option<&str>, flags: MsFlags) -> Result<()> {
    mount(Some(source), target, kind, flags, None::<&str>)
        .with_context(|| format!("cannot mount {source} on {target}"))
}

fn network() -> Result<()> {
    let mut ip =
        Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().context("cannot run ip")?;
    ip.stdin.take().expect("stdin is piped").write_all(commands().as_bytes())?;
    ensure!(ip.wait()?.success(), "ip could not set up the lab's network");
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    Ok(())
}

fn commands() -> String {
    format!(
        "link set lo up\n\
         link add {DEVICE} type bridge\n\
         address add {NODE_CIDR} dev {DEVICE}\n\
         link set {DEVICE} up\n\
         route add default dev {DEVICE}\n"
    )
}
