//! Weights at the six points, `G g` of each row of taps, packed for walks along a strip.

use super::super::transform::{Line, Weights};
use super::super::weights::Squares;
use super::{POINTS, TAPS};
use crate::Layer;
use crate::cpu::buffer::CpuBuffer;
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::Lanes;
use crate::cpu::pack::{Direction, Packing};
use crate::cpu::pointer::Pointer;
use crate::cpu::scratch::Workers;

/// Transforms and packs a layer's weights, `[block][point][depth][destination of three][block columns]`: of the
/// destinations that a source feeds along a strip, the first lies above it.
pub(in crate::cpu) fn pack(
    workers: &Workers<'_>,
    layer: &Layer,
    direction: Direction,
    (weight, rounded): (&[f32], bool),
    out: &mut CpuBuffer,
) -> Packing {
    let (threads, set) = (workers.threads, workers.set);
    let squares = Squares {
        layer,
        direction,
        weight,
        rounded,
    };
    let packing = squares.packing(set.lanes(), POINTS * TAPS);
    let packing = packing.one_vector(set.lanes());
    out.reserve(packing.blocks() * packing.block_len());
    let to = Pointer::new(out);
    let items = packing.blocks() * packing.depth;
    threads.for_each(items, 2 * packing.taps * packing.block, |_, item| {
        let kernel = PackKernel {
            squares,
            packing,
            block: item / packing.depth,
            k: item % packing.depth,
            to,
        };
        // SAFETY: `set` is available; every item writes its own row of each point's matrices.
        unsafe { set.run(kernel) };
    });
    packing
}

struct PackKernel<'a> {
    squares: Squares<'a>,
    packing: Packing,
    block: usize,
    k: usize,
    to: Pointer,
}

impl Kernel for PackKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let packing = self.packing;
        let first = self.block * V::LEN;
        let count = V::LEN.min(packing.columns - first);
        // SAFETY: `count` columns from `first` on lie inside the matrices, blocks are one vector wide.
        unsafe {
            let g = self.squares.square::<V>(self.k, first, count);
            for (tap, row) in g.into_iter().enumerate() {
                for (point, value) in Weights::line(row).iter().enumerate() {
                    let at = self.block * packing.block_len()
                        + point * TAPS * packing.tap_len()
                        + (self.k * TAPS + TAPS - 1 - tap) * V::LEN;
                    value.store(self.to.at(at));
                }
            }
        }
    }
}
