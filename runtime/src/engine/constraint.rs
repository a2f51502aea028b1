//! What a request allows to come next: the seam between the engine and grammars.
//!
//! In: the tokens that were chosen. Out: which tokens may follow. The engine asks while the model computes, on a
//! thread of its own, since neither needs the other. It must not know grammars, text or logits.

use std::fmt;

/// What may come next. One for each choice; it is only ever called from the worker.
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

/// Asks all of them what may come next, while something else is done; without any there is no thread.
pub(super) fn ask_during<T>(
    constraints: &mut [Option<Box<dyn Constraint>>],
    work: impl FnOnce() -> T,
) -> (T, Vec<Allowed<'_>>) {
    let n = constraints.len();
    if constraints.iter().all(Option::is_none) {
        return (work(), vec![Ok(None); n]);
    }
    std::thread::scope(|scope| {
        let ask = move || {
            // Moved, or what is borrowed from it could not leave the thread.
            let constraints = constraints;
            constraints.iter_mut().map(|c| c.as_mut().map_or(Ok(None), |c| c.allowed())).collect()
        };
        let asked = std::thread::Builder::new().name("masks".into()).spawn_scoped(scope, ask);
        let done = work();
        let masks = match asked.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(masks)) => masks,
            Ok(Err(_)) => vec![Err(ConstraintError("it ended in a panic".into())); n],
            Err(error) => vec![Err(ConstraintError(format!("there is no thread for it: {error}"))); n],
        };
        (done, masks)
    })
}
