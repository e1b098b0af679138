//! Products on a device's matrix units: operands are staged as these multiply them, and each plane of a work-group
//! holds some of the tile's pieces, `SIDE` × `SIDE` sums each, until all terms are added.

use super::operands::Operands;
use super::staging::{Block, Order, Stage};
use super::tile::{SIDE, THREADS};
use cubecl::prelude::*;

/// Threads that the matrix instruction takes together.
pub(super) const PLANE: usize = 32;
/// Planes of a work-group.
const PLANES: usize = THREADS / PLANE;
/// Shared memory that a work-group takes at most.
pub(super) const SHARED_BYTES: usize = 48 << 10;
/// Bytes of which every piece's address is a multiple.
pub(super) const ALIGNMENT: usize = 32;

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
            .filter(|&across| columns.is_multiple_of(across))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The plans of all tiles in both precisions and every order.
    fn plans() -> Vec<Plan> {
        let orders = [Order::Terms, Order::Lines];
        let mut plans = Vec::new();
        for operands in [Operands::Tf32, Operands::Bf16] {
            for (rows, columns) in (1..=8).flat_map(|rows| [1, 2, 4].map(|c| (rows, c))) {
                for left in orders {
                    plans.extend(orders.map(|o| Plan::new(rows, columns, operands, [left, o])));
                }
            }
        }
        plans
    }

    #[test]
    fn every_tile_fits_the_shared_memory() {
        const HANDED_OUT: usize = size_of::<f32>() * PLANES * SIDE * SIDE;
        const MEANS: usize = size_of::<f32>() * SIDE * SIDE * 4;
        for plan in plans() {
            let staged: usize = [plan.left, plan.right].map(Block::bytes).iter().sum();
            assert!(2 * staged + HANDED_OUT + MEANS <= SHARED_BYTES, "{plan:?}");
        }
    }

    #[test]
    fn every_piece_has_one_plane() {
        for plan in plans() {
            let mut owners = vec![0; plan.rows * plan.columns];
            for plane in 0..PLANES {
                for i in 0..plan.rows_each() {
                    let row = plane / plan.across + i * plan.down();
                    for j in 0..plan.columns_each() {
                        let column = plane % plan.across + j * plan.across;
                        if row < plan.rows {
                            owners[row * plan.columns + column] += 1;
                        }
                    }
                }
            }
            assert!(owners.iter().all(|&count| count == 1), "{plan:?}");
        }
    }

    /// The instruction asks for addresses that are multiples of 32 bytes and strides that are multiples of 16.
    #[test]
    fn every_piece_is_aligned() {
        for plan in plans() {
            for (block, pieces) in [(plan.left, plan.rows), (plan.right, plan.columns)] {
                let bytes = block.bytes() / block.len();
                assert_eq!(bytes * block.stride() % 16, 0, "{plan:?}");
                for piece in 0..pieces {
                    for (parity, step) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                        let at = parity * block.len()
                            + piece * SIDE * block.line_stride()
                            + step * plan.operands.terms() * block.term_stride();
                        assert_eq!(bytes * at % ALIGNMENT, 0, "{plan:?}");
                    }
                }
            }
        }
    }

    /// The largest tile and the usual batch of 100: no plane has more than four of their 32 and 28 pieces.
    #[test]
    fn planes_share_the_work() {
        for (rows, columns, most) in [(8, 4, 4), (7, 4, 4), (4, 4, 2), (2, 4, 1), (8, 1, 1)] {
            let plan = Plan::new(rows, columns, Operands::Bf16, [Order::Terms; 2]);
            assert_eq!(plan.rows_each() * plan.columns_each(), most, "{plan:?}");
        }
    }
}
