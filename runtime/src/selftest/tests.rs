use kernels::Isa;

use super::*;

#[test]
fn every_kernel_set_of_this_machine_passes() {
    for isa in Isa::available() {
        for threads in [1, 2] {
            let result = run(&Arc::new(Kernels::new(isa, threads)));
            assert!(result.is_ok(), "{} on {threads} threads: {result:?}", isa.name());
        }
    }
}

#[test]
fn a_wrong_kernel_fails() {
    let result = run(&Arc::new(Kernels::new(Isa::wrong(), 2)));
    assert!(matches!(result, Err(SelfTestError::Wrong { kernels: "wrong", .. })), "{result:?}");
}

/// With `UPDATE_GOLDEN=1` this rewrites the committed logits from the scalar kernels; `reference.py` then has to
/// agree with them.
#[test]
fn the_committed_logits_are_the_scalar_kernels() {
    let kernels = Arc::new(Kernels::new(Isa::scalar(), 1));
    let found = all_logits(&kernels).unwrap();
    let lines: Vec<String> = found
        .chunks(tiny::VOCABULARY)
        .map(|row| row.iter().map(|logit| format!("{logit:.5}")).collect::<Vec<_>>().join(" ") + "\n")
        .collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/selftest/golden.txt");
        std::fs::write(path, lines.concat()).unwrap();
    }
    assert_eq!(found.len(), Family::ALL.len() * CACHES.len() * 5 * tiny::VOCABULARY);
    assert!(found.iter().all(|logit| logit.is_finite()));
    let spread = found.iter().fold(0.0f32, |largest, logit| largest.max(logit.abs()));
    assert!(
        spread > 100.0 * TOLERANCE,
        "the logits are far apart, compared with what is tolerated: {spread}"
    );
    assert!(run(&kernels).is_ok());
}
