//! Parts that decoders are built from. Each takes candle tensors and enters our kernels through in-place ops, so
//! that the buffers of a step are allocated once and a part could have a second implementation for another device.

pub mod attention;
pub mod buffers;
pub mod embedding;
pub mod linear;
pub mod mlp;
pub mod norm;
pub mod rope;

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor};
use kernels::{Kernels, TokenTile};

use super::step::StepInput;
use rope::Angles;

/// What every part of a step may need beside its tensors.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The kernels of the device.
    pub kernels: &'a Kernels,
    /// The step, checked.
    pub step: &'a StepInput,
    /// Its tokens as attention takes them.
    pub tiles: &'a [TokenTile],
    /// Its positions as angles.
    pub angles: &'a Angles,
}

impl Context<'_> {
    /// `x += y`, both of one shape.
    pub fn add(&self, x: &Tensor, y: &Tensor) -> Result<()> {
        x.inplace_op2(y, &Add(self.kernels))
    }
}

struct Add<'a>(&'a Kernels);

impl InplaceOp2 for Add<'_> {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, xl: &Layout, y: &CpuStorage, yl: &Layout) -> Result<()> {
        self.0.add(floats_mut(x, xl)?, floats(y, yl)?);
        Ok(())
    }
}

/// The numbers of a contiguous `f32` tensor.
pub(super) fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let (start, end) = span(layout)?;
    Ok(&storage.as_slice::<f32>()?[start..end])
}

/// The numbers of a contiguous `f32` tensor, to write to.
pub(super) fn floats_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    let (start, end) = span(layout)?;
    match storage {
        CpuStorage::F32(numbers) => Ok(&mut numbers[start..end]),
        _ => candle_core::bail!("the tensor is not of type f32"),
    }
}

fn span(layout: &Layout) -> Result<(usize, usize)> {
    match layout.contiguous_offsets() {
        Some(span) => Ok(span),
        None => candle_core::bail!("the tensor is not contiguous"),
    }
}
