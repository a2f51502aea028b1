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

/// Whether a row is about a token that is not there yet.
fn chooses(scheduler: &Scheduler, id: SequenceId, position: u32) -> bool {
    scheduler.running(id).is_some_and(|sequence| sequence.n_tokens() == position)
}

/// One step as `id:n`, with `!` where a token is chosen.
fn turn(scheduler: &mut Scheduler) -> String {
    scheduler.admit();
    let Some(step) = scheduler.plan() else { return "idle".into() };
    scheduler.computed(&step);
    let chosen: BTreeSet<_> =
        step.rows.iter().filter(|(id, at)| chooses(scheduler, *id, *at)).map(|(id, _)| *id).collect();
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
fn who_generates_is_not_held_up_by_all_that_a_step_could_read() {
    let mut s = scheduler(2, 64, 100);
    s.read_beside(20);
    assert!(s.add(sequence(1, 10, 4)) && s.add(sequence(2, 130, 1)));
    let steps = turns(&mut s, 6);
    assert_eq!(steps, ["1:10! 2:54", "1:1! 2:20", "1:1! 2:20", "1:1! 2:20", "2:16!", "idle"]);
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
fn nobody_is_more_urgent_than_another_tenant() {
    let mut s = scheduler(1, 64, 8);
    for (id, tenant, priority) in
        [(1, 1, i32::MIN), (2, 1, i32::MIN), (3, 1, 7), (4, 1, i32::MIN), (5, 2, i32::MAX), (6, 2, 0)]
    {
        assert!(s.add(sequence_of(&of(tenant, priority), id, 9, 1)));
    }
    assert_eq!(turns(&mut s, 6), ["1:9!", "6:9!", "2:9!", "5:9!", "4:9!", "3:9!"]);
}

#[test]
fn who_gives_way_is_of_the_tenant_that_came_last_and_the_least_urgent_there() {
    // Each lacks a third block at the same time, and there are only three for four.
    let gives_way = |asked: [(u64, i32); 4]| {
        let mut s = scheduler(4, 256, 11);
        for (id, (tenant, priority)) in (1..).zip(asked) {
            assert!(s.add(sequence_of(&of(tenant, priority), id, 31, 90)));
        }
        while s.load().counts.preemptions == 0 {
            turn(&mut s);
        }
        s.waiting.iter().map(|s| s.id.0).collect::<Vec<_>>()
    };
    assert_eq!(gives_way([(1, 0), (1, 0), (1, 0), (1, 0)]), [4], "the latest");
    assert_eq!(gives_way([(1, 0), (1, 0), (1, 5), (1, 0)]), [3], "the least urgent");
    assert_eq!(gives_way([(1, 9), (1, 0), (1, 5), (1, 0)]), [3], "but never the first of all");
    assert_eq!(gives_way([(1, 0), (1, 9), (2, -9), (2, -8)]), [4], "another tenant's urgency is its own");
    assert_eq!(gives_way([(1, 9), (2, -9), (1, 9), (2, -7)]), [4], "wherever its others are");
    assert_eq!(gives_way([(1, 9), (2, -7), (1, 9), (2, -9)]), [2]);
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
    assert_eq!(s.load().counts, Counts { looked_for: 210, found: 64, preemptions: 0 });
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
fn who_gives_way_finds_what_it_had() {
    let mut s = scheduler(2, 128, 5);
    assert!(s.add(sequence(1, 62, 40)) && s.add(sequence(2, 33, 10)));
    assert_eq!(turns(&mut s, 2), ["1:62! 2:33!", "1:1! 2:1!"]);
    // The first has 64 tokens in two blocks and chooses its 65th now; the second has two, and one is free.
    assert_eq!(turns(&mut s, 2), ["1:1! 2:1!", "1:1! 2:1!"]);
    assert!(s.add(sequence_of(&of(0, -9), 3, 1, 70)));
    s.remove(SequenceId(2));
    assert_eq!(admitted(&mut s), [3]);
    let mut steps = Vec::new();
    while s.load().counts.preemptions == 0 {
        steps.push(turn(&mut s));
    }
    assert_eq!(steps.last().unwrap(), "1:1!", "the later gave way, urgent as it is");
    let counts = s.load().counts;
    let again = loop {
        match s.admit().as_slice() {
            [again] => break *again,
            _ => assert_ne!(turn(&mut s), "idle"),
        }
    };
    assert_eq!(again, Admitted { id: SequenceId(3), cached: 32 }, "its first block was still there");
    assert_eq!(s.load().counts, counts, "nobody is counted twice");
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
    // Split, each is what it would be if it were alone, but for its blocks.
    let [first, second] = &step.split()[..] else { panic!("{step:?}") };
    let (input, group) = (&second.input, &second.input.groups[0]);
    assert_eq!((input.seq_starts.as_slice(), input.logits_at.as_slice()), (&[0, 2][..], &[1][..]));
    assert_eq!((&input.positions, &input.tokens), (&vec![0, 1], &vec![2000, 2001]));
    assert_eq!((&group.slots, &group.blocks, &group.block_starts), (&vec![64, 65], &vec![2], &vec![0, 1]));
    assert_eq!((second.parts.as_slice(), second.rows.as_slice()), (&step.parts[1..], &step.rows[1..]));
    assert_eq!((first.input.logits_at.as_slice(), first.input.tokens.len()), (&[32][..], 33));
}

#[test]
fn choices_wait_for_the_first_to_read_and_then_share_what_it_read() {
    let mut s = scheduler(3, 64, 12);
    let first = sequence(1, 70, 3);
    let others = [2, 3].map(|id| first.follower(SequenceId(id)));
    assert!(s.add(first) && others.into_iter().all(|other| s.add(other)) && s.add(sequence(4, 5, 1)));
    let load = s.load();
    assert_eq!((load.waiting, load.deferred), (4, 2));
    // The fourth overtakes those who only wait for the first.
    assert_eq!(turns(&mut s, 2), ["1:64", "1:6! 4:5!"]);
    assert_eq!(turns(&mut s, 2), ["1:1! 2:6! 3:6!", "1:1! 2:1! 3:1!"]);
    // The first has four tokens in its third block, and so has each of the others.
    assert_eq!(turns(&mut s, 2), ["2:1! 3:1!", "idle"]);
    assert_eq!(s.load().counts, Counts { looked_for: 3 * 70 + 5, found: 2 * 64, preemptions: 0 });
    assert_eq!(busy(&s), (0, 0, 0));
}

#[test]
fn of_choices_whose_first_has_gone_the_next_reads() {
    let mut s = scheduler(4, 64, 12);
    let first = sequence(1, 70, 3);
    let others = [2, 3, 4].map(|id| first.follower(SequenceId(id)));
    assert!(s.add(first) && others.into_iter().all(|other| s.add(other)));
    assert_eq!(turn(&mut s), "1:64");
    assert!(s.remove(SequenceId(1)).is_some() && s.remove(SequenceId(1)).is_none());
    assert_eq!(s.load().deferred, 2);
    // It finds what the first has read, and the others find all.
    assert_eq!(turns(&mut s, 2), ["2:6!", "2:1! 3:6! 4:6!"]);
}

#[test]
fn who_finds_no_room_still_waits_for_the_one_that_reads() {
    let mut s = scheduler(2, 64, 4);
    let first = sequence(1, 70, 20);
    let other = first.follower(SequenceId(2));
    assert!(s.add(first) && s.add(other));
    assert_eq!(turns(&mut s, 3), ["1:64", "1:6!", "1:1!"]);
    // It would share two blocks, and lacks room for the rest.
    assert_eq!((admitted(&mut s), s.load().deferred), (vec![], 1));
}

#[test]
fn choices_do_not_wait_for_a_first_that_has_gone() {
    let mut s = scheduler(2, 64, 8);
    let first = sequence(1, 40, 3);
    let other = first.follower(SequenceId(2));
    assert!(s.add(first) && s.add(other));
    assert_eq!(admitted(&mut s), [1]);
    s.remove(SequenceId(1));
    assert_eq!(turn(&mut s), "2:40!");
}

#[test]
fn rows_of_a_prompt_come_in_chunks_that_leave_one_row_to_everybody() {
    let mut s = scheduler(4, 64, 8);
    let prompt: Vec<u32> = (0..70).collect();
    let ask = |id| Sequence::new(SequenceId(id), &of(0, 0), prompt.clone(), 1);
    assert!(s.add(ask(1)));
    assert_eq!(turns(&mut s, 2), ["1:64", "1:6!"]);
    assert!(s.add(ask(2).with_prompt_rows()) && s.add(sequence(3, 5, 40)));
    assert_eq!(s.admit()[0], Admitted { id: SequenceId(2), cached: 0 }, "what the cache has tells nothing");
    let mut rows = Vec::new();
    while busy(&s).0 == 2 {
        s.admit();
        let step = s.plan().unwrap();
        assert!(step.input.logits_at.len() <= 4);
        rows.extend(step.rows.iter().filter(|(id, _)| id.0 == 2).map(|(_, at)| *at));
        s.computed(&step);
        for (id, _) in step.rows.iter().filter(|(id, at)| chooses(&s, *id, *at)).collect::<Vec<_>>() {
            if !s.push(*id, 7) {
                s.remove(*id);
            }
        }
    }
    assert_eq!(rows, (1..=70).collect::<Vec<_>>(), "one for each that follows, and the one that is chosen");
}

#[test]
fn who_cannot_be_answered_in_time_is_named() {
    let mut s = scheduler(1, 64, 12);
    let until = |id, deadline| sequence(id, 64, 5).until(Some(deadline));
    assert!(s.add(until(1, 5000)) && s.add(until(2, 900)) && s.add(sequence(3, 64, 5)));
    assert_eq!(s.late(800, 0), []);
    assert_eq!(s.late(900, 0), [SequenceId(2)]);
    assert_eq!(s.late(0, 64), [], "nobody has the engine: whoever is next may try");
    turn(&mut s);
    assert_eq!(s.late(0, 64), [SequenceId(2)], "a second for the prompt is too long");
    assert_eq!(s.late(4990, 64), [SequenceId(2)], "who runs alone may try until the end");
    assert_eq!(s.late(5000, 64), [SequenceId(2), SequenceId(1)]);
    // The cache has what another one begins with.
    let tokens: Vec<u32> = (1000..1064).collect();
    assert!(s.add(Sequence::new(SequenceId(4), &of(0, 0), tokens, 5).until(Some(900))));
    assert_eq!(s.late(0, 64), [SequenceId(2)], "half of it is enough");
}

#[test]
fn who_waits_knows_how_many_come_first() {
    let mut s = scheduler(1, 64, 12);
    assert!(s.add(sequence(1, 10, 5)));
    turn(&mut s);
    let second = sequence(2, 20, 5);
    let choice = second.follower(SequenceId(3));
    assert!(s.add(second) && s.add(choice) && s.add(sequence_of(&of(0, -1), 4, 30, 50)));
    assert_eq!(s.queue(), [(SequenceId(4), 0), (SequenceId(2), 1)]);
    assert_eq!(s.backlog(8), crate::engine::rate::Backlog { read: 50, write: 18 });
}

mod walk;
