//! What the parts of `make faults` found, in one file.
//!
//! In: a fragment from each part, written when the part ends. Out: `target/reports/faults.json` and a table. It must not
//! know how a figure was come by.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::paths::repository;

/// Below the repository: where each part leaves what it found.
const FRAGMENTS: &str = "target/reports/faults";
/// Below the repository: the report.
const REPORT: &str = "target/reports/faults.json";
/// The tests that leave a part each.
pub const PARTS: [&str; 5] = ["kills", "matrix", "leader_ends", "leader_freezes", "leader_leases"];
/// Says that a test is to try everything, also what takes long; set by `make faults`.
const EVERYTHING: &str = "LLMFLEET_FAULTS";

/// Whether everything is to be tried, also what takes too long for `make test`.
#[must_use]
pub fn everything() -> bool {
    std::env::var_os(EVERYTHING).is_some()
}

/// One fault, how often it was made, and how often the fleet was after it as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What was done.
    pub name: String,
    /// How often.
    pub tried: u64,
    /// How often all was well afterwards.
    pub survived: u64,
}

/// What one part found. What it does not know, other parts tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fragment {
    /// Writes before and after which the operator was killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writes_enumerated: Option<u64>,
    /// How often the operator was killed.
    pub kills: u64,
    /// Runs that ended otherwise than the undisturbed one, or made or deleted another number of objects.
    pub divergences: u64,
    /// Objects that were left without an owner.
    pub orphans: u64,
    /// Objects that were made more often than in the undisturbed run.
    pub duplicate_creates: u64,
    /// Times at which two processes wrote, or two pods ran for one replica of one revision.
    pub two_writers: u64,
    /// The longest time without a leader after one was killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_failover_seconds: Option<f64>,
    /// The longest time without a leader after one was asked to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graceful_handover_seconds: Option<f64>,
    /// Faults by name.
    pub faults: Vec<Fault>,
}

impl Fragment {
    /// Leaves it for the report, in place of what this part left before.
    pub fn leave(&self, part: &str) -> Result<()> {
        ensure!(PARTS.contains(&part), "{part} is no part of the report");
        let folder = folder();
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("{part}.json")), serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }
}

/// All that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    writes_enumerated: u64,
    kills: u64,
    divergences: u64,
    orphans: u64,
    duplicate_creates: u64,
    two_writers: u64,
    leader_failover_seconds: f64,
    graceful_handover_seconds: f64,
    faults: Vec<Fault>,
}

fn folder() -> PathBuf {
    repository().join(FRAGMENTS)
}

/// Removes what was found before, so that a part that does not run is missed.
pub fn forget() -> Result<()> {
    let folder = folder();
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let report = repository().join(REPORT);
    if report.exists() {
        fs::remove_file(report)?;
    }
    Ok(())
}

/// Writes the report from what the parts left, prints it, and fails if anything in it is not as it must be.
pub fn gather() -> Result<()> {
    let mut fragments = Vec::new();
    for part in PARTS {
        let file = folder().join(format!("{part}.json"));
        let read = || anyhow::Ok(serde_json::from_slice(&fs::read(&file)?)?);
        fragments.push(read().with_context(|| format!("what the part {part} left: {}", file.display()))?);
    }
    let report = Report::of(fragments)?;
    let path = repository().join(REPORT);
    fs::write(&path, serde_json::to_vec_pretty(&report)?)?;
    println!("{}\n{}", report.table(), path.display());
    report.check()
}

impl Report {
    /// Joins what the parts found: counts add up, of times the longest is told.
    fn of(fragments: Vec<Fragment>) -> Result<Self> {
        let longest = |what: &str, of: fn(&Fragment) -> Option<f64>| {
            fragments
                .iter()
                .filter_map(of)
                .reduce(f64::max)
                .with_context(|| format!("no part measured {what}"))
        };
        let sum = |of: fn(&Fragment) -> u64| fragments.iter().map(of).sum();
        Ok(Self {
            writes_enumerated: sum(|f| f.writes_enumerated.unwrap_or_default()),
            kills: sum(|f| f.kills),
            divergences: sum(|f| f.divergences),
            orphans: sum(|f| f.orphans),
            duplicate_creates: sum(|f| f.duplicate_creates),
            two_writers: sum(|f| f.two_writers),
            leader_failover_seconds: longest("a failover", |f| f.leader_failover_seconds)?,
            graceful_handover_seconds: longest("a hand-over", |f| f.graceful_handover_seconds)?,
            faults: fragments.iter().flat_map(|f| f.faults.clone()).collect(),
        })
    }

    /// What must be zero and is not, and what was not survived or not tried.
    fn check(&self) -> Result<()> {
        let zero = [
            ("divergences", self.divergences),
            ("orphans", self.orphans),
            ("duplicate_creates", self.duplicate_creates),
            ("two_writers", self.two_writers),
        ];
        for (name, count) in zero {
            ensure!(count == 0, "{name}: {count}");
        }
        ensure!(self.writes_enumerated > 0, "no write was enumerated");
        let expected = 2 * self.writes_enumerated;
        ensure!(self.kills >= expected, "{} kills, {expected} were to be tried", self.kills);
        for Fault { name, tried, survived } in &self.faults {
            ensure!(*tried > 0, "{name}: never tried");
            ensure!(tried == survived, "{name}: tried {tried} times, survived {survived}");
        }
        Ok(())
    }

    fn table(&self) -> String {
        let mut rows = vec![
            ("writes, each with a kill before and after it", self.writes_enumerated.to_string()),
            ("kills", self.kills.to_string()),
            ("divergences", self.divergences.to_string()),
            ("orphans", self.orphans.to_string()),
            ("duplicate creates", self.duplicate_creates.to_string()),
            ("two writers", self.two_writers.to_string()),
            ("without a leader after a kill", format!("{:.1} s", self.leader_failover_seconds)),
            ("without a leader after SIGTERM", format!("{:.1} s", self.graceful_handover_seconds)),
        ];
        let survived = |fault: &Fault| format!("{} of {}", fault.survived, fault.tried);
        rows.extend(self.faults.iter().map(|fault| (fault.name.as_str(), survived(fault))));
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        let lines: Vec<_> = rows.iter().map(|(name, value)| format!("  {name:width$}  {value}")).collect();
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragments() -> Vec<Fragment> {
        let fault = Fault { name: "409 once".into(), tried: 2, survived: 2 };
        vec![
            Fragment { writes_enumerated: Some(3), kills: 6, ..Fragment::default() },
            Fragment { leader_failover_seconds: Some(9.0), faults: vec![fault], ..Fragment::default() },
            Fragment {
                leader_failover_seconds: Some(17.5),
                graceful_handover_seconds: Some(1.0),
                ..Fragment::default()
            },
        ]
    }

    #[test]
    fn the_report_has_just_its_keys_and_the_longest_times() {
        let report = Report::of(fragments()).unwrap();
        report.check().unwrap();
        let json = serde_json::to_value(&report).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = "writes_enumerated kills divergences orphans duplicate_creates two_writers \
             leader_failover_seconds graceful_handover_seconds faults";
        assert_eq!(keys.join(" "), expected);
        assert_eq!((&json["kills"], &json["leader_failover_seconds"]), (&6.into(), &17.5.into()));
        assert!(report.table().contains("409 once"));
    }

    #[test]
    fn what_is_missing_or_not_zero_fails() {
        assert!(Report::of(fragments()[..1].to_vec()).unwrap_err().to_string().contains("failover"));
        let fails = |change: fn(&mut Fragment)| {
            let mut fragments = fragments();
            fragments.iter_mut().for_each(change);
            Report::of(fragments).unwrap().check().unwrap_err().to_string()
        };
        assert!(fails(|f| f.divergences = 1).contains("divergences: 3"));
        assert!(fails(|f| f.orphans = 1).contains("orphans"));
        assert!(fails(|f| f.duplicate_creates = 1).contains("duplicate_creates"));
        assert!(fails(|f| f.two_writers = 1).contains("two_writers"));
        assert!(fails(|f| f.kills = 0).contains("0 kills"));
        assert!(fails(|f| f.writes_enumerated = None).contains("no write"));
        assert!(fails(|f| f.faults.iter_mut().for_each(|fault| fault.survived = 1)).contains("survived 1"));
    }

    #[test]
    fn a_fragment_is_read_as_it_was_written() {
        for fragment in fragments() {
            let text = serde_json::to_string(&fragment).unwrap();
            assert_eq!(serde_json::from_str::<Fragment>(&text).unwrap(), fragment);
        }
    }
}
