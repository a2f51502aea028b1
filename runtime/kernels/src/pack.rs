//! From the rows of a checkpoint to packed tiles. Only bytes move (and Q8_0 gains its bias), so it is lossless.

use crate::format::{Format, MAX_BLOCK_BYTES, Packed, TILE};
use crate::shared::Shared;
use crate::{Kernels, share};

/// A weight matrix as the checkpoint stores it: row after row, ggml's blocks or little-endian floats.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// How its numbers are stored.
    pub format: Format,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub columns: usize,
    /// `rows` rows of `format.row_bytes(columns)` bytes.
    pub bytes: &'a [u8],
}

/// Why a matrix cannot be packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// The columns do not fill the format's blocks, or the size is out of range.
    #[error("{rows} × {columns} is no shape for {format:?}, whose rows are blocks of {block}")]
    Shape {
        /// The format.
        format: Format,
        /// Output features.
        rows: usize,
        /// Input features.
        columns: usize,
        /// Columns of a block.
        block: usize,
    },
    /// The bytes given, or the room for the result, are not what the shape needs.
    #[error("{found} bytes where the shape needs {needed}")]
    Bytes {
        /// What there is.
        found: usize,
        /// What there should be.
        needed: usize,
    },
}

impl Kernels {
    /// Packs `source` into `out`, which has exactly [`Format::packed_bytes`], in parallel.
    ///
    /// # Errors
    /// Where the shape does not suit the format, or `source` or `out` is not of the right size.
    pub fn pack<'a>(&self, source: Source<'_>, out: &'a mut [u8]) -> Result<Packed<'a>, PackError> {
        let Source { format, rows, columns, bytes } = source;
        let shape = PackError::Shape { format, rows, columns, block: format.block_columns() };
        let needed = format.packed_bytes(rows, columns).ok_or(shape)?;
        let row_bytes = format.row_bytes(columns).ok_or(shape)?;
        if needed == 0 {
            return Err(shape);
        }
        for (found, needed) in [(bytes.len(), rows * row_bytes), (out.len(), needed)] {
            if found != needed {
                return Err(PackError::Bytes { found, needed });
            }
        }
        let n_tiles = rows.div_ceil(TILE);
        let n_tasks = n_tiles.min(self.pool.threads() * 4);
        let shared = Shared::new(out);
        self.pool.par_for(n_tasks, |task| {
            for tile in share(n_tiles, n_tasks, task) {
                // SAFETY: each tile is one task's, and tiles do not overlap.
                let to = unsafe { shared.piece(tile * TILE * row_bytes..(tile + 1) * TILE * row_bytes) };
                let first = tile * TILE;
                let last = rows.min(first + TILE);
                pack_tile(format, &bytes[first * row_bytes..last * row_bytes], row_bytes, to);
            }
        });
        Ok(Packed::new(format, rows, columns, out).expect("the size was checked"))
    }
}

/// Packs up to sixteen rows of `row_bytes` each.
fn pack_tile(format: Format, rows: &[u8], row_bytes: usize, to: &mut [u8]) {
    let block_bytes = format.block_bytes();
    for (block, to) in to.chunks_exact_mut(TILE * block_bytes).enumerate() {
        for row in 0..TILE {
            match rows.get(row * row_bytes + block * block_bytes..) {
                Some(from) if from.len() >= block_bytes => pack_block(format, &from[..block_bytes], row, to),
                _ => pack_block(format, &[0; MAX_BLOCK_BYTES][..block_bytes], row, to),
            }
        }
    }
}

/// Puts one row's block in its places in the tile's block.
fn pack_block(format: Format, from: &[u8], row: usize, to: &mut [u8]) {
    let mut start = 0;
    for &(length, count) in format.runs() {
        for _ in 0..count {
            let bias = format.bias(start);
            let to = &mut to[TILE * start + row * length..][..length];
            for (to, from) in to.iter_mut().zip(&from[start..start + length]) {
                *to = from.wrapping_add(bias);
            }
            start += length;
        }
    }
}

/// Takes one row's block from its places in the tile's block.
pub(crate) fn unpack_block(format: Format, from: &[u8], row: usize, to: &mut [u8]) {
    let mut start = 0;
    for &(length, count) in format.runs() {
        for _ in 0..count {
            let bias = format.bias(start);
            let from = &from[TILE * start + row * length..][..length];
            for (to, from) in to[start..start + length].iter_mut().zip(from) {
                *to = from.wrapping_sub(bias);
            }
            start += length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, LAYOUT};

    #[test]
    fn floats_become_columns_of_sixteen_rows() {
        let kernels = Kernels::new(Isa::scalar(), 2);
        let rows: Vec<u8> = (0..17 * 3).flat_map(|number| (number as f32).to_le_bytes()).collect();
        let mut out = vec![1; Format::F32.packed_bytes(17, 3).unwrap()];
        kernels.pack(Source { format: Format::F32, rows: 17, columns: 3, bytes: &rows }, &mut out).unwrap();
        let at = |index: usize| f32::from_le_bytes(out[4 * index..][..4].try_into().unwrap());
        for row in 0..17 {
            for column in 0..3 {
                let index = row / 16 * 48 + column * 16 + row % 16;
                assert_eq!(at(index), (row * 3 + column) as f32);
            }
        }
        assert_eq!(at(48 + 1), 0.0, "rows that are not there are zero");
    }

    /// Files of packed weights are told apart by [`LAYOUT`] alone.
    #[test]
    fn packed_bytes_are_those_of_this_layout() {
        // FNV-1a (Fowler, Noll and Vo).
        let digest = |bytes: &[u8]| {
            bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            })
        };
        let packed = |format: Format| {
            let (rows, columns) = (TILE + 3, 2 * format.block_columns());
            let n_bytes = rows * format.row_bytes(columns).unwrap();
            let bytes: Vec<u8> =
                (0..n_bytes as u32).map(|i| (i.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect();
            let mut out = vec![1; format.packed_bytes(rows, columns).unwrap()];
            let source = Source { format, rows, columns, bytes: &bytes };
            Kernels::new(Isa::scalar(), 1).pack(source, &mut out).unwrap();
            (format, format!("{:016x}", digest(&out)))
        };
        let expected = [
            (Format::Q4_0, "704c33758b8d2a87"),
            (Format::Q4_1, "5fc20d004e59f8b8"),
            (Format::Q8_0, "032e4f3f9a4d3a62"),
            (Format::Q4K, "d4d2934cb1b65224"),
            (Format::Q5K, "568d755b87b3f65b"),
            (Format::Q6K, "12316d67beedf2be"),
            (Format::F32, "528394268a10dfb5"),
            (Format::F16, "70f2242764016d20"),
            (Format::BF16, "70f2242764016d20"),
        ];
        assert_eq!(LAYOUT, 1, "the digests are those of this layout");
        let expected = expected.map(|(format, digest)| (format, digest.to_owned()));
        assert_eq!(
            Format::ALL.map(packed),
            expected,
            "packed bytes changed: bump LAYOUT, then these digests"
        );
    }

    #[test]
    fn unsuitable_shapes_and_sizes_are_refused() {
        let kernels = Kernels::new(Isa::scalar(), 1);
        let pack = |format, rows, columns, n_bytes| {
            let mut out = vec![0; Format::packed_bytes(format, rows, columns).unwrap_or(0)];
            kernels.pack(Source { format, rows, columns, bytes: &vec![0; n_bytes] }, &mut out).map(|_| ())
        };
        assert!(matches!(pack(Format::Q4_1, 16, 33, 16 * 20), Err(PackError::Shape { .. })));
        assert!(matches!(pack(Format::Q8_0, usize::MAX, 32, 0), Err(PackError::Shape { .. })));
        assert!(matches!(pack(Format::F32, usize::MAX / 4, 32, 0), Err(PackError::Shape { .. })));
        assert!(matches!(pack(Format::F32, 0, 32, 0), Err(PackError::Shape { .. })));
        assert_eq!(pack(Format::Q8_0, 2, 32, 67), Err(PackError::Bytes { found: 67, needed: 68 }));
        assert_eq!(pack(Format::Q8_0, 2, 32, 68), Ok(()));
    }
}
