//! How operands come to a device's matrix units: read a term at a time, rounded, and staged in shared memory.

use super::matrix::{ALIGNMENT, Plan};
use super::operands::{Operands, nearest};
use super::tile::{SIDE, THREADS, value_or_zero};
use cubecl::prelude::*;

/// Bytes of the terms that are staged at a time, for one row or column.
const STAGED_BYTES: usize = 64;
/// Bytes between the terms of one row or column and those of the next, so that they begin in different banks.
const GAP_BYTES: usize = 16;
/// Values between the rows or columns of one term and those of the next, for the same reason.
const GAP: usize = 8;

impl Operands {
    /// Bytes of an operand as it is staged for matrix units.
    fn staged_bytes(self) -> usize {
        match self {
            Self::F32 | Self::Tf32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// Terms that are staged at a time.
    pub(super) fn depth(self) -> usize {
        STAGED_BYTES / self.staged_bytes()
    }

    /// Terms that one instruction adds.
    pub(super) fn terms(self) -> usize {
        self.depth() / 2
    }
}

/// In which order an operand's values lie, in memory and as they are staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Order {
    /// The terms of a row or column side by side.
    Terms,
    /// The rows or columns of a term side by side.
    Lines,
}

/// An operand as it is staged: `depth` terms of so many rows or columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Block {
    lines: usize,
    order: Order,
    operands: Operands,
}

impl Block {
    /// The operand of `pieces` pieces side by side.
    pub(super) fn new(pieces: usize, order: Order, operands: Operands) -> Self {
        Self {
            lines: SIDE * pieces,
            order,
            operands,
        }
    }

    /// Values between runs of values that lie side by side.
    pub(super) fn stride(self) -> usize {
        match self.order {
            Order::Terms => self.operands.depth() + GAP_BYTES / self.operands.staged_bytes(),
            Order::Lines => self.lines + GAP,
        }
    }

    /// Values from a line to the next.
    pub(super) fn line_stride(self) -> usize {
        match self.order {
            Order::Terms => self.stride(),
            Order::Lines => 1,
        }
    }

    /// Values from a term to the next.
    pub(super) fn term_stride(self) -> usize {
        match self.order {
            Order::Terms => 1,
            Order::Lines => self.stride(),
        }
    }

    /// Values of a block, gaps included.
    pub(super) fn len(self) -> usize {
        let runs = match self.order {
            Order::Terms => self.lines,
            Order::Lines => self.operands.depth(),
        };
        runs * self.stride()
    }

    /// Bytes of a block.
    #[cfg(test)]
    pub(super) fn bytes(self) -> usize {
        self.len() * self.operands.staged_bytes()
    }

    /// Threads that stage values of one term.
    fn threads(self) -> usize {
        THREADS / self.operands.depth()
    }

    /// Values that each thread stages.
    fn each(self) -> usize {
        self.lines / self.threads()
    }

    /// How the matrix instruction finds it, where the terms of its rows or columns would lie side by side.
    pub(super) fn layout(
        self,
        terms: cmma::MatrixLayout,
        lines: cmma::MatrixLayout,
    ) -> cmma::MatrixLayout {
        match self.order {
            Order::Terms => terms,
            Order::Lines => lines,
        }
    }
}

/// The term of a block that a thread stages.
#[cube]
pub(super) fn own_term(#[comptime] block: Block) -> usize {
    if comptime!(block.order == Order::Terms) {
        UNIT_POS as usize % comptime!(block.operands.depth())
    } else {
        UNIT_POS as usize / comptime!(block.threads())
    }
}

/// The first line of a block that a thread stages; the others follow `block.threads()` after each other.
#[cube]
fn own_line(#[comptime] block: Block) -> usize {
    if comptime!(block.order == Order::Terms) {
        UNIT_POS as usize / comptime!(block.operands.depth())
    } else {
        UNIT_POS as usize % comptime!(block.threads())
    }
}

/// Where the values of one term lie in memory: that of line i at `start + i · step`.
#[derive(CubeType)]
pub(super) struct Term {
    pub(super) start: usize,
    pub(super) step: usize,
    /// Lines from this one on are zeros: none is there at 0.
    pub(super) end: usize,
}

/// Operands on their way to the matrix units: what a thread has read, and two blocks of each side in shared memory.
#[derive(CubeType)]
pub(super) struct Stage<S: Float> {
    pub(super) left: SharedMemory<S>,
    pub(super) right: SharedMemory<S>,
    left_values: Array<f32>,
    right_values: Array<f32>,
}

/// Room for two blocks of each operand.
#[cube]
pub(super) fn stage<S: Float>(#[comptime] plan: Plan) -> Stage<S> {
    Stage::<S> {
        left: SharedMemory::<S>::new_aligned(comptime!(2 * plan.left.len()), ALIGNMENT),
        right: SharedMemory::<S>::new_aligned(comptime!(2 * plan.right.len()), ALIGNMENT),
        left_values: Array::<f32>::new(comptime!(plan.left.each())),
        right_values: Array::<f32>::new(comptime!(plan.right.each())),
    }
}

/// Reads a thread's values of a block whose first line is `first`.
#[cube]
fn read_term(
    heap: &Array<f32>,
    values: &mut Array<f32>,
    term: &Term,
    first: usize,
    #[comptime] block: Block,
) {
    let line = first + own_line(block);
    #[unroll]
    for i in 0..comptime!(block.each()) {
        let at = line + i * comptime!(block.threads());
        values[i] = value_or_zero(heap, term.start + at * term.step, at < term.end);
    }
}

/// Writes what a thread has read to a block in shared memory, rounded.
#[cube]
fn put<S: Float>(
    values: &Array<f32>,
    shared: &mut SharedMemory<S>,
    parity: usize,
    #[comptime] block: Block,
) {
    let at = parity * comptime!(block.len())
        + own_line(block) * comptime!(block.line_stride())
        + own_term(block) * comptime!(block.term_stride());
    #[unroll]
    for i in 0..comptime!(block.each()) {
        let mut value = values[i];
        // The conversion to bf16 rounds by itself.
        if comptime!(block.operands != Operands::Bf16) {
            value = nearest(value, block.operands);
        }
        shared[at + i * comptime!(block.threads() * block.line_stride())] = S::cast_from(value);
    }
}

/// Reads a thread's values of the next terms; the tile begins at `first_row` and `first_column`.
#[cube]
pub(super) fn read_terms<S: Float>(
    heap: &Array<f32>,
    stage: &mut Stage<S>,
    left: &Term,
    right: &Term,
    first_row: usize,
    first_column: usize,
    #[comptime] plan: Plan,
) {
    read_term(heap, &mut stage.left_values, left, first_row, plan.left);
    read_term(
        heap,
        &mut stage.right_values,
        right,
        first_column,
        plan.right,
    );
}

/// Stages what was read as blocks of `parity`, which no plane may still be multiplying, and waits for the others.
#[cube]
pub(super) fn put_terms<S: Float>(stage: &mut Stage<S>, parity: usize, #[comptime] plan: Plan) {
    put(&stage.left_values, &mut stage.left, parity, plan.left);
    put(&stage.right_values, &mut stage.right, parity, plan.right);
    sync_cube();
}

/// Gives up the staging memory once all planes have multiplied.
#[cube]
pub(super) fn leave<S: Float>(stage: Stage<S>) {
    sync_cube();
    // SAFETY: every thread has come here, and none touches the blocks any more.
    unsafe {
        stage.left.free();
        stage.right.free();
    }
}
