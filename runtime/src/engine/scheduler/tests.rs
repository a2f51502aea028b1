use std::collections::{BTreeMap, BTreeSet};

use super::super::sequence::Class;
use super::super::tenants::Tenant;
use super::*;

fn scheduler(sequences: u32, tokens: u32, n_blocks: u32) -> Scheduler {
    Scheduler::new(StepLimits { sequences, tokens, groups: 1 }, n_blocks)
}

fn of(tenant: u64, priority: i32) -> Class {
    Class { tenant: Tenant(tenant), priority, salt: tenant.to_le_bytes().into() }
}

/// Prompts of different sequences have nothing in common.
fn sequence(id: u64, n_prompt: u32, max_tokens: u32) -> Sequence {
    sequence_of(&of(0, 0), id, n_prompt, max_tokens)
}

fn sequence_of(class: &Class, id: u64, n_prompt: u32, max_tokens: u32) -> Sequence {
    let first = u32::try_from(id).unwrap() * 1000;
    Sequence::new(SequenceId(id), class, (first..first + n_prompt).collect(), max_tokens)
}

fn busy(scheduler: &Scheduler) -> (usize, usize, u32) {
    let Load { running, waiting, blocks_used, .. } = scheduler.load();
    (running, waiting, blocks_used)
}

fn admitted(scheduler: &mut Scheduler) -> Vec<u64> {
    scheduler.admit().iter().map(|admitted| admitted.id.0).collect()
}

/// One step as `id:n`, with `!` where a token is chosen.
fn turn(scheduler: &mut Scheduler) -> String {
    scheduler.admit();
    let Some(step) = scheduler.plan() else { return "idle".into() };
    scheduler.computed(&step);
    let chosen: BTreeSet<_> = step.rows.iter().map(|(id, _)| *id).collect();
    for id in &chosen {
        if !scheduler.push(*id, 7) {
            scheduler.remove(*id);
        }
    }
    let part =
        |(id, n): &(SequenceId, u32)| format!("{}:{n}{}", id.0, if chosen.contains(id) { "!" } else { "" });
    step.parts.iter().map(part).collect::<Vec<_>>().join(" ")
}

fn turns(scheduler: &mut Scheduler, n: usize) -> Vec<String> {
    std::iter::repeat_with(|| turn(scheduler)).take(n).collect()
}

#[test]
fn prompts_come_in_chunks_beside_those_who_generate() {
    let mut s = scheduler(2, 64, 100);
    assert!(s.add(sequence(1, 10, 4)) && s.add(sequence(2, 130, 2)) && s.add(sequence(3, 5, 1)));
    let steps = turns(&mut s, 6);
    assert_eq!(steps, ["1:10! 2:54", "1:1! 2:63", "1:1! 2:13!", "1:1! 2:1!", "3:5!", "idle"]);
    assert_eq!(busy(&s), (0, 0, 0));
}

#[test]
fn the_first_who_waits_is_not_overtaken() {
    let mut s = scheduler(4, 64, 3);
    assert!(s.add(sequence(1, 32, 33)) && s.add(sequence(2, 65, 24)) && s.add(sequence(3, 1, 1)));
    assert_eq!(admitted(&mut s), [1], "the second lacks a block, and the third would find one");
    s.remove(SequenceId(1));
    assert_eq!(admitted(&mut s), [2]);
    assert!(!s.add(sequence(4, 96, 2)), "no sequence of 97 cached tokens fits in three blocks");
}

#[test]
fn the_urgent_come_first() {
    let mut s = scheduler(1, 64, 8);
    for (id, priority) in [(1, 5), (2, 0), (3, -1), (4, 0)] {
        assert!(s.add(sequence_of(&of(0, priority), id, 3, 1)));
    }
    assert_eq!(turns(&mut s, 4), ["3:3!", "2:3!", "4:3!", "1:3!"]);
}

#[test]
fn tenants_take_turns_by_tokens() {
    let mut s = scheduler(1, 64, 8);
    // The first tenant came first, with many requests; the second asks for as much with fewer.
    for id in 1..=4 {
        assert!(s.add(sequence_of(&of(1, 0), id, 10, 1)));
    }
    for id in 5..=6 {
        assert!(s.add(sequence_of(&of(2, 0), id, 20, 1)));
    }
    let steps = turns(&mut s, 6);
    assert_eq!(steps, ["1:10!", "5:20!", "2:10!", "6:20!", "3:10!", "4:10!"]);
}

#[test]
fn who_began_in_the_same_way_computes_only_the_rest() {
    let mut s = scheduler(2, 64, 8);
    let prompt: Vec<u32> = (0..70).collect();
    let ask = |class: &Class, id| Sequence::new(SequenceId(id), class, prompt.clone(), 1);
    assert!(s.add(ask(&of(0, 0), 1)));
    assert_eq!(turns(&mut s, 2), ["1:64", "1:6!"]);
    assert!(s.add(ask(&of(0, 0), 2)) && s.add(ask(&of(9, 0), 3)));
    assert_eq!(
        s.admit(),
        [Admitted { id: SequenceId(2), cached: 64 }, Admitted { id: SequenceId(3), cached: 0 }],
        "tenants share nothing"
    );
    assert_eq!(turn(&mut s), "2:6! 3:58");
    assert_eq!(s.load().counts, Counts { looked_for: 192, found: 64, preemptions: 0 });
}

#[test]
fn a_whole_prompt_in_the_cache_still_gives_logits() {
    let mut s = scheduler(1, 64, 8);
    let prompt: Vec<u32> = (0..64).collect();
    for id in 1..=2 {
        assert!(s.add(Sequence::new(SequenceId(id), &of(0, 0), prompt.clone(), 1)));
    }
    assert_eq!(turns(&mut s, 2), ["1:64!", "2:32!"]);
}

#[test]
fn the_last_in_rank_gives_way_and_finds_what_it_had() {
    let mut s = scheduler(2, 128, 5);
    assert!(s.add(sequence(1, 62, 40)) && s.add(sequence(2, 33, 10)));
    assert_eq!(turns(&mut s, 2), ["1:62! 2:33!", "1:1! 2:1!"]);
    // The first has 64 tokens in two blocks and chooses its 65th now; the second has two, and one is free.
    assert_eq!(turns(&mut s, 2), ["1:1! 2:1!", "1:1! 2:1!"]);
    assert!(s.add(sequence_of(&of(0, -9), 3, 1, 70)));
    s.remove(SequenceId(2));
    assert_eq!(admitted(&mut s), [3], "the most urgent");
    let mut steps = Vec::new();
    while s.load().counts.preemptions == 0 {
        steps.push(turn(&mut s));
    }
    assert_eq!(steps.last().unwrap(), "3:1!", "the less urgent gave way");
    let again = s.load().counts.found;
    while busy(&s).0 + busy(&s).1 > 0 {
        turn(&mut s);
    }
    assert!(s.load().counts.found > again, "its first blocks were still there");
}

#[test]
fn a_step_is_the_flat_batch_that_the_model_wants() {
    let mut s = scheduler(2, 64, 8);
    assert!(s.add(sequence(1, 33, 2)) && s.add(sequence(2, 2, 2)));
    s.admit();
    let step = s.plan().unwrap();
    let group = &step.input.groups[0];
    assert_eq!(step.input.seq_starts, [0, 33, 35]);
    assert_eq!(step.input.positions[31..], [31, 32, 0, 1]);
    assert_eq!(group.blocks, [0, 1, 2]);
    assert_eq!(group.block_starts, [0, 2, 3]);
    assert_eq!(group.slots[31..], [31, 32, 64, 65]);
    assert_eq!(step.input.logits_at, [32, 34]);
    assert_eq!(step.rows, [(SequenceId(1), 33), (SequenceId(2), 2)]);
}

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
        assert_eq!(step.rows.iter().any(|(row, _)| row == id), complete);
    }
}

/// A request whose beginning others may have too.
fn arrival(random: &mut Random) -> (Class, Vec<u32>, u32) {
    let class = of(random.below(3).into(), i32::try_from(random.below(3)).unwrap());
    let (common, own) = (random.below(5) * 40, random.below(300));
    let prompt = (0..common).chain((0..=own).map(|_| random.below(50))).collect();
    (class, prompt, 1 + random.below(90))
}

#[test]
fn a_long_random_walk_breaks_nothing() {
    let mut seen = Counts::default();
    for seed in 0..4 {
        let limits = StepLimits { sequences: 5, tokens: 48, groups: 1 };
        let n_blocks = 24;
        let (mut s, mut memory) =
            (Scheduler::new(limits, n_blocks), vec![0; (n_blocks * BLOCK_TOKENS) as usize]);
        let (mut random, mut known, mut next) = (Random(seed), BTreeMap::<SequenceId, Known>::new(), 0);
        let mut finished = 0;
        for turn in 0..6000 {
            // Arrivals stop towards the end, so that everything drains.
            if turn < 4500 && known.len() < 20 && random.below(3) == 0 {
                let (class, tokens, max_tokens) = arrival(&mut random);
                next += 1;
                let id = SequenceId(next);
                let new = Known::new(class.tenant.0, &tokens, max_tokens);
                if s.add(Sequence::new(id, &class, tokens, max_tokens)) {
                    known.insert(id, new);
                }
            }
            if random.below(20) == 0 && !known.is_empty() {
                let at = random.below(u32::try_from(known.len()).unwrap()) as usize;
                let id = *known.keys().nth(at).unwrap();
                s.remove(id);
                known.remove(&id);
            }
            s.admit();
            let Some(step) = s.plan() else {
                assert_eq!(known.len(), 0, "somebody waits and nobody runs");
                continue;
            };
            assert!(step.input.tokens.len() <= limits.tokens as usize);
            assert!(step.parts.len() <= limits.sequences as usize);
            compute(&step, &known, &mut memory);
            s.computed(&step);
            for (id, _) in &step.rows {
                let sequence = known.get_mut(id).unwrap();
                let token = random.below(50);
                sequence.push(token);
                let more = s.push(*id, token);
                assert_eq!(more, sequence.tokens.len() - sequence.n_prompt < sequence.max_tokens);
                if !more {
                    s.remove(*id);
                    known.remove(id);
                    finished += 1;
                }
            }
            assert!(s.load().blocks_used <= n_blocks);
        }
        assert_eq!(busy(&s), (0, 0, 0), "all is free at the end");
        assert!(finished > 20, "seed {seed} finished {finished}");
        let counts = s.load().counts;
        seen.found += counts.found;
        seen.preemptions += counts.preemptions;
    }
    assert!(seen.found > 1000 && seen.preemptions > 20, "{seen:?}");
}
