//! What the kernel says of this process's memory.

use contract::bytes::Bytes;

/// Anonymous and shared memory that is really there; pages of files can be dropped at any time and do not count.
#[must_use]
pub fn resident() -> Option<Bytes> {
    sum(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn sum(status: &str) -> Option<Bytes> {
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name))?;
        let kib: u64 = line.trim_start_matches(':').trim().strip_suffix("kB")?.trim().parse().ok()?;
        Bytes(kib).times(1 << 10).ok()
    };
    field("RssAnon")?.plus(field("RssShmem")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_and_shared_memory_count_and_files_do_not() {
        let status = "VmRSS:\t   900 kB\nRssAnon:\t   100 kB\nRssFile:\t   700 kB\nRssShmem:\t    20 kB\n";
        assert_eq!(sum(status), Some(Bytes(120 << 10)));
        assert_eq!(sum("RssAnon: lots"), None);
        assert!(resident().is_some_and(|r| r.0 > 1 << 16));
    }
}
