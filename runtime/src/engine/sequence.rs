//! One request as the scheduler sees it: Waiting → Prefill → Decode → gone. Integers only.

use contract::memory::BLOCK_TOKENS;

/// Names a sequence for as long as the engine lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

/// What a sequence is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Blocks.
    Waiting,
    /// The rest of its prompt.
    Prefill,
    /// Its next token.
    Decode,
}

/// A prompt and what has been generated.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// Its name.
    pub id: SequenceId,
    tokens: Vec<u32>,
    n_prompt: u32,
    max_tokens: u32,
    /// Tokens whose keys and values are in the cache.
    n_cached: u32,
    blocks: Vec<u32>,
}

impl Sequence {
    /// A sequence that has generated nothing yet. The prompt is not empty and fits in the context with
    /// `max_tokens`, which the caller has checked.
    #[must_use]
    pub fn new(id: SequenceId, prompt: Vec<u32>, max_tokens: u32) -> Self {
        let n_prompt = u32::try_from(prompt.len()).expect("a prompt fits in a context, which is a u32");
        Self { id, tokens: prompt, n_prompt, max_tokens, n_cached: 0, blocks: Vec::new() }
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

    /// Blocks that it needs to be sure that it can be finished: the last token is never read back.
    #[must_use]
    pub fn n_blocks(&self) -> u32 {
        (self.n_prompt + self.max_tokens - 1).div_ceil(BLOCK_TOKENS)
    }

    /// Gets its blocks.
    pub fn admit(&mut self, blocks: Vec<u32>) {
        self.blocks = blocks;
    }

    /// Gives its blocks back.
    pub fn release(&mut self) -> Vec<u32> {
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

    /// Blocks that hold the first `n` tokens.
    #[must_use]
    pub fn table(&self, n: u32) -> &[u32] {
        &self.blocks[..n.div_ceil(BLOCK_TOKENS) as usize]
    }

    /// `n` more tokens are in the cache.
    pub fn cached(&mut self, n: u32) {
        self.n_cached += n;
    }

    /// A token was generated; says whether there may be another.
    pub fn push(&mut self, token: u32) -> bool {
        self.tokens.push(token);
        self.n_tokens() - self.n_prompt < self.max_tokens
    }

    /// Prompt and answer.
    #[must_use]
    pub fn n_tokens(&self) -> u32 {
        u32::try_from(self.tokens.len()).expect("a sequence fits in a context, which is a u32")
    }
}
