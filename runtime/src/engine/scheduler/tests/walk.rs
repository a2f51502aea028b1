//! Seeded walks: whatever comes, goes, gives way or is late, nothing is mixed up and nothing is lost.

use super::*;

/// A small generator with a period long enough for a walk (Steele et al. 2014, SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        u32::try_from((z ^ (z >> 31)) % u64::from(n)).unwrap()
    }
}

/// What the walk knows of a sequence, kept apart from the scheduler's own books.
struct Known {
    tokens: Vec<u32>,
    /// What stands in the cache at each position: it follows from the salt and all tokens up to there.
    entries: Vec<u64>,
    n_prompt: usize,
    max_tokens: usize,
}

impl Known {
    fn new(salt: u64, tokens: &[u32], max_tokens: u32) -> Self {
        let (n_prompt, max_tokens) = (tokens.len(), max_tokens as usize);
        let mut known = Self { tokens: Vec::new(), entries: vec![salt + 1], n_prompt, max_tokens };
        tokens.iter().for_each(|token| known.push(*token));
        known
    }

    fn push(&mut self, token: u32) {
        let last = self.entries[self.tokens.len()];
        self.tokens.push(token);
        self.entries.push((last ^ u64::from(token)).wrapping_mul(0x0100_0000_01b3).rotate_left(9));
    }

    fn entry(&self, position: usize) -> u64 {
        self.entries[position + 1]
    }
}

/// Computes a step as a model does, and checks that every sequence finds its own past through its table.
fn compute(step: &Step, known: &BTreeMap<SequenceId, Known>, memory: &mut [u64]) {
    let (input, group) = (&step.input, &step.input.groups[0]);
    let range = |part: usize| input.seq_starts[part] as usize..input.seq_starts[part + 1] as usize;
    for (part, (id, n)) in step.parts.iter().enumerate() {
        assert_eq!(range(part).len(), *n as usize);
        for at in range(part) {
            let position = input.positions[at] as usize;
            assert_eq!(input.tokens[at], known[id].tokens[position]);
            memory[group.slots[at] as usize] = known[id].entry(position);
        }
    }
    for (part, (id, _)) in step.parts.iter().enumerate() {
        let table = &group.blocks[group.block_starts[part] as usize..group.block_starts[part + 1] as usize];
        let end = input.positions[range(part).end - 1] as usize;
        for position in 0..=end {
            let slot = table[position / BLOCK_TOKENS as usize] as usize * BLOCK_TOKENS as usize;
            let found = memory[slot + position % BLOCK_TOKENS as usize];
            assert_eq!(found, known[id].entry(position), "{id:?} at {position}");
        }
        let complete = end + 1 == known[id].tokens.len();
        let chooses = |(row, at): &(SequenceId, u32)| row == id && *at as usize == known[id].tokens.len();
        assert_eq!(step.rows.iter().any(chooses), complete);
    }
}

/// A request whose beginning others may have too.
fn arrival(random: &mut Random) -> (Class, Vec<u32>, u32) {
    let class = of(random.below(3).into(), i32::try_from(random.below(3)).unwrap());
    let (common, own) = (random.below(5) * 40, random.below(300));
    let prompt = (0..common).chain((0..=own).map(|_| random.below(50))).collect();
    (class, prompt, 1 + random.below(90))
}

/// What happened in all walks, so that it is known that everything did.
#[derive(Debug, Default)]
struct Seen {
    finished: u32,
    late: u32,
    prompt_rows: usize,
    counts: Counts,
}

struct Walk {
    scheduler: Scheduler,
    limits: StepLimits,
    memory: Vec<u64>,
    random: Random,
    known: BTreeMap<SequenceId, Known>,
    /// Of sequences whose prompt's rows are wanted, those that came.
    rows: BTreeMap<SequenceId, Vec<u32>>,
    next: u64,
    seen: Seen,
}

const BLOCKS: u32 = 24;

impl Walk {
    fn new(seed: u64) -> Self {
        let limits = StepLimits { sequences: 5, tokens: 48, groups: 1 };
        Self {
            scheduler: Scheduler::new(limits, BLOCKS),
            limits,
            memory: vec![0; (BLOCKS * BLOCK_TOKENS) as usize],
            random: Random(seed),
            known: BTreeMap::new(),
            rows: BTreeMap::new(),
            next: 0,
            seen: Seen::default(),
        }
    }

    /// A request of up to four choices, some with an end and some that want rows.
    fn arrive(&mut self, now: u64) {
        let (class, tokens, max_tokens) = arrival(&mut self.random);
        let n = 1 + u64::from(self.random.below(8).saturating_sub(4));
        let first = SequenceId(self.next + 1);
        let deadline = (self.random.below(6) == 0).then(|| now + u64::from(self.random.below(200)));
        let mut sequence = Sequence::new(first, &class, tokens.clone(), max_tokens).until(deadline);
        let others: Vec<_> = (1..n).map(|i| sequence.follower(SequenceId(first.0 + i))).collect();
        let wants_rows = self.random.below(5) == 0;
        if wants_rows {
            sequence = sequence.with_prompt_rows();
        }
        self.next += n;
        if !self.scheduler.add(sequence) {
            return;
        }
        for other in others {
            assert!(self.scheduler.add(other), "it needs as much as the first");
        }
        for id in (first.0..first.0 + n).map(SequenceId) {
            self.known.insert(id, Known::new(class.tenant.0, &tokens, max_tokens));
        }
        if wants_rows {
            self.rows.insert(first, Vec::new());
        }
    }

    fn leave(&mut self, id: SequenceId) {
        self.scheduler.remove(id);
        self.known.remove(&id);
        self.rows.remove(&id);
    }

    fn leave_somebody(&mut self) {
        let n = u32::try_from(self.known.len()).unwrap();
        let id = *self.known.keys().nth(self.random.below(n) as usize).unwrap();
        self.leave(id);
    }

    fn turn(&mut self, now: u64) {
        for id in self.scheduler.late(now, 4000) {
            self.leave(id);
            self.seen.late += 1;
        }
        self.scheduler.admit();
        let Some(step) = self.scheduler.plan() else {
            return assert_eq!(self.known.len(), 0, "somebody waits and nobody runs");
        };
        assert!(step.input.tokens.len() <= self.limits.tokens as usize);
        assert!(step.parts.len() <= self.limits.sequences as usize);
        assert!(step.rows.len() <= self.limits.sequences as usize);
        compute(&step, &self.known, &mut self.memory);
        let served = self.scheduler.computed(&step);
        assert_eq!(served.iter().map(|s| s.read + s.written).sum::<u32>(), count(&step.input.tokens));
        for (id, at) in &step.rows {
            self.row(*id, *at);
        }
        self.scheduler.pool.check(self.scheduler.running.iter().map(Sequence::blocks));
    }

    fn row(&mut self, id: SequenceId, at: u32) {
        let sequence = self.known.get_mut(&id).unwrap();
        if let Some(rows) = self.rows.get_mut(&id).filter(|_| at as usize <= sequence.n_prompt) {
            rows.push(at);
            self.seen.prompt_rows += 1;
        }
        if (at as usize) < sequence.tokens.len() {
            return;
        }
        if let Some(rows) = self.rows.remove(&id) {
            let expected = 1..=u32::try_from(sequence.n_prompt).unwrap();
            assert_eq!(rows, expected.collect::<Vec<_>>(), "each row comes once, whoever gave way");
        }
        let token = self.random.below(50);
        sequence.push(token);
        let more = self.scheduler.push(id, token);
        assert_eq!(more, sequence.tokens.len() - sequence.n_prompt < sequence.max_tokens);
        if !more {
            self.leave(id);
            self.seen.finished += 1;
        }
    }
}

#[test]
fn a_long_random_walk_breaks_nothing() {
    let mut all = Seen::default();
    for seed in 0..4 {
        let mut walk = Walk::new(seed);
        for now in 0..6000 {
            // Arrivals stop towards the end, so that everything drains.
            if now < 4500 && walk.known.len() < 20 && walk.random.below(4) == 0 {
                walk.arrive(now);
            }
            if walk.random.below(20) == 0 && !walk.known.is_empty() {
                walk.leave_somebody();
            }
            walk.turn(now);
        }
        assert_eq!(busy(&walk.scheduler), (0, 0, 0), "all is free at the end");
        let Seen { finished, late, prompt_rows, .. } = walk.seen;
        assert!(finished > 20, "seed {seed} finished {finished}");
        let counts = walk.scheduler.load().counts;
        all.late += late;
        all.prompt_rows += prompt_rows;
        all.counts.found += counts.found;
        all.counts.preemptions += counts.preemptions;
    }
    let Seen { late, prompt_rows, counts, .. } = all;
    assert!(late > 10 && prompt_rows > 100, "{late} were late, {prompt_rows} rows of prompts");
    assert!(counts.found > 1000 && counts.preemptions > 20, "{counts:?}");
}
