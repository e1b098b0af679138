//! Weights at the 36 points, `G g Gᵀ`, packed for the gather.

use super::POINTS;
use super::transform::{Weights, plane};
use crate::Layer;
use crate::cpu::buffer::CpuBuffer;
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::Lanes;
use crate::cpu::pack::{Direction, Packing};
use crate::cpu::pointer::Pointer;
use crate::cpu::rounding::bf16_if;
use crate::cpu::scratch::Workers;

/// Transforms and packs a layer's weights, `[block][point][depth][block columns]`. Backward, the matrices are
/// transposed and the taps reversed.
pub(in crate::cpu) fn pack(
    workers: &Workers<'_>,
    layer: &Layer,
    direction: Direction,
    (weight, rounded): (&[f32], bool),
    out: &mut CpuBuffer,
) -> Packing {
    let (threads, set) = (workers.threads, workers.set);
    let (depth, columns) = match direction {
        Direction::Forward => (layer.inputs, layer.outputs),
        Direction::Backward => (layer.outputs, layer.inputs),
    };
    let packing = Packing::new(set.lanes(), POINTS, depth, columns);
    out.reserve(packing.blocks() * packing.block_len());
    let to = Pointer::new(out);
    threads.for_each(
        packing.blocks() * depth,
        2 * POINTS * packing.block,
        |item| {
            let kernel = PackKernel {
                layer,
                direction,
                weight,
                rounded,
                packing,
                block: item / depth,
                k: item % depth,
                to,
            };
            // SAFETY: `set` is available; every item writes its own row of each point's matrix.
            unsafe { set.run(kernel) };
        },
    );
    packing
}

struct PackKernel<'a> {
    layer: &'a Layer,
    direction: Direction,
    weight: &'a [f32],
    rounded: bool,
    packing: Packing,
    block: usize,
    k: usize,
    to: Pointer,
}

impl Kernel for PackKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let packing = self.packing;
        let (inputs, outputs) = (self.layer.inputs, self.layer.outputs);
        for vector in 0..packing.block / V::LEN {
            let first = self.block * packing.block + vector * V::LEN;
            let count = V::LEN.min(packing.columns.saturating_sub(first));
            // SAFETY: `count` columns from `first` on lie inside the matrices; the packed row has room for the
            // whole vector.
            unsafe {
                let mut g = [[V::splat(0.0); 3]; 3];
                for tap in 0..9 {
                    let value = match self.direction {
                        Direction::Forward => {
                            let row = (tap * inputs + self.k) * outputs;
                            V::load_partial(self.weight.as_ptr().wrapping_add(row + first), count)
                        }
                        Direction::Backward => {
                            let matrix = &self.weight[(8 - tap) * inputs * outputs..];
                            let mut values = [0.0; 16];
                            for (j, value) in values[..count].iter_mut().enumerate() {
                                *value = matrix[(first + j) * outputs + self.k];
                            }
                            V::load(values.as_ptr())
                        }
                    };
                    g[tap / 3][tap % 3] = bf16_if(self.rounded, value);
                }
                let points = plane::<Weights, V, 3, 6>(g);
                for (point, value) in points.iter().flatten().enumerate() {
                    let at = self.block * packing.block_len()
                        + point * packing.tap_len()
                        + self.k * packing.block;
                    value.store(self.to.at(at + vector * V::LEN));
                }
            }
        }
    }
}
