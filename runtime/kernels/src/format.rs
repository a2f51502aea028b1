//! Weight formats and the packed layout: tiles of sixteen output rows, side by side in every block of columns.
//!
//! A tile holds, for each block of its columns in turn, what sixteen lanes need at once. The size is the source's,
//! with the rows rounded up to [`TILE`]; the missing rows are zero.
//!
//! | format | columns a block | bytes a tile's block | contents |
//! |---|---|---|---|
//! | Q4_1 | 32 | 16·20 | 16 scales, 16 minima (f16); then for g in 0..4, 16 rows × 4 bytes: low nibbles are columns 4g.., high ones 16+4g.. |
//! | Q8_0 | 32 | 16·34 | 16 scales (f16); then for g in 0..8, 16 rows × 4 bytes: columns 4g.., plus 128 |
//! | F32, F16, BF16 | 1 | 16·4, 16·2 | 16 numbers, little endian |

/// Version of the packed layout: packed bytes of another one are something else.
pub const LAYOUT: u32 = 1;

/// Output rows of a packed tile.
pub const TILE: usize = 16;

/// Columns of a quantized block.
pub(crate) const BLOCK: usize = 32;

/// How the weights of a linear are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// ggml's Q4_1: blocks of 32 with scale and minimum, `d · q + m`.
    Q4_1,
    /// ggml's Q8_0: blocks of 32 with a scale, `d · q`.
    Q8_0,
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// Brain floats.
    BF16,
}

impl Format {
    /// Columns that are stored together; a weight's columns are a multiple of it.
    #[must_use]
    pub fn block_columns(self) -> usize {
        match self {
            Self::Q4_1 | Self::Q8_0 => BLOCK,
            Self::F32 | Self::F16 | Self::BF16 => 1,
        }
    }

    /// Bytes of one row's block.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        match self {
            Self::Q4_1 => 20,
            Self::Q8_0 => 34,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
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
