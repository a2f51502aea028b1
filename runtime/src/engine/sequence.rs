//! One request as the scheduler sees it: Waiting → Prefill → Decode → gone, and back to Waiting when its blocks are
//! needed by another. Integers only.

use contract::memory::BLOCK_TOKENS;

use super::prefix::{Prefix, Prefixes};
use super::tenants::Tenant;

/// Names a sequence for as long as the engine lives; later ones are larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

/// Whose a sequence is and how urgent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Who shares the engine's time with others.
    pub tenant: Tenant,
    /// Among sequences of one tenant, lower ones come first, as in vLLM.
    pub priority: i32,
    /// Sequences of different salts do not share cache blocks.
    pub salt: Vec<u8>,
}

/// What a sequence is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Blocks.
    Waiting,
    /// The rest of the tokens that it has.
    Prefill,
    /// Its next token.
    Decode,
}

/// A prompt and what has been generated.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// Its name.
    pub id: SequenceId,
    /// Whose it is.
    pub tenant: Tenant,
    priority: i32,
    tokens: Vec<u32>,
    n_prompt: u32,
    max_tokens: u32,
    prefixes: Prefixes,
    /// Tokens whose keys and values are in the cache.
    n_cached: u32,
    blocks: Vec<u32>,
    /// Blocks that the pool knows the content of.
    n_known: u32,
    /// Whose prompt it has too, until it begins.
    after: Option<SequenceId>,
    deadline: Option<u64>,
    /// Where logits of every token of the prompt are wanted from on.
    rows_from: Option<u32>,
    /// Whether its prompt is all that is wanted.
    only_read: bool,
    preemptions: u32,
}

impl Sequence {
    /// A sequence that has generated nothing yet. The prompt is not empty and fits in the context with
    /// `max_tokens`, which the caller has checked.
    #[must_use]
    pub fn new(id: SequenceId, class: &Class, prompt: Vec<u32>, max_tokens: u32) -> Self {
        let n_prompt = u32::try_from(prompt.len()).expect("a prompt fits in a context, which is a u32");
        let prefixes = Prefixes::new(&class.salt, &prompt);
        let Class { tenant, priority, salt: _ } = *class;
        Self {
            id,
            tenant,
            priority,
            tokens: prompt,
            n_prompt,
            max_tokens,
            prefixes,
            n_cached: 0,
            blocks: Vec::new(),
            n_known: 0,
            after: None,
            deadline: None,
            rows_from: None,
            only_read: false,
            preemptions: 0,
        }
    }

    /// The same with an end: a number of milliseconds that the scheduler will be told.
    #[must_use]
    pub fn until(self, deadline: Option<u64>) -> Self {
        Self { deadline, ..self }
    }

    /// The same with logits of every token of the prompt but the last, whose next one is chosen anyway.
    #[must_use]
    pub fn with_prompt_rows(self) -> Self {
        Self { rows_from: Some(0), ..self }
    }

    /// The same without an answer.
    #[must_use]
    pub fn only_read(self) -> Self {
        Self { only_read: true, ..self }
    }

    /// Tokens that are chosen when `n` more are in the cache.
    #[must_use]
    pub fn chosen_after(&self, n: u32) -> u32 {
        u32::from(n == self.n_todo() && !self.only_read)
    }

    /// Another answer to the same prompt, which waits until this one has read it. Both are new.
    #[must_use]
    pub fn follower(&self, id: SequenceId) -> Self {
        Self { id, after: Some(self.id), rows_from: None, ..self.clone() }
    }

    /// Whom it waits for, so that the prompt they share is read once.
    #[must_use]
    pub const fn after(&self) -> Option<SequenceId> {
        self.after
    }

    /// It waits for this one instead, or for nobody any more.
    pub const fn wait_for(&mut self, after: Option<SequenceId>) {
        self.after = after;
    }

    /// Whether it has all of its prompt in the cache.
    #[must_use]
    pub const fn has_read(&self) -> bool {
        self.n_cached >= self.n_prompt
    }

    /// When it must have ended.
    #[must_use]
    pub const fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// Times that it gave way.
    #[must_use]
    pub const fn preemptions(&self) -> u32 {
        self.preemptions
    }

    /// Tokens that may still be generated.
    #[must_use]
    pub fn n_left(&self) -> u32 {
        self.max_tokens - (self.n_tokens() - self.n_prompt)
    }

    /// How urgent it is beside others of its tenant: the lower, the more.
    #[must_use]
    pub const fn priority(&self) -> i32 {
        self.priority
    }

    /// Where it stands.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self.n_todo() {
            _ if self.blocks.is_empty() => Stage::Waiting,
            1 if self.n_cached >= self.n_prompt => Stage::Decode,
            _ => Stage::Prefill,
        }
    }

    /// Blocks that it may need at most: the last token is never read back.
    #[must_use]
    pub fn most_blocks(&self) -> u32 {
        (self.n_prompt + self.max_tokens - 1).div_ceil(BLOCK_TOKENS)
    }

    /// Blocks that it lacks to have all its tokens in the cache.
    #[must_use]
    pub fn lacks(&self) -> u32 {
        let has = u32::try_from(self.blocks.len()).expect("there are fewer blocks than tokens");
        self.n_tokens().div_ceil(BLOCK_TOKENS) - has
    }

    /// Names of the blocks that it could read instead of computing them. One token at least is computed, for the
    /// logits that come with it, and so is every other whose logits are wanted.
    #[must_use]
    pub fn readable(&self) -> &[Prefix] {
        let full = self.prefixes.full();
        let wanted = self.rows_from.unwrap_or(u32::MAX).min(self.n_tokens() - 1);
        &full[..full.len().min((wanted / BLOCK_TOKENS) as usize)]
    }

    /// Whether logits of tokens of the prompt are still wanted.
    #[must_use]
    pub const fn wants_rows(&self) -> bool {
        self.rows_from.is_some()
    }

    /// Whether logits are wanted of the token at this position, where another token follows.
    #[must_use]
    pub fn wants_row(&self, position: u32) -> bool {
        self.rows_from.is_some_and(|from| position >= from) && position + 1 < self.n_prompt
    }

    /// Starts with blocks of others that hold its beginning; gives how many tokens need not be computed.
    pub fn begin(&mut self, shared: Vec<u32>) -> u32 {
        self.n_known = u32::try_from(shared.len()).expect("there are fewer blocks than tokens");
        self.n_cached = self.n_known * BLOCK_TOKENS;
        self.blocks = shared;
        self.n_cached
    }

    /// Gets more blocks.
    pub fn grow(&mut self, blocks: Vec<u32>) {
        self.blocks.extend(blocks);
    }

    /// It gives way: its blocks, which it gives back, are another's.
    pub fn preempt(&mut self) -> Vec<u32> {
        self.preemptions += 1;
        self.release()
    }

    /// Gives its blocks back. What was in the cache has to be computed or found again.
    pub fn release(&mut self) -> Vec<u32> {
        (self.n_cached, self.n_known) = (0, 0);
        std::mem::take(&mut self.blocks)
    }

    /// Tokens that are not in the cache yet.
    #[must_use]
    pub fn n_todo(&self) -> u32 {
        self.n_tokens() - self.n_cached
    }

    /// The next `n` of them, and the position of the first.
    #[must_use]
    pub fn todo(&self, n: u32) -> (u32, &[u32]) {
        (self.n_cached, &self.tokens[self.n_cached as usize..(self.n_cached + n) as usize])
    }

    /// All its blocks.
    #[cfg(test)]
    pub(super) fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// Blocks that hold the first `n` tokens.
    #[must_use]
    pub fn table(&self, n: u32) -> &[u32] {
        &self.blocks[..n.div_ceil(BLOCK_TOKENS) as usize]
    }

    /// `n` more tokens are in the cache; gives the blocks that became full by that, and what they hold.
    pub fn cached(&mut self, n: u32) -> impl Iterator<Item = (u32, Prefix)> {
        self.n_cached += n;
        let cached = self.n_cached;
        self.rows_from = self.rows_from.filter(|_| !self.has_read()).map(|from| from.max(cached));
        let full = self.n_known as usize..(self.n_cached / BLOCK_TOKENS) as usize;
        self.n_known = self.n_cached / BLOCK_TOKENS;
        let blocks = self.blocks[full.clone()].iter().copied();
        blocks.zip(self.prefixes.full()[full].iter().copied())
    }

    /// A token was generated; says whether there may be another.
    pub fn push(&mut self, token: u32) -> bool {
        self.tokens.push(token);
        self.prefixes.extend(&self.tokens);
        self.n_tokens() - self.n_prompt < self.max_tokens
    }

    /// Prompt and answer.
    #[must_use]
    pub fn tokens(&self) -> (&[u32], &[u32]) {
        self.tokens.split_at(self.n_prompt as usize)
    }

    /// Tokens of prompt and answer.
    #[must_use]
    pub fn n_tokens(&self) -> u32 {
        u32::try_from(self.tokens.len()).expect("a sequence fits in a context, which is a u32")
    }
}
