//! One output slice written by several tasks of the pool, each in places of its own.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice that tasks may cut disjoint pieces from.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    length: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a `&mut [T]` whose pieces go to several threads; `piece` requires that they are disjoint.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), length: slice.len(), slice: PhantomData }
    }

    /// The piece at `range`, which must lie inside.
    ///
    /// # Safety
    /// No two live pieces may overlap.
    #[allow(clippy::mut_from_ref, reason = "that is the purpose; the caller keeps the pieces disjoint")]
    #[inline(always)]
    pub(crate) unsafe fn piece(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.length, "a piece lies inside its slice");
        // SAFETY: the range was checked against the slice that `self` borrows, and the caller promises that
        // no other live piece overlaps it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.end - range.start) }
    }
}
