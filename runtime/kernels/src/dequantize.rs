//! What the numbers of a block stand for, as ggml defines it (`ggml-quants.c`, `dequantize_row_*`).

use half::{bf16, f16};

use crate::format::{BLOCK, Format};

/// The numbers of one block as the checkpoint stores it; lossless but for the products, which `f32` rounds.
pub(crate) fn dequantize(format: Format, block: &[u8], to: &mut [f32]) {
    match format {
        Format::Q4_0 => {
            let scale = half(block, 0);
            nibbles(&block[2..], to, |quant| scale * f32::from(i16::from(quant) - 8));
        }
        Format::Q4_1 => {
            let (scale, minimum) = (half(block, 0), half(block, 2));
            nibbles(&block[4..], to, |quant| scale * f32::from(quant) + minimum);
        }
        Format::Q8_0 => {
            let scale = half(block, 0);
            for (to, quant) in to.iter_mut().zip(&block[2..]) {
                *to = scale * f32::from(quant.cast_signed());
            }
        }
        Format::Q4K => parts(&block[..16], &block[16..], &[0; 32], to),
        Format::Q5K => parts(&block[..16], &block[48..], &block[16..48], to),
        Format::Q6K => sixteenths(block, to),
        Format::F32 => to[0] = f32::from_le_bytes(block.try_into().expect("four bytes")),
        Format::F16 => to[0] = half(block, 0),
        Format::BF16 => to[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
    }
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Low nibbles are the first half of the columns, high ones the second.
fn nibbles(quants: &[u8], to: &mut [f32], value: impl Fn(u8) -> f32) {
    let (low, high) = to.split_at_mut(BLOCK / 2);
    for ((low, high), quant) in low.iter_mut().zip(high).zip(quants) {
        (*low, *high) = (value(quant & 15), value(quant >> 4));
    }
}

/// Q4_K and Q5_K: eight parts of 32 columns, two of them in the nibbles of 32 bytes.
fn parts(head: &[u8], quants: &[u8], fifth_bits: &[u8], to: &mut [f32]) {
    let (scale, minimum, packed) = (half(head, 0), half(head, 2), &head[4..]);
    for (part, to) in to.chunks_exact_mut(BLOCK).enumerate() {
        let (s, t) = if part < 4 {
            (packed[part] & 63, packed[part + 4] & 63)
        } else {
            let high = |at: usize| (packed[at] >> 6) << 4;
            (packed[part + 4] & 15 | high(part - 4), packed[part + 4] >> 4 | high(part))
        };
        let (scale, minimum) = (scale * f32::from(s), minimum * f32::from(t));
        let bytes = &quants[part / 2 * BLOCK..][..BLOCK];
        for ((to, byte), bits) in to.iter_mut().zip(bytes).zip(fifth_bits) {
            let quant = (byte >> (4 * (part % 2))) & 15 | ((bits >> part) & 1) << 4;
            *to = scale * f32::from(quant) - minimum;
        }
    }
}

/// Q6_K: two halves of 128 columns, each four quarters whose low four bits share 64 bytes and high two bits share 32.
fn sixteenths(block: &[u8], to: &mut [f32]) {
    let (low, high, scales, scale) = (&block[..128], &block[128..192], &block[192..208], half(block, 208));
    for (part, to) in to.chunks_exact_mut(BLOCK).enumerate() {
        let (side, quarter) = (part / 4, part % 4);
        let low = &low[64 * side + 32 * (quarter % 2)..][..BLOCK];
        let high = &high[32 * side..][..BLOCK];
        for (column, to) in to.iter_mut().enumerate() {
            let quant =
                (low[column] >> (4 * (quarter / 2))) & 15 | ((high[column] >> (2 * quarter)) & 3) << 4;
            let scale = scale * f32::from(scales[2 * part + column / 16].cast_signed());
            *to = scale * f32::from(i16::from(quant) - 32);
        }
    }
}
