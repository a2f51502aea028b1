use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn scheduler(sequences: u32, tokens: u32, n_blocks: u32) -> Scheduler {
    Scheduler::new(StepLimits { sequences, tokens, groups: 1 }, n_blocks)
}

fn sequence(id: u64, n_prompt: u32, max_tokens: u32) -> Sequence {
    Sequence::new(SequenceId(id), (0..n_prompt).collect(), max_tokens)
}

fn busy(scheduler: &Scheduler) -> (usize, usize, u32) {
    let Load { running, waiting, blocks_used, .. } = scheduler.load();
    (running, waiting, blocks_used)
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

#[test]
fn prompts_come_in_chunks_beside_those_who_generate() {
    let mut s = scheduler(2, 64, 100);
    assert!(s.add(sequence(1, 10, 4)) && s.add(sequence(2, 130, 2)) && s.add(sequence(3, 5, 1)));
    let steps: Vec<_> = std::iter::repeat_with(|| turn(&mut s)).take(6).collect();
    assert_eq!(steps, ["1:10! 2:54", "1:1! 2:63", "1:1! 2:13!", "1:1! 2:1!", "3:5!", "idle"]);
    assert_eq!(busy(&s), (0, 0, 0));
}

#[test]
fn the_first_who_waits_is_not_overtaken() {
    let mut s = scheduler(4, 64, 3);
    assert!(s.add(sequence(1, 32, 33)) && s.add(sequence(2, 40, 24)) && s.add(sequence(3, 1, 1)));
    assert_eq!(s.admit(), [SequenceId(1)]);
    s.remove(SequenceId(1));
    assert_eq!(s.admit(), [SequenceId(2), SequenceId(3)]);
    assert!(!s.add(sequence(4, 96, 2)), "no sequence of 97 cached tokens fits in three blocks");
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
#[derive(Default)]
struct Known {
    n_tokens: u32,
    n_prompt: u32,
    max_tokens: u32,
    n_cached: u32,
    slots: BTreeMap<u32, u32>,
}

/// No slot belongs to two sequences, positions have no gaps, rows come exactly when a prompt is complete.
fn check(step: &Step, known: &mut BTreeMap<SequenceId, Known>, limits: StepLimits) {
    assert!(
        step.input.tokens.len() <= limits.tokens as usize && step.parts.len() <= limits.sequences as usize
    );
    let mut at = 0;
    for (part, (id, n)) in step.parts.iter().enumerate() {
        let sequence = known.get_mut(id).expect("only those who were added run");
        for _ in 0..*n {
            assert_eq!(step.input.positions[at], sequence.n_cached);
            let slot = step.input.groups[0].slots[at];
            assert_eq!(sequence.slots.insert(sequence.n_cached, slot), None);
            sequence.n_cached += 1;
            at += 1;
        }
        assert_eq!(step.input.seq_starts[part + 1] as usize, at);
        let complete = sequence.n_cached == sequence.n_tokens;
        assert_eq!(step.rows.iter().any(|(row, _)| row == id), complete);
    }
    let slots: Vec<_> = known.values().flat_map(|k| k.slots.values()).collect();
    assert_eq!(slots.iter().collect::<BTreeSet<_>>().len(), slots.len(), "no slot is owned twice");
}

#[test]
fn a_long_random_walk_breaks_nothing() {
    for seed in 0..8 {
        let limits = StepLimits { sequences: 5, tokens: 48, groups: 1 };
        let (mut s, n_blocks) = (Scheduler::new(limits, 24), 24);
        let (mut random, mut known, mut next) = (Random(seed), BTreeMap::<SequenceId, Known>::new(), 0);
        let mut finished = 0;
        for turn in 0..4000 {
            // Arrivals stop towards the end, so that everything drains.
            if turn < 3500 && known.len() < 20 && random.below(3) == 0 {
                let (n_prompt, max_tokens) = (1 + random.below(300), 1 + random.below(40));
                next += 1;
                if s.add(sequence(next, n_prompt, max_tokens)) {
                    let new = Known { n_tokens: n_prompt, n_prompt, max_tokens, ..Known::default() };
                    known.insert(SequenceId(next), new);
                }
            }
            if random.below(20) == 0 && !known.is_empty() {
                let at = random.below(u32::try_from(known.len()).unwrap()) as usize;
                let id = *known.keys().nth(at).unwrap();
                s.remove(id);
                known.remove(&id);
            }
            s.admit();
            let Some(step) = s.plan() else { continue };
            check(&step, &mut known, limits);
            s.computed(&step);
            for (id, _) in &step.rows {
                let sequence = known.get_mut(id).unwrap();
                sequence.n_tokens += 1;
                let more = s.push(*id, 1);
                assert_eq!(more, sequence.n_tokens - sequence.n_prompt < sequence.max_tokens);
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
    }
}
