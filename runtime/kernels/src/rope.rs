//! Rotary position embedding on the heads of a row, in place.

use crate::Kernels;
use crate::lanes::{Kernel, Lanes};
use crate::shared::Shared;

/// Which two numbers of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// `i` and `i + head_dim / 2`: Hugging Face's llama, ggml's NeoX kind.
    Halves,
    /// `2i` and `2i + 1`: the original, and ggml's llama, whose weights are permuted for it.
    Neighbours,
}

/// The angles of a step and how they apply.
#[derive(Clone, Copy, Debug)]
pub struct Rotation<'a> {
    /// Which numbers are rotated together.
    pub pairs: RopePairs,
    /// Numbers of a head.
    pub head_dim: usize,
    /// Cosines, `[rows, head_dim / 2]`.
    pub cos: &'a [f32],
    /// Sines, `[rows, head_dim / 2]`.
    pub sin: &'a [f32],
}

impl Kernels {
    /// Rotates the first `n_heads` heads of each row of `x`; what follows them in the row stays as it is.
    ///
    /// Su et al. 2021, eq. 34.
    ///
    /// # Shapes
    /// - `x`: `[rows, width]` with `width ≥ n_heads · head_dim`
    ///
    /// # Panics
    /// Where the shapes do not fit together.
    pub fn rope(&self, x: &mut [f32], width: usize, n_heads: usize, rotation: Rotation<'_>) {
        let n_rows = x.len() / width;
        let half = rotation.head_dim / 2;
        assert!(n_heads * rotation.head_dim <= width, "the heads lie within the row");
        assert_eq!(
            (rotation.cos.len(), rotation.sin.len()),
            (n_rows * half, n_rows * half),
            "an angle a pair"
        );
        let work = n_rows * n_heads * rotation.head_dim;
        let out = Shared::new(x);
        self.for_rows(n_rows, work, |rows| {
            for row in rows {
                // SAFETY: tasks have rows of their own.
                let heads = unsafe { out.piece(row * width..row * width + n_heads * rotation.head_dim) };
                let angles = row * half..(row + 1) * half;
                let rotation =
                    Rotation { cos: &rotation.cos[angles.clone()], sin: &rotation.sin[angles], ..rotation };
                self.isa().run(Rotate { heads, rotation });
            }
        });
    }
}

struct Rotate<'a> {
    heads: &'a mut [f32],
    rotation: Rotation<'a>,
}

impl Kernel for Rotate<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Rotation { pairs, head_dim, cos, sin } = self.rotation;
        for head in self.heads.chunks_exact_mut(head_dim) {
            match pairs {
                RopePairs::Halves => {
                    let (first, second) = head.split_at_mut(head_dim / 2);
                    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                    }
                }
                RopePairs::Neighbours => {
                    let (pairs, _) = head.as_chunks_mut::<2>();
                    for (([a, b], cos), sin) in pairs.iter_mut().zip(cos).zip(sin) {
                        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn both_pairings_rotate_and_leave_the_rest_alone() {
        let (cos, sin) = ([0.6f32, 0.0], [0.8f32, 1.0]);
        let rotated = |isa, pairs| {
            let mut x = [1.0, 2.0, 3.0, 4.0, 9.0, 9.0];
            let rotation = Rotation { pairs, head_dim: 4, cos: &cos, sin: &sin };
            Kernels::new(isa, 1).rope(&mut x, 6, 1, rotation);
            x
        };
        for isa in Isa::available() {
            let close = |found: [f32; 6], expected: [f32; 6]| {
                found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6)
            };
            assert!(close(rotated(isa, RopePairs::Halves), [-1.8, -4.0, 2.6, 2.0, 9.0, 9.0]));
            assert!(close(rotated(isa, RopePairs::Neighbours), [-1.0, 2.0, -4.0, 3.0, 9.0, 9.0]));
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let (rows, heads, dim) = (5, 3, 32);
        let x: Vec<f32> = (0..rows * heads * dim).map(|index| (index as f32 * 0.3).sin()).collect();
        let angles: Vec<f32> = (0..rows * dim / 2).map(|index| index as f32 * 0.1).collect();
        let (cos, sin): (Vec<_>, Vec<_>) = angles.iter().map(|angle| (angle.cos(), angle.sin())).unzip();
        for pairs in [RopePairs::Halves, RopePairs::Neighbours] {
            let rotation = Rotation { pairs, head_dim: dim, cos: &cos, sin: &sin };
            let mut expected = x.clone();
            Kernels::new(Isa::scalar(), 1).rope(&mut expected, heads * dim, heads, rotation);
            for isa in Isa::available() {
                let mut found = x.clone();
                Kernels::new(isa, 2).rope(&mut found, heads * dim, heads, rotation);
                assert_eq!(found, expected, "{}", isa.name());
            }
        }
    }
}
