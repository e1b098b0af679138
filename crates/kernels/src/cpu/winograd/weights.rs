//! Weights as 36 matrices, `G g Gᵀ`, packed for the gather.

use super::transform::{self, Line, plane};
use super::{MATRICES, SIDE, Tiles, stride_2};
use crate::Layer;
use crate::cpu::buffer::CpuBuffer;
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::Lanes;
use crate::cpu::pack::{Direction, Packing};
use crate::cpu::pointer::Pointer;
use crate::cpu::rounding::bf16_if;
use crate::cpu::scratch::Workers;
use std::marker::PhantomData;

/// Weights of a 3×3 convolution as one direction reads them. Backward, the matrices are transposed and the taps
/// reversed.
#[derive(Clone, Copy)]
pub(super) struct Squares<'a> {
    pub layer: &'a Layer,
    pub direction: Direction,
    /// `[tap, input, output]`
    pub weight: &'a [f32],
    /// Whether they are rounded to bf16.
    pub rounded: bool,
}

impl Squares<'_> {
    /// Packed at `matrices` places.
    pub(super) fn packing(&self, lanes: usize, matrices: usize) -> Packing {
        let (depth, columns) = match self.direction {
            Direction::Forward => (self.layer.inputs, self.layer.outputs),
            Direction::Backward => (self.layer.outputs, self.layer.inputs),
        };
        Packing::new(lanes, matrices, depth, columns)
    }

    /// The taps from source channel `k` to `count` columns from column `first` on.
    ///
    /// # Safety
    /// The instruction set of `V`; at most `V::LEN` columns, which the layer has.
    #[inline(always)]
    pub(super) unsafe fn square<V: Lanes>(
        &self,
        k: usize,
        first: usize,
        count: usize,
    ) -> [[V; 3]; 3] {
        let (inputs, outputs) = (self.layer.inputs, self.layer.outputs);
        // SAFETY: handed on from the caller.
        unsafe {
            let mut g = [[V::splat(0.0); 3]; 3];
            for tap in 0..9 {
                let value = match self.direction {
                    Direction::Forward => {
                        let row = (tap * inputs + k) * outputs;
                        V::load_partial(self.weight.as_ptr().wrapping_add(row + first), count)
                    }
                    Direction::Backward => {
                        let matrix = &self.weight[(8 - tap) * inputs * outputs..];
                        let mut values = [0.0; 16];
                        for (j, value) in values[..count].iter_mut().enumerate() {
                            *value = matrix[(first + j) * outputs + k];
                        }
                        V::load(values.as_ptr())
                    }
                };
                g[tap / 3][tap % 3] = bf16_if(self.rounded, value);
            }
            g
        }
    }
}

/// Transforms and packs a layer's weights, `[block][matrix][depth][block columns]`.
pub(in crate::cpu) fn pack(
    workers: &Workers<'_>,
    (layer, tiles): (&Layer, Tiles),
    direction: Direction,
    weight: (&[f32], bool),
    out: &mut CpuBuffer,
) -> Packing {
    match tiles.grid.stride {
        1 => pack_by::<transform::Weights>(workers, layer, direction, weight, out),
        _ => pack_by::<stride_2::Weights>(workers, layer, direction, weight, out),
    }
}

fn pack_by<L: Line<3, SIDE>>(
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
    let packing = squares.packing(set.lanes(), MATRICES);
    out.reserve(packing.blocks() * packing.block_len());
    let to = Pointer::new(out);
    let items = packing.blocks() * packing.depth;
    threads.for_each(items, 2 * MATRICES * packing.block, |_, item| {
        let kernel = PackKernel::<L> {
            squares,
            packing,
            block: item / packing.depth,
            k: item % packing.depth,
            to,
            line: PhantomData,
        };
        // SAFETY: `set` is available; every item writes its own row of each matrix.
        unsafe { set.run_wide(kernel) };
    });
    packing
}

struct PackKernel<'a, L> {
    squares: Squares<'a>,
    packing: Packing,
    block: usize,
    k: usize,
    to: Pointer,
    line: PhantomData<L>,
}

impl<L: Line<3, SIDE>> Kernel for PackKernel<'_, L> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let packing = self.packing;
        for vector in 0..packing.block / V::LEN {
            let first = self.block * packing.block + vector * V::LEN;
            let count = V::LEN.min(packing.columns.saturating_sub(first));
            // SAFETY: `count` columns from `first` on lie inside the matrices; the packed row has room for the
            // whole vector.
            unsafe {
                let g = self.squares.square::<V>(self.k, first, count);
                let row = self.block * packing.block_len() + self.k * packing.block;
                plane::<L, L, V, 3, 3, SIDE, SIDE>(
                    |i, j| g[i][j],
                    |i, j, value| {
                        let at = row + (i * SIDE + j) * packing.tap_len();
                        value.store(self.to.at(at + vector * V::LEN));
                    },
                );
            }
        }
    }
}
