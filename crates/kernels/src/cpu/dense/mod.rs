//! Dense layers: each weight meets a single panel, so what is gained by a rearrangement must be gained in one use.
//!
//! Weights are not packed beforehand, which would move all of them through memory once more; a strip of a few columns
//! is packed where its products are about to be computed. Gradients are summed over all samples and locations before
//! they are written, once. Rows of wide matrices are a power of two apart, more often than not, and would meet in a few
//! places of a cache; so their operands are packed, too.

mod gather;
mod gradient;

use super::lanes::Lanes;
use crate::Layer;

pub(super) use gather::{Strips, gather};
pub(super) use gradient::gradient;

/// Inputs from which on the gradient of a layer that is used at several locations is worth a pass without partial sums:
/// they give every thread some.
const MANY_INPUTS: usize = 512;

/// Copies the first values of a row to a block of whole vectors, with zeros for those that the row lacks.
///
/// # Safety
/// The instruction set of `V`.
#[inline(always)]
unsafe fn copy_row<V: Lanes>(row: &[f32], block: &mut [f32]) {
    if row.len() < block.len() {
        block[..row.len()].copy_from_slice(row);
        block[row.len()..].fill(0.0);
        return;
    }
    for at in (0..block.len()).step_by(V::LEN) {
        // SAFETY: a whole vector from `at` on lies inside both.
        unsafe { V::load(row.as_ptr().add(at)).store(block.as_mut_ptr().add(at)) };
    }
}

/// Whether a layer is one matrix between two panels.
pub(super) fn is_product(layer: &Layer) -> bool {
    layer.wiring.taps() == 1 && layer.sources() == 1 && layer.locations() == 1
}

/// Whether a layer's gradient is computed as that of one matrix.
pub(super) fn suits_gradient(layer: &Layer) -> bool {
    is_product(layer) || layer.wiring.taps() == 1 && layer.inputs >= MANY_INPUTS
}
