use half::{bf16, f16};
use proptest::prelude::*;

use crate::{Format, Isa, Kernels, Packed, Source};

const FORMATS: [Format; 5] = [Format::Q4_1, Format::Q8_0, Format::F32, Format::F16, Format::BF16];

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

    fn push_half(&mut self, value: f32) -> f64 {
        self.bytes.extend(f16::from_f32(value).to_le_bytes());
        f16::from_f32(value).to_f64()
    }

    fn push_block(&mut self, random: &mut Random) {
        let value = random.float();
        match self.format {
            Format::Q4_1 => {
                let (scale, minimum) = (self.push_half(value * 0.1), self.push_half(random.float()));
                let quants: [u8; 16] = std::array::from_fn(|_| random.next() as u8);
                let nibbles = quants.iter().map(|byte| byte & 15).chain(quants.iter().map(|byte| byte >> 4));
                self.truth.extend(nibbles.map(|nibble| scale * f64::from(nibble) + minimum));
                self.bytes.extend(quants);
            }
            Format::Q8_0 => {
                let scale = self.push_half(value * 0.01);
                let quants: [i8; 32] = std::array::from_fn(|_| random.next() as i8);
                self.truth.extend(quants.iter().map(|quant| scale * f64::from(*quant)));
                self.bytes.extend(quants.map(i8::cast_unsigned));
            }
            Format::F32 => {
                self.bytes.extend(value.to_le_bytes());
                self.truth.push(f64::from(value));
            }
            Format::F16 => {
                let truth = self.push_half(value);
                self.truth.push(truth);
            }
            Format::BF16 => {
                self.bytes.extend(bf16::from_f32(value).to_le_bytes());
                self.truth.push(bf16::from_f32(value).to_f64());
            }
        }
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
    let (rows, columns, n) = (37, 96, 5);
    let x = random.floats(n * columns);
    for format in FORMATS {
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
    let x = random.floats(64);
    for format in [Format::Q4_1, Format::Q8_0] {
        let weight = Weight::random(format, 16, 64, &mut random);
        let right = multiplied(&Kernels::new(Isa::scalar(), 1), &[&weight], &x);
        assert_ne!(multiplied(&Kernels::new(Isa::wrong(), 1), &[&weight], &x), right);
    }
}

#[test]
fn embedding_rows_are_the_stored_numbers() {
    let mut random = Random(3);
    let kernels = Kernels::new(Isa::detect(), 2);
    for format in FORMATS {
        let weight = Weight::random(format, 37, 64, &mut random);
        let mut store = Vec::new();
        let packed = weight.pack(&kernels, &mut store);
        let tokens = [36, 0, 17];
        let mut y = vec![0.0; tokens.len() * 64];
        kernels.embed(packed, &tokens, &mut y);
        for (token, row) in tokens.iter().zip(y.chunks(64)) {
            for (found, truth) in row.iter().zip(&weight.truth[*token as usize * 64..]) {
                assert!((f64::from(*found) - truth).abs() <= 1e-6 * truth.abs().max(1.0), "{format:?}");
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
        rows in proptest::collection::vec(1usize..50, 5),
        blocks in 1usize..5,
        n in 1usize..70,
        threads in 1usize..4,
    ) {
        let mut random = Random(seed);
        let columns = 32 * blocks;
        let weights: Vec<Weight> = FORMATS
            .iter()
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
