//! Which blocks of the KV cache are used by whom, and what those hold that nobody uses. Integers only.
//!
//! In: how many are wanted, and names of what they hold. Out: block numbers. A block has one writer; whoever begins
//! in the same way reads it too. A block that nobody uses keeps what it holds until it is wanted for something else,
//! the least recently used first. It must not know tensors or tokens.

use std::collections::BTreeMap;

use super::prefix::Prefix;

/// All blocks of a cache.
#[derive(Debug)]
pub struct BlockPool {
    blocks: Vec<Block>,
    /// Blocks that hold nothing of use; the last is given out next, so that the most recently used memory is used
    /// again.
    empty: Vec<u32>,
    /// Blocks that nobody uses and that hold something, by when they were last used.
    idle: BTreeMap<u64, u32>,
    /// Where what is known is held.
    known: BTreeMap<Prefix, u32>,
    /// Counts releases, so that no two blocks were last used at the same time.
    time: u64,
    touched: u32,
}

#[derive(Clone, Debug, Default)]
struct Block {
    users: u32,
    holds: Option<Prefix>,
    last_used: u64,
}

impl BlockPool {
    /// A pool of `total` blocks that hold nothing.
    #[must_use]
    pub fn new(total: u32) -> Self {
        Self {
            blocks: vec![Block::default(); total as usize],
            empty: (0..total).rev().collect(),
            idle: BTreeMap::new(),
            known: BTreeMap::new(),
            time: 0,
            touched: 0,
        }
    }

    /// The blocks that hold the longest known beginning of `prefix`, which have one more user each from now on.
    pub fn share(&mut self, prefix: &[Prefix]) -> Vec<u32> {
        let blocks: Vec<u32> = prefix.iter().map_while(|name| self.known.get(name).copied()).collect();
        for number in &blocks {
            let block = &mut self.blocks[*number as usize];
            if block.users == 0 {
                self.idle.remove(&block.last_used);
            }
            block.users += 1;
        }
        blocks
    }

    /// How many of the first of these it has.
    #[must_use]
    pub fn knows(&self, prefix: &[Prefix]) -> u32 {
        let known = prefix.iter().take_while(|name| self.known.contains_key(name)).count();
        u32::try_from(known).expect("there are fewer than blocks")
    }

    /// Takes `n` blocks to write to, or none if there are fewer.
    pub fn take(&mut self, n: u32) -> Option<Vec<u32>> {
        (n <= self.available()).then(|| (0..n).map_while(|_| self.take_one()).collect())
    }

    fn take_one(&mut self) -> Option<u32> {
        let number = self.empty.pop().or_else(|| {
            let (_, number) = self.idle.pop_first()?;
            if let Some(name) = self.blocks[number as usize].holds.take() {
                self.known.remove(&name);
            }
            Some(number)
        })?;
        self.blocks[number as usize].users = 1;
        self.touched = self.touched.max(number + 1);
        Some(number)
    }

    /// A block is full, and this is what it holds from now on. Of two that hold the same, the first is shared.
    pub fn learn(&mut self, number: u32, name: Prefix) {
        if self.known.contains_key(&name) {
            return;
        }
        let block = &mut self.blocks[number as usize];
        debug_assert!(block.users > 0 && block.holds.is_none(), "only its writer knows when a block is full");
        block.holds = Some(name);
        self.known.insert(name, number);
    }

    /// A user of these blocks of one sequence, in their order, needs them no more. The last of them will be the first
    /// to be used for something else, since it is worth nothing without those before it.
    pub fn give(&mut self, blocks: &[u32]) {
        for number in blocks.iter().rev() {
            let block = &mut self.blocks[*number as usize];
            debug_assert!(block.users > 0, "a block was given back twice");
            block.users -= 1;
            match block.holds {
                _ if block.users > 0 => {}
                None => self.empty.push(*number),
                Some(_) => {
                    self.time += 1;
                    block.last_used = self.time;
                    self.idle.insert(self.time, *number);
                }
            }
        }
    }

    /// All blocks.
    #[must_use]
    pub fn total(&self) -> u32 {
        u32::try_from(self.blocks.len()).expect("a pool is made of a number of blocks that is a u32")
    }

    /// Blocks that nobody uses, whatever they hold.
    #[must_use]
    pub fn available(&self) -> u32 {
        u32::try_from(self.empty.len() + self.idle.len()).expect("there are at most as many as in all")
    }

    /// Blocks that somebody uses.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.total() - self.available()
    }

    /// Blocks that were ever written to: only those have touched their memory.
    #[must_use]
    pub const fn touched(&self) -> u32 {
        self.touched
    }
}

#[cfg(test)]
impl BlockPool {
    /// Says whether the books are right, given the tables of all who use blocks.
    pub(super) fn check<'a>(&self, tables: impl Iterator<Item = &'a [u32]>) {
        let mut users = vec![0; self.blocks.len()];
        tables.flatten().for_each(|number| users[*number as usize] += 1);
        let counted: Vec<u32> = self.blocks.iter().map(|block| block.users).collect();
        assert_eq!(users, counted, "every user is counted, and nobody else");
        let unused: Vec<u32> = (0..).zip(&users).filter(|(_, users)| **users == 0).map(|(n, _)| n).collect();
        let mut listed: Vec<u32> = self.empty.iter().chain(self.idle.values()).copied().collect();
        listed.sort_unstable();
        assert_eq!(listed, unused, "what nobody uses is there to be taken, once");
        for (number, block) in self.blocks.iter().enumerate() {
            assert!(block.users <= 1 || block.holds.is_some(), "{number} has two who may write");
            if let Some(name) = block.holds {
                assert_eq!(self.known.get(&name).map(|n| *n as usize), Some(number));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<const N: usize>(salt: &str) -> [Prefix; N] {
        let mut name = Prefix::empty(salt.as_bytes());
        std::array::from_fn(|_| {
            name = name.then(&[0]);
            name
        })
    }

    #[test]
    fn blocks_come_in_order_and_back_again() {
        let mut pool = BlockPool::new(4);
        let first = pool.take(3).unwrap();
        assert_eq!((first.as_slice(), pool.used()), (&[0, 1, 2][..], 3));
        assert_eq!(pool.take(2), None);
        pool.give(&first);
        assert_eq!((pool.touched(), pool.used()), (3, 0));
        assert_eq!(pool.take(4).unwrap(), [0, 1, 2, 3]);
    }

    #[test]
    fn what_blocks_hold_is_shared_and_kept_until_they_are_needed() {
        let mut pool = BlockPool::new(4);
        let prefix: [Prefix; 3] = names("a");
        let blocks = pool.take(3).unwrap();
        for (number, name) in blocks.iter().zip(prefix) {
            pool.learn(*number, name);
        }
        assert_eq!(pool.share(&prefix[..2]), blocks[..2], "somebody else begins in the same way");
        assert!(pool.share(&names::<1>("b")).is_empty(), "others do not");
        pool.give(&blocks);
        assert_eq!((pool.used(), pool.available()), (2, 2));
        pool.give(&blocks[..2]);
        assert_eq!((pool.used(), pool.available()), (0, 4));

        let other = pool.take(2).unwrap();
        assert_eq!(other, [3, blocks[2]], "first what is empty, then the end of what was used longest ago");
        assert_eq!(pool.share(&prefix), blocks[..2], "the beginning is still known");
        assert_eq!(pool.take(1), None);
    }

    #[test]
    fn of_two_that_hold_the_same_one_is_known() {
        let mut pool = BlockPool::new(2);
        let [name] = names("a");
        let (first, second) = (pool.take(1).unwrap(), pool.take(1).unwrap());
        pool.learn(first[0], name);
        pool.learn(second[0], name);
        pool.give(&second);
        pool.give(&first);
        assert_eq!(pool.take(2).unwrap(), [second[0], first[0]], "the second was empty at once");
        assert!(pool.share(&[name]).is_empty());
    }
}
