//! What rows of each format stand for and their products, compared with ggml's own answers (`golden/ggml.py` asked it).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use kernels::{Format, Isa, Kernels, Packed, Source};

const GOLDEN: &str = include_str!("golden/ggml.txt");

/// Rows of a matrix, of which the golden's stands last; no multiple of a tile.
const ROWS: usize = 19;

/// How far a product may be off, compared with the sum of its terms' sizes. Where quantized activations hold the numbers
/// without loss, only the order of additions differs. Otherwise both round them, in blocks and with scales of their own.
const TOLERANCES: [f32; 2] = [2e-3, 1e-6];

struct Row {
    format: Format,
    bytes: Vec<u8>,
    numbers: Vec<f32>,
    products: [f32; 2],
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|byte| u8::from_str_radix(&hex[2 * byte..2 * byte + 2], 16).unwrap()).collect()
}

fn floats(hex: &str) -> Vec<f32> {
    bytes(hex).as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)).collect()
}

fn format(name: &str) -> Format {
    match name {
        "Q4_0" => Format::Q4_0,
        "Q4_1" => Format::Q4_1,
        "Q8_0" => Format::Q8_0,
        "Q4_K" => Format::Q4K,
        "Q5_K" => Format::Q5K,
        "Q6_K" => Format::Q6K,
        _ => panic!("no format is called {name}"),
    }
}

/// Both activations, and the rows.
fn golden() -> ([Vec<f32>; 2], Vec<Row>) {
    let mut lines = GOLDEN.lines();
    let activations = std::array::from_fn(|_| floats(lines.next().unwrap()));
    let rows = lines.map(|line| {
        let [name, row, numbers, rounded, whole] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let products = [rounded, whole].map(|hex| floats(hex)[0]);
        Row { format: format(name), bytes: bytes(row), numbers: floats(numbers), products }
    });
    (activations, rows.collect())
}

impl Row {
    fn pack<'a>(&self, kernels: &Kernels, to: &'a mut Vec<u8>) -> Packed<'a> {
        let columns = self.numbers.len();
        let mut bytes = vec![0; (ROWS - 1) * self.bytes.len()];
        bytes.extend(&self.bytes);
        to.resize(self.format.packed_bytes(ROWS, columns).unwrap(), 0);
        kernels.pack(Source { format: self.format, rows: ROWS, columns, bytes: &bytes }, to).unwrap()
    }
}

#[test]
fn packed_rows_come_back_as_the_numbers_that_ggml_says() {
    let kernels = Kernels::new(Isa::detect(), 2);
    let (_, rows) = golden();
    assert_eq!(rows.len(), 2 * Format::ALL.into_iter().filter(|format| format.block_columns() > 1).count());
    for row in rows {
        let mut store = Vec::new();
        let packed = row.pack(&kernels, &mut store);
        let mut found = vec![f32::NAN; row.numbers.len()];
        kernels.embed(packed, &[ROWS as u32 - 1], &mut found);
        assert_eq!(found, row.numbers, "{:?}", row.format);
    }
}

#[test]
fn products_are_ggmls_within_what_rounding_explains() {
    let (activations, rows) = golden();
    let x: Vec<f32> = activations.concat();
    for isa in Isa::available() {
        let kernels = Kernels::new(isa, 2);
        for row in &rows {
            let mut store = Vec::new();
            let packed = row.pack(&kernels, &mut store);
            let mut y = vec![f32::NAN; 2 * ROWS];
            kernels.linear(&[packed], &x, &mut y);
            for (index, x) in activations.iter().enumerate() {
                let (found, expected) = (y[index * ROWS + ROWS - 1], row.products[index]);
                let size: f32 = x.iter().zip(&row.numbers).map(|(x, w)| (x * w).abs()).sum();
                let off = (found - expected).abs() / size;
                assert!(
                    off <= TOLERANCES[index],
                    "{:?} on {}: {found} for {expected}, off by {off:e}",
                    row.format,
                    isa.name()
                );
            }
        }
    }
}
