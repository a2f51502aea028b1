//! What the blocks of each format stand for, compared with ggml's own answer (`golden/dequantize.py` asked it).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use kernels::{Format, Isa, Kernels, Source};

const GOLDEN: &str = include_str!("golden/dequantize.txt");

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|byte| u8::from_str_radix(&hex[2 * byte..2 * byte + 2], 16).unwrap()).collect()
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

#[test]
fn packed_rows_come_back_as_the_numbers_that_ggml_says() {
    let kernels = Kernels::new(Isa::detect(), 2);
    let mut formats = 0;
    for line in GOLDEN.lines() {
        let [name, row, numbers] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let (format, row) = (format(name), bytes(row));
        let expected: Vec<f32> =
            bytes(numbers).as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)).collect();
        // The row stands last of many, among others.
        let (rows, columns) = (19, expected.len());
        let mut all = vec![0; (rows - 1) * row.len()];
        all.extend(&row);
        let mut packed = vec![0; format.packed_bytes(rows, columns).unwrap()];
        let source = Source { format, rows, columns, bytes: &all };
        let packed = kernels.pack(source, &mut packed).unwrap();
        let mut found = vec![f32::NAN; columns];
        kernels.embed(packed, &[rows as u32 - 1], &mut found);
        assert_eq!(found, expected, "{name}");
        formats += 1;
    }
    assert_eq!(formats, 6);
}
