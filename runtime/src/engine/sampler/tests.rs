use super::*;

const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 3.0, f32::NEG_INFINITY];

fn drawn(logits: &[f32], temperature: f32, top_p: f32, position: u32) -> u32 {
    draw(logits, &Sampling { temperature, top_p, seed: 7, ..Sampling::default() }, position)
}

fn draw(logits: &[f32], sampling: &Sampling, position: u32) -> u32 {
    sample(logits, sampling, &Past::default(), Draw { position, choice: 0 }, &mut Scratch::default()).unwrap()
}

fn shares(logits: &[f32], temperature: f32, top_p: f32) -> Vec<f64> {
    shares_of(logits, &Sampling { temperature, top_p, seed: 7, ..Sampling::default() })
}

fn shares_of(logits: &[f32], sampling: &Sampling) -> Vec<f64> {
    const DRAWS: u32 = 20_000;
    let mut counts = vec![0.0; logits.len()];
    for position in 0..DRAWS {
        counts[draw(logits, sampling, position) as usize] += 1.0 / f64::from(DRAWS);
    }
    counts
}

fn close(found: &[f64], expected: &[f64]) -> bool {
    found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 0.015)
}

#[test]
fn without_temperature_the_largest_wins_and_ties_go_to_the_lowest_id() {
    assert_eq!(drawn(&LOGITS, 0.0, 1.0, 0), 1);
    assert_eq!(drawn(&[f32::NAN, 0.5, f32::NAN], 0.0, 1.0, 0), 1);
}

#[test]
fn nothing_follows_from_numbers_that_are_not_finite() {
    let (draw, mut scratch) = (Draw { position: 0, choice: 0 }, Scratch::default());
    let bias = Adjust { bias: [(1, -f32::INFINITY)].into(), ..Adjust::default() };
    for logits in [[f32::NAN, f32::NEG_INFINITY], [0.0, f32::INFINITY], [f32::NAN; 2]] {
        // Also where the number that is none would not be drawn.
        for (temperature, adjust) in [(0.0, Adjust::default()), (1.0, Adjust::default()), (1.0, bias.clone())]
        {
            let sampling = Sampling { temperature, adjust, ..Sampling::default() };
            assert_eq!(sample(&logits, &sampling, &Past::default(), draw, &mut scratch), Err(Corrupted));
        }
    }
    // It is the mask that leaves nothing here, and the numbers are sound.
    let past = Past { allowed: Some(&[0]), ..Past::default() };
    assert_eq!(sample(&LOGITS, &Sampling::default(), &past, draw, &mut scratch), Ok(0));
}

#[test]
fn draws_follow_the_softmax() {
    let weights: Vec<f64> = LOGITS.iter().map(|logit| f64::from(*logit / 1.5).exp()).collect();
    let total: f64 = weights.iter().sum();
    let expected: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
    assert!(close(&shares(&LOGITS, 1.5, 1.0), &expected));
}

#[test]
fn the_nucleus_is_the_fewest_tokens_that_reach_its_share() {
    assert!(close(&shares(&LOGITS, 1.0, 0.5), &[0.0, 0.5, 0.0, 0.5, 0.0]));
    assert!(close(&shares(&LOGITS, 1.0, 0.1), &[0.0, 1.0, 0.0, 0.0, 0.0]));
    let flat: Vec<f32> = (0..4000).map(|id| -0.01 * id as f32).collect();
    assert!((0..200).all(|position| drawn(&flat, 1.0, 0.2, position) < 23));
}

#[test]
fn only_the_most_likely_are_drawn_from() {
    let sampling = |top_k, min_p, top_p| {
        let base = Sampling { temperature: 1.0, seed: 7, ..Sampling::default() };
        Sampling { top_k, min_p, top_p, ..base }
    };
    let logits = [0.0, 2.0, 1.0, 2.0, -1.0].map(|n: f32| n * std::f32::consts::LN_2);
    // Weights 1, 4, 2, 4, 0.5.
    assert!(close(&shares_of(&logits, &sampling(1, 0.0, 1.0)), &[0.0, 1.0, 0.0, 0.0, 0.0]));
    assert!(close(&shares_of(&logits, &sampling(3, 0.0, 1.0)), &[0.0, 0.4, 0.2, 0.4, 0.0]));
    assert!(close(&shares_of(&logits, &sampling(99, 0.4, 1.0)), &[0.0, 0.4, 0.2, 0.4, 0.0]));
    // Of ten that are left, the nucleus of three quarters is eight.
    assert!(close(&shares_of(&logits, &sampling(3, 0.0, 0.75)), &[0.0, 0.5, 0.0, 0.5, 0.0]));
}

#[test]
fn powers_are_close_to_the_truth() {
    for step in 0..8600 {
        let x = step as f32 * -0.01;
        let truth = f64::from(x).exp();
        assert!((f64::from(exp(x)) - truth).abs() / truth < 4e-7, "e^{x}");
    }
    assert_eq!([-1e9, f32::NEG_INFINITY, f32::NAN].map(exp), [0.0; 3]);
    assert_eq!(exp(0.0), 1.0);
}

#[test]
fn a_draw_is_a_function_of_seed_position_and_choice() {
    let at = |seed, position, choice| uniform(seed, Draw { position, choice }).to_bits();
    assert_eq!(at(1, 2, 3), at(1, 2, 3));
    let all = [at(1, 2, 3), at(1, 3, 2), at(2, 1, 3), at(0, 0, 0), at(0, 1, 0), at(0, 0, 1)];
    for (index, one) in all.iter().enumerate() {
        assert!(!all[index + 1..].contains(one));
    }
}
