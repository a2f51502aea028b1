use half::{bf16, f16};
use proptest::prelude::*;

use crate::dequantize::dequantize;
use crate::{Format, Isa, Kernels, Packed, Source};

/// Pseudo-random numbers: splitmix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

/// A weight as stored, and the numbers that it stands for.
struct Weight {
    format: Format,
    rows: usize,
    columns: usize,
    bytes: Vec<u8>,
    truth: Vec<f64>,
}

impl Weight {
    fn random(format: Format, rows: usize, columns: usize, random: &mut Random) -> Self {
        let mut weight = Self { format, rows, columns, bytes: Vec::new(), truth: Vec::new() };
        for _ in 0..rows * columns / format.block_columns() {
            weight.push_block(random);
        }
        weight
    }

    /// A block of random bits, but for its scales, which are such that its numbers are about as large as one.
    fn push_block(&mut self, random: &mut Random) {
        let mut block: Vec<u8> = (0..self.format.block_bytes()).map(|_| random.next() as u8).collect();
        let (halves, size): (&[usize], f32) = match self.format {
            Format::Q4_0 => (&[0], 0.1),
            Format::Q4_1 => (&[0, 2], 0.1),
            Format::Q8_0 => (&[0], 0.01),
            Format::Q4K => (&[0, 2], 0.001),
            Format::Q5K => (&[0, 2], 0.0005),
            Format::Q6K => (&[208], 0.0003),
            Format::F16 => (&[0], 1.0),
            Format::F32 => {
                block = random.float().to_le_bytes().to_vec();
                (&[], 0.0)
            }
            Format::BF16 => {
                block = bf16::from_f32(random.float()).to_le_bytes().to_vec();
                (&[], 0.0)
            }
        };
        for &half in halves {
            block[half..half + 2].copy_from_slice(&f16::from_f32(random.float() * size).to_le_bytes());
        }
        let mut numbers = vec![0.0; self.format.block_columns()];
        dequantize(self.format, &block, &mut numbers);
        self.truth.extend(numbers.into_iter().map(f64::from));
        self.bytes.extend(block);
    }

    fn pack<'a>(&self, kernels: &Kernels, to: &'a mut Vec<u8>) -> Packed<'a> {
        let Self { format, rows, columns, ref bytes, .. } = *self;
        to.resize(format.packed_bytes(rows, columns).unwrap(), 0);
        kernels.pack(Source { format, rows, columns, bytes }, to).unwrap()
    }
}

fn multiplied(kernels: &Kernels, weights: &[&Weight], x: &[f32]) -> Vec<f32> {
    let mut stores: Vec<Vec<u8>> = weights.iter().map(|_| Vec::new()).collect();
    let parts: Vec<Packed<'_>> =
        weights.iter().zip(&mut stores).map(|(weight, store)| weight.pack(kernels, store)).collect();
    let width: usize = weights.iter().map(|weight| weight.rows).sum();
    let mut y = vec![f32::NAN; x.len() / weights[0].columns * width];
    kernels.linear(&parts, x, &mut y);
    y
}

#[test]
fn results_are_near_the_truth() {
    let mut random = Random(1);
    let (rows, columns, n) = (37, 512, 5);
    let x = random.floats(n * columns);
    for format in Format::ALL {
        let weight = Weight::random(format, rows, columns, &mut random);
        let y = multiplied(&Kernels::new(Isa::scalar(), 1), &[&weight], &x);
        for row in 0..n {
            for output in 0..rows {
                let products = (0..columns).map(|column| {
                    weight.truth[output * columns + column] * f64::from(x[row * columns + column])
                });
                let truth: f64 = products.clone().sum();
                let size: f64 = products.map(f64::abs).sum();
                // Quantized activations are off by at most half of 1/127 of the block's largest.
                let allowed = if format.is_quantized() { 0.01 * size + 0.02 } else { 1e-6 * size };
                let found = f64::from(y[row * rows + output]);
                assert!(
                    (found - truth).abs() <= allowed,
                    "{format:?} [{row}, {output}]: {found} for {truth}"
                );
            }
        }
    }
}

#[test]
fn extreme_quants_do_not_overflow() {
    let x = [1.0f32; 64].map(|value| if value > 0.0 { -1.0 } else { 1.0 });
    for quant in [-128i8, 127] {
        let mut bytes = Vec::new();
        for _ in 0..2 {
            bytes.extend(f16::ONE.to_le_bytes());
            bytes.extend([quant.cast_unsigned(); 32]);
        }
        let weight = Weight { format: Format::Q8_0, rows: 1, columns: 64, bytes, truth: Vec::new() };
        for isa in Isa::available() {
            let y = multiplied(&Kernels::new(isa, 1), &[&weight], &x);
            assert_eq!(y, [-64.0 * f32::from(quant)], "{}", isa.name());
        }
    }
}

#[test]
fn the_wrong_kernels_are_wrong() {
    let mut random = Random(2);
    let x = random.floats(256);
    for format in Format::ALL.into_iter().filter(|format| format.is_quantized()) {
        let weight = Weight::random(format, 16, 256, &mut random);
        let right = multiplied(&Kernels::new(Isa::scalar(), 1), &[&weight], &x);
        assert_ne!(multiplied(&Kernels::new(Isa::wrong(), 1), &[&weight], &x), right);
    }
}

#[test]
fn embedding_rows_are_the_stored_numbers() {
    let mut random = Random(3);
    let kernels = Kernels::new(Isa::detect(), 2);
    for format in Format::ALL {
        let weight = Weight::random(format, 37, 256, &mut random);
        let mut store = Vec::new();
        let packed = weight.pack(&kernels, &mut store);
        let tokens = [36, 0, 17];
        let mut y = vec![0.0; tokens.len() * 256];
        kernels.embed(packed, &tokens, &mut y);
        for (token, row) in tokens.iter().zip(y.chunks(256)) {
            for (found, truth) in row.iter().zip(&weight.truth[*token as usize * 256..]) {
                assert_eq!(f64::from(*found), *truth, "{format:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Stacked parts of all formats, on every instruction set and number of threads: the same bits, which are
    /// also those of each row alone.
    #[test]
    fn bits_depend_on_nothing_but_the_row(
        seed in any::<u64>(),
        rows in proptest::collection::vec(1usize..50, Format::ALL.len()),
        superblocks in 0usize..3,
        n in 1usize..150,
        threads in 1usize..4,
    ) {
        let mut random = Random(seed);
        // Without superblocks, columns that only the other formats can have.
        let columns = if superblocks == 0 { 96 } else { 256 * superblocks };
        let weights: Vec<Weight> = Format::ALL
            .iter()
            .filter(|format| columns.is_multiple_of(format.block_columns()))
            .zip(&rows)
            .map(|(format, rows)| Weight::random(*format, *rows, columns, &mut random))
            .collect();
        let weights: Vec<&Weight> = weights.iter().collect();
        let x = random.floats(n * columns);
        let together = multiplied(&Kernels::new(Isa::scalar(), 1), &weights, &x);
        for isa in Isa::available() {
            let kernels = Kernels::new(isa, threads);
            prop_assert_eq!(&multiplied(&kernels, &weights, &x), &together, "{}", isa.name());
            let alone: Vec<f32> = x.chunks(columns).flat_map(|row| multiplied(&kernels, &weights, row)).collect();
            prop_assert_eq!(&alone, &together, "{} row by row", isa.name());
        }
    }
}
