//! How many threads this process may keep busy: the CPU quota of its cgroups, capped by its affinity.
//!
//! The parsers take the text of the kernel's files; [`available`] reads them. Nothing here starts a thread.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// CPU time per period that a cgroup may use, both in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// CPU time allowed per period.
    pub quota: u64,
    /// The period; never zero.
    pub period: u64,
}

/// Reads cgroup v2's `cpu.max`, for example `200000 100000`; `max …` means no limit.
#[must_use]
pub fn parse_cpu_max(text: &str) -> Option<Quota> {
    let mut words = text.split_ascii_whitespace();
    let quota = words.next()?.parse().ok()?;
    let period = words.next().map_or(Some(100_000), |word| word.parse().ok())?;
    (period > 0).then_some(Quota { quota, period })
}

/// Reads cgroup v1's `cpu.cfs_quota_us` and `cpu.cfs_period_us`; a quota of −1 means no limit.
#[must_use]
pub fn parse_cfs(quota: &str, period: &str) -> Option<Quota> {
    let quota = quota.trim().parse().ok()?;
    let period = period.trim().parse().ok()?;
    (period > 0).then_some(Quota { quota, period })
}

/// The process's cgroup for the CPU controller, from the text of `/proc/self/cgroup`, and whether it is v1's.
#[must_use]
pub fn parse_membership(text: &str) -> Option<(PathBuf, Hierarchy)> {
    let mut unified = None;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if controllers.split(',').any(|controller| controller == "cpu") {
            return Some((PathBuf::from(path), Hierarchy::V1));
        }
        if controllers.is_empty() {
            unified = Some(PathBuf::from(path));
        }
    }
    unified.map(|path| (path, Hierarchy::V2))
}

/// Which of the two cgroup file systems holds the CPU controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// `cpu.cfs_quota_us` and `cpu.cfs_period_us`.
    V1,
    /// `cpu.max`.
    V2,
}

/// `max(1, floor(quota))`, at most the CPUs that the scheduler may use.
///
/// The strictest quota counts; rounding down leaves no thread throttled in the middle of a step.
#[must_use]
pub fn count(quotas: &[Quota], affinity: usize) -> usize {
    let by_quota = quotas.iter().map(|quota| quota.quota / quota.period).min().unwrap_or(u64::MAX);
    usize::try_from(by_quota).unwrap_or(usize::MAX).min(affinity).max(1)
}

/// The number of threads for this process, as it stands now.
#[must_use]
pub fn available() -> usize {
    count(&quotas(), affinity())
}

fn affinity() -> usize {
    // SAFETY: the set is plain data for which all zeros is a value, and the call is told its true size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let rc = libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set);
        (rc == 0).then_some(set)
    };
    match set {
        // SAFETY: it only reads the set.
        Some(set) => usize::try_from(unsafe { libc::CPU_COUNT(&set) }).unwrap_or(1),
        // More CPUs than the set holds: ask the standard library, which grows its set.
        None => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    }
}

/// Quotas of the process's cgroup and of all above it that are visible.
fn quotas() -> Vec<Quota> {
    let Some((path, hierarchy)) =
        fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| parse_membership(&text))
    else {
        return Vec::new();
    };
    let read = |folder: &Path, name: &str| fs::read_to_string(folder.join(name)).ok();
    let at = |folder: &Path| match hierarchy {
        Hierarchy::V2 => parse_cpu_max(&read(folder, "cpu.max")?),
        Hierarchy::V1 => parse_cfs(&read(folder, "cpu.cfs_quota_us")?, &read(folder, "cpu.cfs_period_us")?),
    };
    let root = match hierarchy {
        Hierarchy::V2 => Path::new("/sys/fs/cgroup"),
        Hierarchy::V1 => Path::new("/sys/fs/cgroup/cpu"),
    };
    // In a cgroup namespace the path may climb out of what is mounted; then only the mounted root counts.
    let inside: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    inside.ancestors().filter_map(|folder| at(&root.join(folder))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_max_is_read() {
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(Quota { quota: 150_000, period: 100_000 }));
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        assert_eq!(parse_cpu_max("150000 0"), None);
        assert_eq!(parse_cpu_max(""), None);
    }

    #[test]
    fn cfs_is_read() {
        assert_eq!(parse_cfs("-1\n", "100000\n"), None);
        assert_eq!(parse_cfs("50000\n", "100000\n"), Some(Quota { quota: 50_000, period: 100_000 }));
        assert_eq!(parse_cfs("50000", "0"), None);
    }

    #[test]
    fn the_cpu_controller_is_found_in_either_hierarchy() {
        assert_eq!(parse_membership("0::/a/b\n"), Some(("/a/b".into(), Hierarchy::V2)));
        let mixed = "5:memory:/x\n3:cpu,cpuacct:/y\n0::/z\n";
        assert_eq!(parse_membership(mixed), Some(("/y".into(), Hierarchy::V1)));
        assert_eq!(parse_membership("nonsense"), None);
    }

    #[test]
    fn the_strictest_quota_counts_and_is_rounded_down() {
        let half = Quota { quota: 50_000, period: 100_000 };
        let two_and_a_half = Quota { quota: 250_000, period: 100_000 };
        assert_eq!(count(&[], 8), 8);
        assert_eq!(count(&[two_and_a_half], 8), 2);
        assert_eq!(count(&[two_and_a_half, half], 8), 1);
        assert_eq!(count(&[two_and_a_half], 1), 1);
    }

    #[test]
    fn this_process_may_use_a_thread() {
        assert!(available() >= 1);
    }
}
