//! Dense layers: each weight meets a single panel, so what is gained by a rearrangement must be gained in one use.
//!
//! Weights are not packed beforehand, which would move all of them through memory once more; a strip of a few columns
//! is packed where its products are about to be computed. Gradients are summed over all samples and locations before
//! they are written, once. Rows of wide matrices are a power of two apart, more often than not, and would meet in a few
//! places of a cache; so their operands are packed, too.

mod gather;
mod gradient;

use crate::Layer;

pub(super) use gather::{Strips, gather};
pub(super) use gradient::gradient;

/// Inputs from which on the gradient of a layer that is used at several locations is worth a pass without partial sums:
/// they give every thread some.
const MANY_INPUTS: usize = 512;

/// Whether a layer is one matrix between two panels.
pub(super) fn is_product(layer: &Layer) -> bool {
    layer.wiring.taps() == 1 && layer.sources() == 1 && layer.locations() == 1
}

/// Whether a layer's gradient is computed as that of one matrix.
pub(super) fn suits_gradient(layer: &Layer) -> bool {
    is_product(layer) || layer.wiring.taps() == 1 && layer.inputs >= MANY_INPUTS
}
