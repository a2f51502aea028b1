//! Which block of the KV cache belongs to whom. Integers only.
//!
//! In: how many are wanted. Out: block numbers, each to one owner at a time.
//! It must not know tensors or tokens.

/// All blocks of a cache.
#[derive(Debug)]
pub struct BlockPool {
    /// Free blocks; the last is given out next, so that the most recently used memory is used again.
    free: Vec<u32>,
    total: u32,
    most_used: u32,
}

impl BlockPool {
    /// A pool of `total` free blocks.
    #[must_use]
    pub fn new(total: u32) -> Self {
        Self { free: (0..total).rev().collect(), total, most_used: 0 }
    }

    /// Takes `n` blocks, or none if there are fewer.
    pub fn take(&mut self, n: u32) -> Option<Vec<u32>> {
        let keep = self.free.len().checked_sub(n as usize)?;
        let mut blocks = self.free.split_off(keep);
        blocks.reverse();
        self.most_used = self.most_used.max(self.used());
        Some(blocks)
    }

    /// Gives blocks back.
    pub fn give(&mut self, blocks: Vec<u32>) {
        self.free.extend(blocks.into_iter().rev());
        debug_assert!(self.free.len() <= self.total as usize, "a block was given back twice");
    }

    /// All blocks, free or not.
    #[must_use]
    pub const fn total(&self) -> u32 {
        self.total
    }

    /// Blocks that belong to somebody.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.total - u32::try_from(self.free.len()).unwrap_or(self.total)
    }

    /// Most blocks that were ever in use: only those have touched their memory.
    #[must_use]
    pub const fn most_used(&self) -> u32 {
        self.most_used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_in_order_and_back_again() {
        let mut pool = BlockPool::new(4);
        let first = pool.take(3).unwrap();
        assert_eq!((first.as_slice(), pool.used()), (&[0, 1, 2][..], 3));
        assert_eq!(pool.take(2), None);
        pool.give(first);
        assert_eq!(pool.most_used(), 3);
        assert_eq!(pool.take(4).unwrap(), [0, 1, 2, 3]);
    }
}
