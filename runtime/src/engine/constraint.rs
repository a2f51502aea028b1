//! What a request allows to come next: the seam between the engine and grammars.
//!
//! In: the tokens that were chosen. Out: which tokens may follow. The engine asks while the model computes, on a
//! thread of its own, since neither needs the other. It must not know grammars, text or logits.

use std::fmt;
use std::sync::{Mutex, PoisonError};

/// What may come next. One for each choice; it is only ever called from the worker.
///
/// It must not panic: a release aborts where that happens, with everybody who is served. What an implementation cannot
/// rule out of what it calls, it refuses before there is a constraint.
pub trait Constraint: Send + fmt::Debug {
    /// Bits of the tokens that may come next, one `u32` word for 32 tokens, and none past its end; `None`: any may.
    /// It may be asked again before a token is chosen.
    ///
    /// # Errors
    /// Where nothing may, or that cannot be said. It ends the request, and no other.
    fn allowed(&mut self) -> Result<Option<&[u32]>, ConstraintError>;

    /// This token was chosen, and does not end the answer by itself. `true`: the answer is complete and must end.
    ///
    /// # Errors
    /// Where that cannot be. It ends the request, and no other.
    fn chosen(&mut self, token: u32) -> Result<bool, ConstraintError>;

    /// The same for another choice, as long as nothing was chosen.
    fn fork(&self) -> Box<dyn Constraint>;
}

/// Why a constraint gave up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer's format cannot be kept: {0}")]
pub struct ConstraintError(pub String);

/// What a constraint said before a token is chosen.
pub(super) type Allowed<'a> = Result<Option<&'a [u32]>, ConstraintError>;

/// Whether a mask allows a token.
#[must_use]
pub fn allows(mask: &[u32], token: u32) -> bool {
    mask.get((token / u32::BITS) as usize).is_some_and(|word| word >> (token % u32::BITS) & 1 == 1)
}

/// Asks all of them what may come next, while something else is done; without any there is no thread, and where there is
/// none to be had they are asked afterwards. Whatever happens to those who ask, rows without a constraint are free.
pub(super) fn ask_during<T>(
    constraints: &mut [Option<Box<dyn Constraint>>],
    work: impl FnOnce() -> T,
) -> (T, Vec<Allowed<'_>>) {
    let bound: Vec<bool> = constraints.iter().map(Option::is_some).collect();
    if !bound.contains(&true) {
        return (work(), vec![Ok(None); bound.len()]);
    }
    // Whoever takes them asks: the thread, or nobody but the caller is left to do it.
    let unasked = Mutex::new(Some(constraints));
    let take = || unasked.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (done, asked) = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("masks".into());
        let asked = thread.spawn_scoped(scope, || take().map(ask));
        let done = work();
        (done, asked.map_or(Ok(None), std::thread::ScopedJoinHandle::join))
    });
    let masks = match asked {
        Ok(asked) => asked.or_else(|| take().map(ask)),
        Err(_) => None,
    };
    let failed = |bound: &bool| {
        let failed = || Err(ConstraintError("it ended in a panic".into()));
        if *bound { failed() } else { Ok(None) }
    };
    (done, masks.unwrap_or_else(|| bound.iter().map(failed).collect()))
}

fn ask(constraints: &mut [Option<Box<dyn Constraint>>]) -> Vec<Allowed<'_>> {
    constraints.iter_mut().map(|c| c.as_mut().map_or(Ok(None), |c| c.allowed())).collect()
}
