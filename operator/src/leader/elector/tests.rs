//! The elector on simulated time: several processes, one lease with optimistic locking.

use super::*;

/// The API server's one lease.
#[derive(Default)]
struct Server {
    lease: Option<Found>,
    version: u64,
}

impl Server {
    fn write(&mut self, action: Action) -> Option<Found> {
        let record = match (action, &self.lease) {
            (Action::Create(record), None) => record,
            (Action::Replace(record, version), Some(lease)) if version == lease.resource_version => record,
            _ => return None,
        };
        self.edit(record);
        self.lease.clone()
    }

    fn edit(&mut self, record: Record) {
        self.version += 1;
        self.lease = Some(Found { record, resource_version: self.version.to_string() });
    }
}

/// One process: its elector, when it tries next, how wrong its wall clock is, whether it is frozen or cut off.
struct Process {
    elector: Elector,
    next: u64,
    skew: i64,
    frozen: bool,
    cut_off: bool,
}

struct World {
    start: Instant,
    now: u64,
    server: Server,
    processes: Vec<Process>,
}

impl World {
    fn new(skews: &[i64]) -> Self {
        let process = |(index, &skew): (usize, &i64)| Process {
            elector: Elector::new("lease".into(), format!("p{index}"), Timing::default(), index as u64),
            next: 0,
            skew,
            frozen: false,
            cut_off: false,
        };
        let processes = skews.iter().enumerate().map(process).collect();
        Self { start: Instant::now(), now: 0, server: Server::default(), processes }
    }

    fn at(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    /// Runs for so many milliseconds; at every one of them at most one process may write.
    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += 1;
            let now = self.at();
            for index in 0..self.processes.len() {
                self.step(index, now);
            }
            assert!(self.writers().len() <= 1, "two writers at {} ms: {:?}", self.now, self.writers());
        }
    }

    fn step(&mut self, index: usize, now: Instant) {
        let process = &mut self.processes[index];
        if process.frozen || self.now < process.next {
            return;
        }
        let millis = i64::try_from(self.now).unwrap() + process.skew;
        let wall = Timestamp::from_millisecond(millis).unwrap();
        if !process.cut_off && process.elector.term != Term::Lost {
            let renewed = process.elector.renewal(wall).and_then(|action| self.server.write(action));
            let written = renewed.or_else(|| {
                let action = process.elector.decide(self.server.lease.clone(), now, wall);
                self.server.write(action)
            });
            if let Some(found) = written {
                process.elector.written(found, now);
            }
        }
        process.elector.tick(now);
        process.next = self.now + u64::try_from(process.elector.pause().as_millis()).unwrap();
    }

    /// Processes whose fence would let a write through, whatever they believe.
    fn writers(&self) -> Vec<usize> {
        let may = |p: &Process| p.elector.term.allowance(self.at()).is_some();
        (0..self.processes.len()).filter(|&index| may(&self.processes[index])).collect()
    }

    /// Runs until somebody leads, and says how long that took.
    fn until_led(&mut self) -> u64 {
        let from = self.now;
        while self.writers().is_empty() {
            assert!(self.now < from + 60_000, "nobody leads");
            self.run(1);
        }
        self.now - from
    }
}

#[test]
fn one_leads_and_goes_on_leading() {
    let mut world = World::new(&[0, 0, 0]);
    assert!(world.until_led() <= 1);
    let leader = world.writers();
    world.run(120_000);
    assert_eq!(world.writers(), leader);
    assert_eq!(world.server.lease.as_ref().unwrap().record.transitions, 0);
}

#[test]
fn clocks_that_are_wrong_by_hours_change_nothing() {
    let mut world = World::new(&[7_200_000, 0, 3_600_000]);
    world.until_led();
    let leader = world.writers();
    world.run(60_000);
    assert_eq!(world.writers(), leader);
    world.processes[leader[0]].frozen = true;
    world.run(11_000);
    let millis = 11_000 + world.until_led();
    assert!(millis < 20_000 && world.writers() != leader, "{millis}");
}

#[test]
fn a_killed_leader_is_followed_within_the_lease_and_one_try() {
    let mut world = World::new(&[0, 0]);
    world.until_led();
    world.run(5_000);
    let leader = world.writers()[0];
    world.processes[leader].frozen = true;
    world.run(15_000);
    let millis = world.until_led();
    assert!(millis <= 4_000 && world.writers() != [leader], "{millis}");
}

#[test]
fn a_zombie_never_writes_beside_its_successor() {
    let mut world = World::new(&[0, 0]);
    world.until_led();
    let leader = world.writers()[0];
    world.processes[leader].frozen = true;
    world.run(40_000);
    world.processes[leader].frozen = false;
    world.run(60_000);
    assert_eq!(world.processes[leader].elector.term, Term::Lost);
    assert_eq!(world.writers(), [1 - leader]);
}

#[test]
fn a_leader_that_cannot_reach_the_api_server_stops_before_the_lease_ends() {
    let mut world = World::new(&[0, 0]);
    world.until_led();
    let leader = world.writers()[0];
    world.processes[leader].cut_off = true;
    world.run(11_000);
    assert_eq!((world.writers(), &world.processes[leader].elector.term), (vec![], &Term::Lost));
    assert!(world.until_led() <= 8_000);
}

#[test]
fn a_release_is_taken_up_within_one_try() {
    let mut world = World::new(&[0, 0]);
    world.until_led();
    world.run(3_000);
    let leader = world.writers()[0];
    let action = world.processes[leader].elector.release(Timestamp::UNIX_EPOCH).unwrap();
    assert!(world.server.write(action).is_some());
    world.processes[leader].frozen = true;
    world.processes[leader].elector.term = Term::Following;
    assert!(world.until_led() <= 2_000);
    assert_eq!(world.server.lease.unwrap().record.transitions, 1);
}

#[test]
fn a_deleted_lease_is_made_again_by_its_leader() {
    let mut world = World::new(&[0, 0]);
    world.until_led();
    world.run(5_000);
    let leader = world.writers();
    world.server.lease = None;
    world.run(30_000);
    assert_eq!(world.writers(), leader);
    // With the leader gone too, the other one waits until no lease of the past can be in force.
    world.processes[leader[0]].frozen = true;
    world.server.lease = None;
    world.run(11_000);
    assert!(world.until_led() <= 7_000 && world.writers() != leader);
}

#[test]
fn edits_by_hand_never_make_two_writers() {
    for (holder, lease) in
        [("somebody else", 15), ("somebody else", 0), ("", 15), ("", 0), ("p0", 0), ("p1", 15)]
    {
        let mut world = World::new(&[0, 0]);
        world.until_led();
        world.run(5_000);
        let mut record = world.server.lease.clone().unwrap().record;
        (record.holder, record.lease) = (holder.into(), Duration::from_secs(lease));
        world.server.edit(record);
        world.run(60_000);
        let lost = world.processes.iter().filter(|p| p.elector.term == Term::Lost).count();
        assert_eq!(world.writers().len(), 1, "{holder:?} {lease}");
        assert!(lost <= 1, "{holder:?} {lease}");
    }
}
