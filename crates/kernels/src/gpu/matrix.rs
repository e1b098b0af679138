//! Products on a device's matrix units: operands are staged as these multiply them, and each plane of a work-group
//! holds some of the tile's pieces, `SIDE` × `SIDE` sums each, until all terms are added.

use super::operands::{Operands, nearest};
use super::tile::{SIDE, THREADS, value_or_zero};
use cubecl::prelude::*;

/// Threads that the matrix instruction takes together.
pub(super) const PLANE: usize = 32;
/// Planes of a work-group.
const PLANES: usize = THREADS / PLANE;
/// Bytes of the terms that are staged at a time, for one row or column.
const STAGED_BYTES: usize = 64;
/// Values between one staged line and the next, so that lines begin in different banks.
const GAP_BYTES: usize = 16;
/// Shared memory that a work-group takes at most.
pub(super) const SHARED_BYTES: usize = 48 << 10;
/// Bytes of which every piece's address is a multiple.
pub(super) const ALIGNMENT: usize = 32;

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
    fn stride(self) -> usize {
        match self.order {
            Order::Terms => self.operands.depth() + GAP_BYTES / self.operands.staged_bytes(),
            Order::Lines => self.lines + 8,
        }
    }

    /// Values from a line to the next.
    fn line_stride(self) -> usize {
        match self.order {
            Order::Terms => self.stride(),
            Order::Lines => 1,
        }
    }

    /// Values from a term to the next.
    fn term_stride(self) -> usize {
        match self.order {
            Order::Terms => 1,
            Order::Lines => self.stride(),
        }
    }

    /// Values of a block, gaps included.
    fn len(self) -> usize {
        let runs = match self.order {
            Order::Terms => self.lines,
            Order::Lines => self.operands.depth(),
        };
        runs * self.stride()
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
    fn layout(self, terms: cmma::MatrixLayout, lines: cmma::MatrixLayout) -> cmma::MatrixLayout {
        match self.order {
            Order::Terms => terms,
            Order::Lines => lines,
        }
    }
}

/// A product of a tile of pieces: how its operands are staged, and how planes share it.
///
/// A plane has every `down`-th row of pieces, and of these every `across`-th.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Plan {
    rows: usize,
    columns: usize,
    across: usize,
    pub(super) operands: Operands,
    pub(super) left: Block,
    pub(super) right: Block,
}

impl Plan {
    /// The plan for `rows` × `columns` pieces: the one that leaves each plane the fewest pieces, and of those the one
    /// that loads the fewest operands.
    pub(super) fn new(
        rows: usize,
        columns: usize,
        operands: Operands,
        [left, right]: [Order; 2],
    ) -> Self {
        [1, 2, 4]
            .into_iter()
            .filter(|&across| columns % across == 0)
            .map(|across| Self {
                rows,
                columns,
                across,
                operands,
                left: Block::new(rows, left, operands),
                right: Block::new(columns, right, operands),
            })
            .min_by_key(|plan| {
                let (rows, columns) = (plan.rows_each(), plan.columns_each());
                (rows * columns, rows + columns)
            })
            .expect("one plane across fits every tile")
    }

    fn down(self) -> usize {
        PLANES / self.across
    }

    /// Rows of pieces that a plane has at most.
    fn rows_each(self) -> usize {
        self.rows.div_ceil(self.down())
    }

    fn columns_each(self) -> usize {
        self.columns / self.across
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
    left: SharedMemory<S>,
    right: SharedMemory<S>,
    left_values: Array<f32>,
    right_values: Array<f32>,
}

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

/// What a plane holds: one piece of the left operand at a time, its pieces of the right one, and its sums,
/// `[row, column]`.
#[derive(CubeType)]
pub(super) struct Pieces<M: Float> {
    left: cmma::Matrix<M>,
    right: Sequence<cmma::Matrix<M>>,
    sums: Sequence<Sequence<cmma::Matrix<f32>>>,
}

/// Pieces whose sums are zeros.
#[cube]
pub(super) fn pieces<M: Float>(#[comptime] plan: Plan) -> Pieces<M> {
    let terms = comptime!(plan.operands.terms());
    // SAFETY: `multiply` loads it before each use.
    let row = unsafe {
        cmma::Matrix::<M>::uninitialized(
            cmma::MatrixIdent::A,
            SIDE,
            SIDE,
            terms,
            comptime!(
                plan.left
                    .layout(cmma::MatrixLayout::RowMajor, cmma::MatrixLayout::ColMajor)
            ),
        )
    };
    let mut columns = Sequence::<cmma::Matrix<M>>::new();
    #[unroll]
    for _ in 0..comptime!(plan.columns_each()) {
        // SAFETY: as above.
        columns.push(unsafe {
            cmma::Matrix::<M>::uninitialized(
                cmma::MatrixIdent::B,
                SIDE,
                SIDE,
                terms,
                comptime!(
                    plan.right
                        .layout(cmma::MatrixLayout::ColMajor, cmma::MatrixLayout::RowMajor)
                ),
            )
        });
    }
    let mut sums = Sequence::<Sequence<cmma::Matrix<f32>>>::new();
    #[unroll]
    for _ in 0..comptime!(plan.rows_each()) {
        let mut row = Sequence::<cmma::Matrix<f32>>::new();
        #[unroll]
        for _ in 0..comptime!(plan.columns_each()) {
            row.push(cmma::Matrix::<f32>::from_value(
                cmma::MatrixIdent::Accumulator,
                SIDE,
                SIDE,
                terms,
                cmma::MatrixLayout::Undefined,
                0.0,
            ));
        }
        sums.push(row);
    }
    Pieces::<M> {
        left: row,
        right: columns,
        sums,
    }
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

/// Adds to a plane's sums the products of the staged blocks of `parity`.
#[cube]
pub(super) fn multiply<S: Float, M: Float>(
    stage: &Stage<S>,
    pieces: &Pieces<M>,
    parity: usize,
    #[comptime] plan: Plan,
) {
    let plane = UNIT_POS as usize / PLANE;
    let row = plane / comptime!(plan.across);
    let column = plane % comptime!(plan.across);
    let terms = comptime!(plan.operands.terms());
    #[unroll]
    for step in 0..2usize {
        #[unroll]
        for j in 0..comptime!(plan.columns_each()) {
            let piece = column + j * comptime!(plan.across);
            let at = parity * comptime!(plan.right.len())
                + piece * comptime!(SIDE * plan.right.line_stride())
                + step * comptime!(terms * plan.right.term_stride());
            cmma::load(
                &pieces.right[j],
                &stage.right.slice(at, at + 1),
                comptime!(plan.right.stride() as u32),
            );
        }
        #[unroll]
        for i in 0..comptime!(plan.rows_each()) {
            let piece = row + i * comptime!(plan.down());
            if piece < plan.rows {
                let at = parity * comptime!(plan.left.len())
                    + piece * comptime!(SIDE * plan.left.line_stride())
                    + step * comptime!(terms * plan.left.term_stride());
                cmma::load(
                    &pieces.left,
                    &stage.left.slice(at, at + 1),
                    comptime!(plan.left.stride() as u32),
                );
                #[unroll]
                for j in 0..comptime!(plan.columns_each()) {
                    cmma::execute(
                        &pieces.left,
                        &pieces.right[j],
                        &pieces.sums[i][j],
                        &pieces.sums[i][j],
                    );
                }
            }
        }
    }
}

/// Adds a plane's sums to those of the threads: thread (r, c) gets value (r, c) of every piece.
#[cube]
pub(super) fn hand_out<M: Float>(
    pieces: &Pieces<M>,
    sums: &mut Array<f32>,
    #[comptime] plan: Plan,
) {
    let mut passed = SharedMemory::<f32>::new_aligned(comptime!(PLANES * SIDE * SIDE), ALIGNMENT);
    let unit = UNIT_POS as usize;
    let plane = unit / PLANE;
    let row = plane / comptime!(plan.across);
    #[unroll]
    for i in 0..comptime!(plan.rows_each()) {
        #[unroll]
        for j in 0..comptime!(plan.columns_each()) {
            if row + i * comptime!(plan.down()) < plan.rows {
                let at = plane * comptime!(SIDE * SIDE);
                cmma::store(
                    &mut passed.slice_mut(at, at + 1),
                    &pieces.sums[i][j],
                    SIDE as u32,
                    cmma::MatrixLayout::RowMajor,
                );
            }
            sync_cube();
            #[unroll]
            for p in 0..PLANES {
                let r = p / comptime!(plan.across) + i * comptime!(plan.down());
                let c = p % comptime!(plan.across) + j * comptime!(plan.across);
                if r < plan.rows {
                    sums[r * plan.columns + c] += passed[p * comptime!(SIDE * SIDE) + unit];
                }
            }
            sync_cube();
        }
    }
    // SAFETY: all threads have read what they wanted, and each has come here.
    unsafe { passed.free() };
}
