//! What the cgroups of this process say.
//!
//! In: `/proc` and `/sys`. Out: files of its own cgroup and of all above it, and numbers in them.

use std::fs;
use std::path::{Path, PathBuf};

/// The files of this name that may say something of this process: its own cgroup's and those of all above it. Version
/// 1 of cgroups has a tree for each controller, and may have another name for the file.
#[must_use]
pub fn files(controller: &str, v1: &str, v2: &str) -> Vec<PathBuf> {
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut files = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (root, file) = match fields.next() {
            Some("") => (PathBuf::from("/sys/fs/cgroup"), v2),
            Some(controllers) if controllers.split(',').any(|name| name == controller) => {
                (Path::new("/sys/fs/cgroup").join(controller), v1)
            }
            _ => continue,
        };
        // In a cgroup namespace the path may climb out of what is mounted; then only the mounted root counts.
        let path = fields.next().unwrap_or("/").trim_start_matches('/');
        let inside = if path.contains("..") { "" } else { path };
        files.extend(Path::new(inside).ancestors().map(|folder| root.join(folder).join(file)));
    }
    files
}

/// Seconds for which a limit on CPU time has kept this process, or others under the same limit, from the CPU; `None`
/// where the kernel does not say.
#[must_use]
pub fn throttled_seconds() -> Option<f64> {
    let texts =
        files("cpu", "cpu.stat", "cpu.stat").into_iter().filter_map(|path| fs::read_to_string(path).ok());
    // Every cgroup counts for itself, so whoever has the limit says it.
    texts.filter_map(|text| throttled(&text)).reduce(f64::max)
}

fn throttled(cpu_stat: &str) -> Option<f64> {
    let number = |(name, per_second): (&str, f64)| {
        let line = cpu_stat.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().parse::<f64>().ok()? / per_second)
    };
    [("throttled_usec ", 1e6), ("throttled_time ", 1e9)].into_iter().find_map(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_say_how_long() {
        assert_eq!(throttled("usage_usec 9\nnr_throttled 2\nthrottled_usec 1500000\n"), Some(1.5));
        assert_eq!(throttled("nr_periods 1\nthrottled_time 2500000000\n"), Some(2.5));
        assert_eq!(throttled("usage_usec 9\n"), None);
    }
}
