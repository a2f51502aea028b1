//! Additions and gates, number by number.

use crate::Kernels;
use crate::exp::exp;
use crate::lanes::{Kernel, LANES, Lanes};
use crate::shared::Shared;

impl Kernels {
    /// `x += y`.
    ///
    /// # Panics
    /// Where the lengths differ.
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "both have the same shape");
        let length = x.len();
        let out = Shared::new(x);
        self.for_rows(length, length, |range| {
            // SAFETY: tasks have ranges of their own.
            let x = unsafe { out.piece(range.clone()) };
            self.isa().run(Add { x, y: &y[range] });
        });
    }

    /// `y = silu(gate) · up`, with `silu(x) = x / (1 + e⁻ˣ)`; each row of `gate_up` is gate and up side by side.
    ///
    /// Shazeer 2020, SwiGLU.
    ///
    /// # Shapes
    /// - `gate_up`: `[rows, 2 · width]`; `y`: `[rows, width]`
    ///
    /// # Panics
    /// Where the shapes do not fit together.
    pub fn silu_mul(&self, gate_up: &[f32], width: usize, y: &mut [f32]) {
        let n_rows = y.len() / width;
        assert_eq!((gate_up.len(), y.len()), (2 * n_rows * width, n_rows * width), "both have the same rows");
        let out = Shared::new(y);
        self.for_rows(n_rows, 8 * gate_up.len(), |rows| {
            for row in rows {
                // SAFETY: tasks have rows of their own.
                let y = unsafe { out.piece(row * width..(row + 1) * width) };
                let (gate, up) = gate_up[2 * row * width..2 * (row + 1) * width].split_at(width);
                self.isa().run(SiluMul { gate, up, y });
            }
        });
    }
}

struct Add<'a> {
    x: &'a mut [f32],
    y: &'a [f32],
}

impl Kernel for Add<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        for (x, y) in self.x.iter_mut().zip(self.y) {
            *x += y;
        }
    }
}

struct SiluMul<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for SiluMul<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let inputs = self.gate.chunks(LANES).zip(self.up.chunks(LANES));
        for ((gate, up), y) in inputs.zip(self.y.chunks_mut(LANES)) {
            let gate = l.load_part(gate);
            let below = l.add(l.splat(1.0), exp(l, l.mul(gate, l.splat(-1.0))));
            l.store_part(l.mul(l.div(gate, below), l.load_part(up)), y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn silu_mul_gates_and_is_equal_everywhere() {
        let width = 53;
        let gate_up: Vec<f32> = (0..3 * 2 * width).map(|index| (index as f32 * 0.37).sin() * 20.0).collect();
        let mut expected = vec![0.0; 3 * width];
        Kernels::new(Isa::scalar(), 1).silu_mul(&gate_up, width, &mut expected);
        for (row, y) in gate_up.chunks(2 * width).zip(expected.chunks(width)) {
            for column in 0..width {
                let (gate, up) = (f64::from(row[column]), f64::from(row[width + column]));
                let truth = gate / (1.0 + (-gate).exp()) * up;
                assert!((f64::from(y[column]) - truth).abs() < 1e-4, "{} for {truth}", y[column]);
            }
        }
        for isa in Isa::available() {
            let mut found = vec![0.0; expected.len()];
            Kernels::new(isa, 3).silu_mul(&gate_up, width, &mut found);
            assert_eq!(found, expected, "{}", isa.name());
        }
    }

    #[test]
    fn additions_reach_every_number() {
        let mut x: Vec<f32> = (0..40_000).map(|index| index as f32).collect();
        let y = vec![0.5; x.len()];
        Kernels::new(Isa::detect(), 3).add(&mut x, &y);
        assert!(x.iter().enumerate().all(|(index, x)| *x == index as f32 + 0.5));
    }
}
