//! Weight formats and the packed layout: tiles of sixteen output rows, side by side in every block of columns.
//!
//! A tile holds, for each block of its columns in turn, what sixteen lanes need at once. The size is the source's,
//! with the rows rounded up to [`TILE`]; the missing rows are zero.
//!
//! A block's bytes are cut into runs of one to four ([`Format::runs`]), and a tile's block is made of the first runs
//! of all sixteen rows, then their second runs, and so on: what a run is of stands in ggml's `ggml-common.h`. Quants
//! of Q8_0 carry a bias of 128.

/// Version of the packed layout: packed bytes of another one are something else.
pub const LAYOUT: u32 = 1;

/// Output rows of a packed tile.
pub const TILE: usize = 16;

/// Columns of a quantized block.
pub(crate) const BLOCK: usize = 32;

/// Columns of a block of blocks.
pub(crate) const SUPERBLOCK: usize = 256;

/// Bytes of the largest block.
pub(crate) const MAX_BLOCK_BYTES: usize = 210;

/// How the weights of a linear are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// ggml's Q4_0: blocks of 32 with a scale, `d · (q − 8)`.
    Q4_0,
    /// ggml's Q4_1: blocks of 32 with scale and minimum, `d · q + m`.
    Q4_1,
    /// ggml's Q8_0: blocks of 32 with a scale, `d · q`.
    Q8_0,
    /// ggml's Q4_K: superblocks of 256, `d · s · q − m · t` with six-bit `s` and `t` for every 32.
    Q4K,
    /// ggml's Q5_K: the same with five bits.
    Q5K,
    /// ggml's Q6_K: superblocks of 256, `d · s · (q − 32)` with a signed byte `s` for every 16.
    Q6K,
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// Brain floats.
    BF16,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::F32,
        Self::F16,
        Self::BF16,
    ];

    /// Columns that are stored together; a weight's columns are a multiple of it.
    #[must_use]
    pub fn block_columns(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q8_0 => BLOCK,
            Self::Q4K | Self::Q5K | Self::Q6K => SUPERBLOCK,
            Self::F32 | Self::F16 | Self::BF16 => 1,
        }
    }

    /// Bytes of one row's block.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    /// The runs of a block that stay together when it is packed: how long, and how many of them.
    pub(crate) fn runs(self) -> &'static [(usize, usize)] {
        match self {
            Self::Q4_0 => &[(2, 1), (4, 4)],
            Self::Q4_1 => &[(2, 2), (4, 4)],
            Self::Q8_0 => &[(2, 1), (4, 8)],
            Self::Q4K => &[(2, 2), (4, 3 + 32)],
            Self::Q5K => &[(2, 2), (4, 3 + 8 + 32)],
            Self::Q6K => &[(4, 32 + 16), (1, 16), (2, 1)],
            Self::F32 => &[(4, 1)],
            Self::F16 | Self::BF16 => &[(2, 1)],
        }
    }

    /// What is added to a byte of a block when it is packed.
    pub(crate) fn bias(self, byte: usize) -> u8 {
        if self == Self::Q8_0 && byte >= 2 { 0x80 } else { 0 }
    }

    /// Whether the kernels quantize the activations to multiply by it.
    pub(crate) fn is_quantized(self) -> bool {
        self.block_columns() > 1
    }

    /// Bytes of one row of `columns`, or nothing where they do not fill blocks or the number is too large.
    #[must_use]
    pub fn row_bytes(self, columns: usize) -> Option<usize> {
        if !columns.is_multiple_of(self.block_columns()) {
            return None;
        }
        (columns / self.block_columns()).checked_mul(self.block_bytes())
    }

    /// Bytes of `rows × columns` as packed, or nothing where they do not fill blocks or the number is too large.
    #[must_use]
    pub fn packed_bytes(self, rows: usize, columns: usize) -> Option<usize> {
        rows.checked_next_multiple_of(TILE)?.checked_mul(self.row_bytes(columns)?)
    }
}

/// A packed weight matrix `[rows, columns]`, row `n` giving output `n`.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    format: Format,
    rows: usize,
    columns: usize,
    bytes: &'a [u8],
}

impl<'a> Packed<'a> {
    /// A view of packed bytes; nothing where there are not exactly as many as the shape needs.
    #[must_use]
    pub fn new(format: Format, rows: usize, columns: usize, bytes: &'a [u8]) -> Option<Self> {
        let right = format.packed_bytes(rows, columns) == Some(bytes.len());
        right.then_some(Self { format, rows, columns, bytes })
    }

    /// The storage format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Output features.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The number of tiles.
    pub(crate) fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE)
    }

    /// The bytes of one tile.
    #[inline(always)]
    pub(crate) fn tile(&self, tile: usize) -> &'a [u8] {
        let bytes = self.bytes.len() / self.tiles();
        &self.bytes[tile * bytes..][..bytes]
    }
}
