//! Memory for weights and caches: in huge pages where the system gives them.
//!
//! Weights are read from one end to the other in every step. In pages of 4 KiB the processor looks up a translation
//! every few dozen nanoseconds and reads no further ahead than a page; in huge ones memory gives half as much again.

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

/// A huge page of the usual size.
const HUGE: usize = 2 << 20;

/// What pieces start at a multiple of: a cache line.
const LINE: usize = 64;

/// Asks for huge pages under what is not yet in memory of `numbers`, be they anonymous or of a file. It is a wish:
/// nothing but speed depends on it.
pub fn prefer_huge_pages<T>(numbers: &[T]) {
    const PAGE: usize = 4096;
    let range = numbers.as_ptr_range();
    let start = (range.start as usize).next_multiple_of(PAGE);
    let end = range.end as usize / PAGE * PAGE;
    if start < end {
        // SAFETY: the pages lie inside of memory that the caller holds, and the advice changes no content.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    }
}

/// Zeroed memory that is handed out piece by piece.
#[derive(Debug)]
pub struct Arena {
    region: Arc<Region>,
    used: usize,
}

/// A piece of an [`Arena`], which it keeps alive.
#[derive(Debug)]
pub struct Piece {
    region: Arc<Region>,
    start: usize,
    length: usize,
}

/// An anonymous mapping.
#[derive(Debug)]
struct Region {
    base: NonNull<u8>,
    mapped: usize,
    /// Where the first huge page begins.
    first: usize,
}

// SAFETY: the region is plain memory; who may touch which part of it is `Piece`'s matter.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Arena {
    /// An arena for pieces of together `length` bytes, with [`Arena::room`] for each. Nothing is in memory before it
    /// is written to.
    ///
    /// # Errors
    /// Where the system has no room for the addresses.
    pub fn new(length: usize) -> io::Result<Self> {
        Ok(Self { region: Arc::new(Region::new(length)?), used: 0 })
    }

    /// How much of an arena a piece of `length` bytes takes.
    #[must_use]
    pub fn room(length: usize) -> usize {
        length.next_multiple_of(LINE)
    }

    /// The next piece.
    ///
    /// # Panics
    /// Where the arena was made too small.
    pub fn take(&mut self, length: usize) -> Piece {
        let start = self.region.first + self.used;
        self.used += Self::room(length);
        assert!(start + length <= self.region.mapped, "the arena was made for all its pieces");
        Piece { region: Arc::clone(&self.region), start, length }
    }
}

impl Region {
    fn new(length: usize) -> io::Result<Self> {
        let mapped = length.next_multiple_of(LINE) + HUGE;
        // SAFETY: a new anonymous mapping touches nothing that exists.
        let base = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            libc::mmap(std::ptr::null_mut(), mapped, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(io::Error::last_os_error)?;
        let first = (base.as_ptr() as usize).next_multiple_of(HUGE) - base.as_ptr() as usize;
        // Only whole ones: the rest would take more memory than it holds.
        let whole = length / HUGE * HUGE;
        if whole > 0 {
            // SAFETY: the range lies inside of the mapping, and the advice changes no content.
            unsafe { libc::madvise(base.as_ptr().add(first).cast(), whole, libc::MADV_HUGEPAGE) };
        }
        Ok(Self { base, mapped, first })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this size, and no piece is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped) };
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: it lies inside of the region, which lives as long, and no other piece overlaps it.
        unsafe { std::slice::from_raw_parts(self.region.base.as_ptr().add(self.start), self.length) }
    }
}

impl DerefMut for Piece {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and whoever holds this piece mutably holds it alone.
        unsafe { std::slice::from_raw_parts_mut(self.region.base.as_ptr().add(self.start), self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zero_and_apart_and_outlive_their_arena() {
        let lengths = [5 << 20, 3, 0, 100_000];
        let mut arena = Arena::new(lengths.into_iter().map(Arena::room).sum()).unwrap();
        let mut pieces = lengths.map(|length| arena.take(length));
        drop(arena);
        for (value, piece) in (1..).zip(&mut pieces) {
            assert!(piece.iter().all(|byte| *byte == 0));
            assert_eq!(piece.as_ptr() as usize % LINE, 0);
            piece.fill(value);
        }
        for (value, (piece, length)) in (1..).zip(pieces.iter().zip(lengths)) {
            assert_eq!(piece.len(), length);
            assert!(piece.iter().all(|byte| *byte == value));
        }
    }

    #[test]
    fn advice_leaves_numbers_as_they_are() {
        let numbers: Vec<u32> = (0..2_000_000).collect();
        prefer_huge_pages(&numbers);
        assert!(numbers.iter().zip(0..).all(|(found, expected)| *found == expected));
        prefer_huge_pages(&numbers[..3]);
    }
}
