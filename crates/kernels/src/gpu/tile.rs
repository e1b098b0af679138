//! The product that all kernels share: a work-group's tile of `Σ_(tap, src) panel(src) · W[tap]`.

use super::cuda;
use super::matrix::{Plan, hand_out, multiply, pieces};
use super::operands::{Operands, operand_or_zero};
use super::staging::{Order, Stage, Term, leave, own_term, put_terms, read_terms, stage};
use super::units::{By, Panels, Parts, Units};
use cubecl::prelude::*;
use half::bf16;

/// Threads along each side of a work-group: `SIDE` rows by `SIDE` columns.
pub(super) const SIDE: usize = 16;
/// Threads of a work-group.
pub(super) const THREADS: usize = SIDE * SIDE;
/// Products that are staged in shared memory at a time.
pub(super) const DEPTH: usize = 16;
/// Largest number of rows that one work-group holds.
pub(super) const MOST_ROWS: usize = 128;

/// How many rows and columns a thread holds, and what multiplies what; row i of a thread is `thread + i · SIDE` of
/// the tile. In CUDA's own kernels, `columns` are those of the work-group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) operands: Operands,
    pub(super) units: Units,
}

impl Tile {
    /// The tile for `locations` panels of `batch` rows (or the first [`MOST_ROWS`] of them) and `columns` channels.
    pub(super) fn new(
        locations: usize,
        batch: usize,
        columns: usize,
        operands: Operands,
        units: Units,
    ) -> Self {
        let rows = batch.min(MOST_ROWS).div_ceil(SIDE);
        let (rows, columns) = match units {
            Units::Cuda(Parts { exact, .. }) => {
                let panels = locations * batch.div_ceil(MOST_ROWS);
                (
                    MOST_ROWS / SIDE,
                    cuda::columns_of_a_group(panels, columns, exact),
                )
            }
            Units::Scalar | Units::Matrix => (rows, columns_a_thread(columns)),
        };
        Self {
            rows,
            columns,
            operands,
            units,
        }
    }

    /// Columns of the work-group.
    fn width(self) -> usize {
        match self.units {
            Units::Cuda(_) => self.columns,
            Units::Scalar | Units::Matrix => SIDE * self.columns,
        }
    }

    /// How matrix units compute it: panels lie with their channels side by side, and weights with their outputs.
    fn plan(self, direction: Direction) -> Plan {
        let weights = match direction {
            Direction::Forward => Order::Lines,
            Direction::Backward => Order::Terms,
        };
        Plan::new(
            self.rows,
            self.columns,
            self.operands,
            [Order::Terms, weights],
        )
    }

    /// Work-groups that cover `columns` channels.
    fn across(self, columns: usize) -> usize {
        columns.div_ceil(self.width())
    }

    /// Work-groups that cover `batch` rows.
    fn down(self, batch: usize) -> usize {
        batch.div_ceil(SIDE * self.rows)
    }

    /// Work-groups of a product, as [`place_of`] counts them.
    pub(super) fn groups(self, locations: usize, batch: usize, columns: usize) -> usize {
        let places = locations * self.across(columns) * self.down(batch);
        match self.units.by() {
            By::Panels(Panels { warps, .. }) => places.div_ceil(warps),
            By::Pieces => places,
            By::Groups(_) | By::Patches(_) | By::Stacks(_) => {
                unreachable!("work-groups of some panels are counted by the wiring")
            }
        }
    }
}

/// Columns that a thread holds: up to four, so that each staged value is used often.
pub(super) fn columns_a_thread(columns: usize) -> usize {
    match columns.div_ceil(SIDE) {
        1 => 1,
        2 => 2,
        _ => 4,
    }
}

/// Which way weights `[tap, input, output]` are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    /// From inputs to outputs.
    Forward,
    /// From outputs to inputs: the transposed matrices.
    Backward,
}

/// A product as an item's words describe it, in terms that hold both ways.
#[derive(CubeType)]
pub(super) struct Walk {
    /// Where the weights begin.
    pub(super) weight: usize,
    /// Where the source panels begin.
    pub(super) input: usize,
    /// Where the links begin, among the words.
    pub(super) links: usize,
    /// Rows of a panel.
    pub(super) batch: usize,
    /// Channels of a source panel.
    pub(super) channels: usize,
    /// Channels of a destination panel.
    pub(super) columns: usize,
    /// Locations that have a list of links.
    pub(super) locations: usize,
    /// Factor on the sums.
    pub(super) scale: f32,
}

/// Words of a [`Walk`]; CUDA's kernels read two more, values of the source panels and matrices of the weights.
pub(super) const WALK_WORDS: usize = 10;

/// The walk that stands at `at`.
#[cube]
pub(super) fn read_walk(table: &Array<u32>, at: usize) -> Walk {
    Walk {
        weight: table[at] as usize,
        input: table[at + 1] as usize,
        links: table[at + 2] as usize,
        batch: table[at + 3] as usize,
        channels: table[at + 4] as usize,
        columns: table[at + 5] as usize,
        locations: table[at + 6] as usize,
        scale: f32::reinterpret(table[at + 7]),
    }
}

/// What a work-group works on: panel, first row and first column.
#[derive(CubeType)]
pub(super) struct Place {
    pub(super) location: usize,
    pub(super) first_row: usize,
    pub(super) first_column: usize,
}

/// The place of a work-group by its number among those of its item: panels fastest, then columns, then rows.
#[cube]
pub(super) fn place_of(group: usize, walk: &Walk, #[comptime] tile: Tile) -> Place {
    let across = walk.columns.div_ceil(comptime!(SIDE * tile.columns));
    let column = group / walk.locations;
    Place {
        location: group % walk.locations,
        first_row: column / across * comptime!(SIDE * tile.rows),
        first_column: column % across * comptime!(SIDE * tile.columns),
    }
}

/// `values[at]`, or 0 where `at` lies outside.
#[cube]
pub(super) fn value_or_zero(values: &Array<f32>, at: usize, inside: bool) -> f32 {
    let mut value = 0.0f32;
    if inside {
        value = values[at];
    }
    value
}

/// A tile of zeros.
#[cube]
pub(super) fn zeros(#[comptime] tile: Tile) -> Array<f32> {
    let mut sums = Array::<f32>::new(comptime!(tile.rows * tile.columns));
    #[unroll]
    for i in 0..comptime!(tile.rows * tile.columns) {
        sums[i] = 0.0;
    }
    sums
}

/// Adds to `sums`, `[row, column]` of the thread's tile, the products of the links of `place`'s location.
///
/// Links are `locations + 1` starts, then (tap, source) for each link.
#[cube]
pub(super) fn accumulate(
    heap: &Array<f32>,
    links: &Array<u32>,
    sums: &mut Array<f32>,
    walk: &Walk,
    place: &Place,
    #[comptime] tile: Tile,
    #[comptime] direction: Direction,
) {
    if comptime!(tile.units == Units::Scalar) {
        accumulate_by_threads(heap, links, sums, walk, place, tile, direction);
    } else if comptime!(tile.operands == Operands::Bf16) {
        accumulate_by_planes::<bf16, bf16>(heap, links, sums, walk, place, tile, direction);
    } else {
        accumulate_by_planes::<f32, tf32>(heap, links, sums, walk, place, tile, direction);
    }
}

/// [`accumulate`] with the matrix units' operands `M`, staged as `S`.
#[cube]
fn accumulate_by_planes<S: Float, M: Float>(
    heap: &Array<f32>,
    links: &Array<u32>,
    sums: &mut Array<f32>,
    walk: &Walk,
    place: &Place,
    #[comptime] tile: Tile,
    #[comptime] direction: Direction,
) {
    let plan = comptime!(tile.plan(direction));
    let mut stage = stage::<S>(plan);
    let pieces = pieces::<M>(plan);
    let start = walk.links + place.location;
    let first_link = links[start] as usize;
    let sum = LinkSum {
        pairs: walk.links + walk.locations + 1 + 2 * first_link,
        depth: (links[start + 1] as usize - first_link) * walk.channels,
    };
    let chunks = sum.depth.div_ceil(comptime!(tile.operands.depth()));
    read_links(
        heap, links, &mut stage, walk, place, &sum, 0usize, plan, direction,
    );
    for chunk in 0..chunks {
        put_terms(&mut stage, chunk % 2, plan);
        // The next blocks' values are on their way while these are multiplied.
        read_links(
            heap,
            links,
            &mut stage,
            walk,
            place,
            &sum,
            chunk + 1,
            plan,
            direction,
        );
        multiply(&stage, &pieces, chunk % 2, plan);
    }
    leave(stage);
    hand_out(&pieces, sums, plan);
}

/// A location's links, whose channels are one long sum.
#[derive(CubeType)]
struct LinkSum {
    /// Where the links' (tap, source) begin.
    pairs: usize,
    /// Terms.
    depth: usize,
}

/// Reads a thread's values of chunk `chunk` of a sum: zeros beyond its end.
#[cube]
#[allow(clippy::too_many_arguments)]
fn read_links<S: Float>(
    heap: &Array<f32>,
    links: &Array<u32>,
    stage: &mut Stage<S>,
    walk: &Walk,
    place: &Place,
    sum: &LinkSum,
    chunk: usize,
    #[comptime] plan: Plan,
    #[comptime] direction: Direction,
) {
    let first = chunk * comptime!(plan.operands.depth());
    let mut panel = Term {
        start: walk.input,
        step: walk.channels,
        end: 0usize,
    };
    let term = first + own_term(plan.left);
    if term < sum.depth {
        let source = links[sum.pairs + 2 * (term / walk.channels) + 1] as usize;
        panel.start += source * walk.batch * walk.channels + term % walk.channels;
        panel.end = walk.batch;
    }
    let mut weights = Term {
        start: walk.weight,
        step: 1usize,
        end: 0usize,
    };
    if comptime!(direction == Direction::Backward) {
        weights.step = walk.channels;
    }
    let term = first + own_term(plan.right);
    if term < sum.depth {
        let matrix = links[sum.pairs + 2 * (term / walk.channels)] as usize * walk.channels;
        let channel = term % walk.channels;
        if comptime!(direction == Direction::Backward) {
            weights.start += matrix * walk.columns + channel;
        } else {
            weights.start += (matrix + channel) * walk.columns;
        }
        weights.end = walk.columns;
    }
    read_terms(
        heap,
        stage,
        &panel,
        &weights,
        place.first_row,
        place.first_column,
        plan,
    );
}

/// [`accumulate`] by each thread for itself.
#[cube]
fn accumulate_by_threads(
    heap: &Array<f32>,
    links: &Array<u32>,
    sums: &mut Array<f32>,
    walk: &Walk,
    place: &Place,
    #[comptime] tile: Tile,
    #[comptime] direction: Direction,
) {
    let panel_stride = comptime!(SIDE * tile.rows + 1);
    let matrix_stride = comptime!(SIDE * tile.columns + 1);
    let mut panel = SharedMemory::<f32>::new(comptime!(DEPTH * panel_stride));
    let mut matrix = SharedMemory::<f32>::new(comptime!(DEPTH * matrix_stride));
    let unit = UNIT_POS as usize;
    let (row, column) = (unit / SIDE, unit % SIDE);
    let start = walk.links + place.location;
    let first_link = links[start] as usize;
    let depth = (links[start + 1] as usize - first_link) * walk.channels;
    let pairs = walk.links + walk.locations + 1 + 2 * first_link;
    let chunks = depth.div_ceil(DEPTH);
    for chunk in 0..chunks {
        // The channels of all links are one long sum; each thread stages one term of it for several rows.
        let term = chunk * DEPTH + column;
        let mut source = 0usize;
        let mut tap = 0usize;
        let mut channel = 0usize;
        if term < depth {
            let link = term / walk.channels;
            channel = term % walk.channels;
            tap = links[pairs + 2 * link] as usize;
            source = links[pairs + 2 * link + 1] as usize;
        }
        #[unroll]
        for i in 0..tile.rows {
            let r = place.first_row + row + i * SIDE;
            let at = walk.input + (source * walk.batch + r) * walk.channels + channel;
            panel[column * panel_stride + row + i * SIDE] =
                operand_or_zero(heap, at, term < depth && r < walk.batch, tile.operands);
        }
        if comptime!(direction == Direction::Backward) {
            #[unroll]
            for j in 0..tile.columns {
                let c = place.first_column + row + j * SIDE;
                let at = walk.weight + (tap * walk.columns + c) * walk.channels + channel;
                matrix[column * matrix_stride + row + j * SIDE] =
                    operand_or_zero(heap, at, term < depth && c < walk.columns, tile.operands);
            }
        } else {
            let term = chunk * DEPTH + row;
            let mut matrix_row = 0usize;
            if term < depth {
                let link = term / walk.channels;
                matrix_row =
                    links[pairs + 2 * link] as usize * walk.channels + term % walk.channels;
            }
            #[unroll]
            for j in 0..tile.columns {
                let c = place.first_column + column + j * SIDE;
                matrix[row * matrix_stride + column + j * SIDE] = operand_or_zero(
                    heap,
                    walk.weight + matrix_row * walk.columns + c,
                    term < depth && c < walk.columns,
                    tile.operands,
                );
            }
        }
        sync_cube();
        for k in 0..DEPTH {
            #[unroll]
            for i in 0..tile.rows {
                let value = panel[k * panel_stride + row + i * SIDE];
                #[unroll]
                for j in 0..tile.columns {
                    sums[i * tile.columns + j] +=
                        value * matrix[k * matrix_stride + column + j * SIDE];
                }
            }
        }
        sync_cube();
    }
}
