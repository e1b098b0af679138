//! The product that all kernels share: a work-group's tile of `Σ_(tap, src) panel(src) · W[tap]`.

use cubecl::prelude::*;

/// Threads along each side of a work-group: `SIDE` rows by `SIDE` columns.
pub(super) const SIDE: usize = 16;
/// Threads of a work-group.
pub(super) const THREADS: usize = SIDE * SIDE;
/// Products that are staged in shared memory at a time.
pub(super) const DEPTH: usize = 16;
/// Largest number of rows that one work-group holds.
pub(super) const MOST_ROWS: usize = 128;

/// How many rows and columns a thread holds; row i of a thread is `thread + i · SIDE` of the tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Tile {
    /// The tile for panels of `batch` rows (or the first [`MOST_ROWS`] of them) and `columns` channels.
    pub(super) fn new(batch: usize, columns: usize) -> Self {
        Self {
            rows: batch.min(MOST_ROWS).div_ceil(SIDE),
            columns: columns_a_thread(columns),
        }
    }

    /// Work-groups that cover `columns` channels.
    pub(super) fn across(self, columns: usize) -> u32 {
        columns.div_ceil(SIDE * self.columns) as u32
    }

    /// Work-groups that cover `batch` rows.
    pub(super) fn down(self, batch: usize) -> u32 {
        batch.div_ceil(SIDE * self.rows) as u32
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

/// Sizes of a product, in words that hold both ways.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Sizes {
    /// Rows of a panel.
    pub(super) batch: usize,
    /// Channels of a source panel.
    pub(super) channels: usize,
    /// Channels of a destination panel.
    pub(super) columns: usize,
    /// Locations that have a list of links.
    pub(super) locations: usize,
    /// Where in the input its first panel begins.
    pub(super) input_start: usize,
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

/// Adds to `sums`, `[row, column]` of the thread's tile, the products of the links of `location`.
///
/// `links` holds `locations + 1` starts, then (tap, source) for each link.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn accumulate(
    weight: &Array<f32>,
    input: &Array<f32>,
    links: &Array<u32>,
    sums: &mut Array<f32>,
    sizes: &Sizes,
    location: usize,
    first_row: usize,
    first_column: usize,
    #[comptime] tile: Tile,
    #[comptime] direction: Direction,
) {
    let panel_stride = comptime!(SIDE * tile.rows + 1);
    let matrix_stride = comptime!(SIDE * tile.columns + 1);
    let mut panel = SharedMemory::<f32>::new(comptime!(DEPTH * panel_stride));
    let mut matrix = SharedMemory::<f32>::new(comptime!(DEPTH * matrix_stride));
    let unit = UNIT_POS as usize;
    let (row, column) = (unit / SIDE, unit % SIDE);
    let first_link = links[location] as usize;
    let depth = (links[location + 1] as usize - first_link) * sizes.channels;
    let pairs = sizes.locations + 1 + 2 * first_link;
    let chunks = depth.div_ceil(DEPTH);
    for chunk in 0..chunks {
        // The channels of all links are one long sum; each thread stages one term of it for several rows.
        let term = chunk * DEPTH + column;
        let mut source = 0usize;
        let mut tap = 0usize;
        let mut channel = 0usize;
        if term < depth {
            let link = term / sizes.channels;
            channel = term % sizes.channels;
            tap = links[pairs + 2 * link] as usize;
            source = links[pairs + 2 * link + 1] as usize;
        }
        #[unroll]
        for i in 0..tile.rows {
            let r = first_row + row + i * SIDE;
            let at = sizes.input_start + (source * sizes.batch + r) * sizes.channels + channel;
            panel[column * panel_stride + row + i * SIDE] =
                value_or_zero(input, at, term < depth && r < sizes.batch);
        }
        if comptime!(direction == Direction::Backward) {
            #[unroll]
            for j in 0..tile.columns {
                let c = first_column + row + j * SIDE;
                let at = (tap * sizes.columns + c) * sizes.channels + channel;
                matrix[column * matrix_stride + row + j * SIDE] =
                    value_or_zero(weight, at, term < depth && c < sizes.columns);
            }
        } else {
            let term = chunk * DEPTH + row;
            let mut matrix_row = 0usize;
            if term < depth {
                let link = term / sizes.channels;
                matrix_row =
                    links[pairs + 2 * link] as usize * sizes.channels + term % sizes.channels;
            }
            #[unroll]
            for j in 0..tile.columns {
                let c = first_column + column + j * SIDE;
                matrix[row * matrix_stride + column + j * SIDE] = value_or_zero(
                    weight,
                    matrix_row * sizes.columns + c,
                    term < depth && c < sizes.columns,
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
