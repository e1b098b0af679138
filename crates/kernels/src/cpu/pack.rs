//! Weights rearranged into column blocks that the micro-kernels read front to back.

use super::buffer::CpuBuffer;
use super::lanes::Lanes;
use super::pointer::Pointer;
use super::rounding::bf16;
use super::threads::Threads;

/// Where the packed weights of a column block lie: `[block][tap][k][block columns]`, zero-padded columns.
#[derive(Clone, Copy)]
pub(super) struct Packing {
    /// Destination columns in all.
    pub columns: usize,
    /// Columns of a block: one vector if that holds them all, else two.
    pub block: usize,
    /// Number of taps.
    pub taps: usize,
    /// Source channels, the length of the inner product.
    pub depth: usize,
}

impl Packing {
    pub(super) fn new(lanes: usize, taps: usize, depth: usize, columns: usize) -> Self {
        let block = if columns <= lanes { lanes } else { 2 * lanes };
        Self {
            columns,
            block,
            taps,
            depth,
        }
    }

    /// The same in blocks of one vector.
    pub(super) fn one_vector(self, lanes: usize) -> Self {
        Self {
            block: lanes,
            ..self
        }
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> usize {
        self.columns.div_ceil(self.block)
    }

    /// Values of one tap of one block.
    pub(super) fn tap_len(&self) -> usize {
        self.depth * self.block
    }

    /// Values of one block.
    pub(super) fn block_len(&self) -> usize {
        self.taps * self.tap_len()
    }
}

/// Which way the weights `[tap, input, output]` are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From inputs to outputs.
    Forward,
    /// From outputs back to inputs: the transposed matrices.
    Backward,
}

/// Packs weights, `[tap, input, output]`, for one direction; rounded to bf16 if so asked.
pub(super) fn pack(
    threads: &Threads,
    direction: Direction,
    (weight, rounded): (&[f32], bool),
    packing: Packing,
    out: &mut CpuBuffer,
) {
    let (inputs, outputs) = match direction {
        Direction::Forward => (packing.depth, packing.columns),
        Direction::Backward => (packing.columns, packing.depth),
    };
    out.reserve(packing.blocks() * packing.block_len());
    let to = Pointer::new(out);
    let items = packing.blocks() * packing.taps;
    threads.for_each(items, packing.tap_len(), |_, item| {
        let (block, tap) = (item / packing.taps, item % packing.taps);
        let matrix = &weight[tap * inputs * outputs..][..inputs * outputs];
        // SAFETY: every item writes its own `tap_len` values, all of them inside the reserved length.
        let tile = unsafe {
            to.slice(
                block * packing.block_len() + tap * packing.tap_len(),
                packing.tap_len(),
            )
        };
        let first = block * packing.block;
        let used = packing.block.min(packing.columns - first);
        let columns = first..first + used;
        match direction {
            Direction::Forward => {
                for (row, from) in tile
                    .chunks_exact_mut(packing.block)
                    .zip(matrix.chunks_exact(outputs))
                {
                    row[..used].copy_from_slice(&from[columns.clone()]);
                }
            }
            Direction::Backward => {
                let rows = &matrix[first * outputs..][..used * outputs];
                transpose(rows, outputs, packing.block, tile);
            }
        }
        for row in tile.chunks_exact_mut(packing.block) {
            row[used..].fill(0.0);
        }
        if rounded {
            tile.iter_mut().for_each(|v| *v = bf16(*v));
        }
    });
}

/// Copies the first values of a row to a block of whole vectors, with zeros for those that the row lacks.
///
/// # Safety
/// The instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn copy_row<V: Lanes>(row: &[f32], block: &mut [f32]) {
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

/// `out[k, j] = rows[j, k]` for rows of `len` values; rows of `out` are `stride` apart.
fn transpose(rows: &[f32], len: usize, stride: usize, out: &mut [f32]) {
    /// Rows of `out` that stay in the first-level cache until all their columns are there.
    const STRIP: usize = 64;
    for (strip, out) in out.chunks_mut(STRIP * stride).enumerate() {
        for (j, row) in rows.chunks_exact(len).enumerate() {
            let values = &row[strip * STRIP..];
            for (to, &value) in out.chunks_exact_mut(stride).zip(values) {
                to[j] = value;
            }
        }
    }
}
