//! Vectors of texts, as `vectors.py` describes its files.

use std::fs;
use std::path::Path;

use serde::Deserialize;

/// What the oracle said.
#[derive(Deserialize)]
pub(crate) struct Vectors {
    /// Hexadecimal digest of the model's file.
    pub(crate) sha256: String,
    width: usize,
    /// The texts.
    pub(crate) texts: Vec<Text>,
    #[serde(skip)]
    numbers: Vec<f32>,
}

/// A text with its tokens.
#[derive(Deserialize)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) tokens: Vec<u32>,
}

impl Vectors {
    pub(crate) fn read() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/golden");
        let mut vectors: Self =
            serde_json::from_slice(&fs::read(folder.join("vectors.json")).unwrap()).unwrap();
        let bytes = fs::read(folder.join("vectors.bin")).unwrap();
        vectors.numbers =
            bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
        assert_eq!(vectors.numbers.len(), 2 * vectors.texts.len() * vectors.width);
        vectors
    }

    /// The vector of a text: by the model as it is, or with wide weights.
    pub(crate) fn of(&self, text: usize, wide: bool) -> &[f32] {
        let at = text + if wide { self.texts.len() } else { 0 };
        &self.numbers[at * self.width..][..self.width]
    }
}

/// How far two vectors of length one are from each other.
pub(crate) fn distance(ours: &[f32], theirs: &[f32]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
}
