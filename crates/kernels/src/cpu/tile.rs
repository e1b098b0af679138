//! Register tiles, and the one of a gather.

use super::isa::Kernel;
use super::lanes::Lanes;
use crate::Link;

/// A register tile whose height is known at compile time.
pub(super) trait RowTile<V: Lanes> {
    /// The greatest height that the registers hold.
    const MOST: usize;

    /// Computes `M` rows from row `from` on.
    ///
    /// # Safety
    /// The instruction set of `V`, and what the implementor states.
    unsafe fn run<const M: usize>(self, from: usize);
}

/// Runs a tile at the compile-time height that equals `rows`; heights above the tile's own are never asked for and
/// cost no code.
///
/// # Safety
/// The contract of the tile.
#[inline(always)]
pub(super) unsafe fn run_rows<V: Lanes, T: RowTile<V>>(tile: T, from: usize, rows: usize) {
    // SAFETY: handed on from the caller.
    unsafe {
        match rows {
            1 => tile.run::<1>(from),
            2 => tile.run::<2>(from),
            3 => tile.run::<3>(from),
            4 if T::MOST >= 4 => tile.run::<4>(from),
            5 if T::MOST >= 5 => tile.run::<5>(from),
            6 if T::MOST >= 6 => tile.run::<6>(from),
            7 if T::MOST >= 7 => tile.run::<7>(from),
            8 if T::MOST >= 8 => tile.run::<8>(from),
            9 if T::MOST >= 9 => tile.run::<9>(from),
            10 if T::MOST >= 10 => tile.run::<10>(from),
            11 if T::MOST >= 11 => tile.run::<11>(from),
            12 if T::MOST >= 12 => tile.run::<12>(from),
            13 if T::MOST >= 13 => tile.run::<13>(from),
            14 if T::MOST >= 14 => tile.run::<14>(from),
            rows => unreachable!("a tile of {rows} rows"),
        }
    }
}

/// The greatest height of a tile of `NV` vectors: every row takes `NV` registers.
pub(super) const fn most_rows<V: Lanes>(vectors: usize) -> usize {
    match vectors {
        1 => V::ROWS_OF_ONE,
        _ => V::ROWS,
    }
}

/// Cuts `total` rows into tiles of at most `most` rows: of one height if there is one of at least `even`, else the fewest, of
/// nearly equal height. Tiles that differ keep changing from one function's loop to another's.
#[inline(always)]
pub(super) fn tiles(
    total: usize,
    most: usize,
    even: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let fewest = total.div_ceil(most);
    let count = (fewest..=total / even).find(|&count| count > 0 && total.is_multiple_of(count));
    let count = count.unwrap_or(fewest);
    (0..count).map(move |i| {
        let (from, to) = (i * total / count, (i + 1) * total / count);
        (from, to - from)
    })
}

/// Values of a cache line.
pub(super) const LINE: usize = 16;

/// The links of a product of one panel with one matrix.
pub(super) const ONLY: [Link; 1] = [Link {
    tap: 0,
    location: 0,
}];

/// What a gather reads.
#[derive(Clone, Copy)]
pub(super) struct GatherSource<'a> {
    /// Taps and source locations of this destination.
    pub links: &'a [Link],
    /// Source panels `[location, batch, depth]`.
    pub panels: *const f32,
    /// Distance between source panels.
    pub panel_len: usize,
    /// Samples per panel.
    pub batch: usize,
    /// Channels wanted of a source panel.
    pub depth: usize,
    /// Distance between its rows, its channels in all.
    pub row: usize,
    /// Packed weights of this column block, `[tap, depth, block]`.
    pub weights: *const f32,
    /// Columns of the block.
    pub block: usize,
    /// Whether the sums go on from what stands in `out`.
    pub add: bool,
    /// What is read next, which is asked for on the way.
    pub next: [&'a [f32]; 2],
}

/// `out[row, column] = Σ_links Σ_k panel(src)[row, k] · W[tap][k, column]` for all rows of one block, or that much more.
/// `out` is `[batch, block]`.
///
/// # Safety
/// The instruction set of `V`; valid source panels and weights; `batch · block` writable values behind `out`;
/// `block` is `V::LEN` or twice that.
#[inline(always)]
pub(super) unsafe fn gather_block<V: Lanes>(source: GatherSource<'_>, out: *mut f32) {
    // SAFETY: handed on from the caller.
    unsafe { V::call(GatherBlock { source, out }) }
}

struct GatherBlock<'a> {
    source: GatherSource<'a>,
    out: *mut f32,
}

impl Kernel for GatherBlock<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Self { source, out } = self;
        let vectors = source.block / V::LEN;
        if V::PAIRED && vectors == 1 && source.batch.is_multiple_of(2) {
            for (from, rows) in tiles(source.batch / 2, V::Pair::ROWS, V::Pair::EVEN_ROWS) {
                // SAFETY: the contract of [`gather_block`]; the tile's pairs of rows lie inside the batch.
                unsafe { run_rows::<V::Pair, _>(PairTile { source, out }, from, rows) };
            }
            return;
        }
        for (from, rows) in tiles(source.batch, rows_of_gather::<V>(vectors), V::EVEN_ROWS) {
            // SAFETY: the contract of [`gather_block`]; the tile's rows lie inside the batch.
            unsafe {
                match vectors {
                    1 => run_rows::<V, _>(GatherTile::<1> { source, out }, from, rows),
                    _ => run_rows::<V, _>(GatherTile::<2> { source, out }, from, rows),
                }
            }
        }
    }
}

/// Adds one term to the sums of a tile: its row of weights times a value of each row, which lie `stride` apart.
///
/// # Safety
/// The instruction set of `V`; `NV` vectors of weights, `M` values.
#[inline(always)]
unsafe fn add_term<V: Lanes, const NV: usize, const M: usize>(
    sums: &mut [[V; NV]; M],
    values: *const f32,
    stride: usize,
    weights: *const f32,
) {
    // SAFETY: handed on from the caller.
    unsafe {
        let mut w = [V::splat(0.0); NV];
        for (v, w) in w.iter_mut().enumerate() {
            *w = V::load(weights.add(v * V::LEN));
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            let x = V::splat(*values.add(row * stride));
            for (sum, w) in sums.iter_mut().zip(w) {
                *sum = x.mul_add(w, *sum);
            }
        }
    }
}

/// A vector of columns of two samples. As many of their source values as fill half a vector are loaded together and spread over
/// both halves: shuffles, where a broadcast for every multiply-add would wait for loads.
struct PairTile<'a> {
    source: GatherSource<'a>,
    out: *mut f32,
}

impl<V: Lanes> RowTile<V> for PairTile<'_> {
    const MOST: usize = V::ROWS;

    #[inline(always)]
    unsafe fn run<const M: usize>(self, from: usize) {
        let (source, half) = (self.source, V::LEN / 2);
        let first = from * V::LEN;
        // SAFETY: pairs of rows `from..from + M` lie inside every panel, taps and locations inside the wiring's arrays.
        unsafe {
            let mut sums = [V::splat(0.0); M];
            if source.add {
                for (row, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load(self.out.add(first + row * V::LEN));
                }
            }
            for next in source.next {
                let share = |row: usize| 2 * row * next.len() / source.batch;
                for line in (share(from)..share(from + M)).step_by(LINE) {
                    V::prefetch(next.as_ptr().add(line));
                }
            }
            for link in source.links {
                let panel = source.panels.add(link.location as usize * source.panel_len);
                let panel = panel.add(2 * from * source.row);
                let weights = source.weights.add(link.tap as usize * source.depth * half);
                let mut k = 0;
                while k + half <= source.depth {
                    let mut x = [V::splat(0.0); M];
                    for (row, x) in x.iter_mut().enumerate() {
                        let at = panel.add(2 * row * source.row + k);
                        *x = match source.row == half {
                            true => V::load(at),
                            false => V::load_two(at, at.add(source.row)),
                        };
                    }
                    for lane in 0..half {
                        let w = V::load_twice(weights.add((k + lane) * half));
                        for (sum, x) in sums.iter_mut().zip(x) {
                            *sum = x.spread_two(lane, half + lane).mul_add(w, *sum);
                        }
                    }
                    k += half;
                }
                for k in k..source.depth {
                    let w = V::load_twice(weights.add(k * half));
                    for (row, sum) in sums.iter_mut().enumerate() {
                        let at = panel.add(2 * row * source.row + k);
                        *sum = V::splat_two(*at, *at.add(source.row)).mul_add(w, *sum);
                    }
                }
            }
            for (row, sum) in sums.iter().enumerate() {
                sum.store(self.out.add(first + row * V::LEN));
            }
        }
    }
}

/// The greatest height of a gather's tile of `NV` vectors.
const fn rows_of_gather<V: Lanes>(vectors: usize) -> usize {
    match vectors {
        1 => V::ROWS_OF_TERMS,
        _ => most_rows::<V>(vectors),
    }
}

/// `NV` vectors of columns; accumulators stay in registers over all links.
struct GatherTile<'a, const NV: usize> {
    source: GatherSource<'a>,
    out: *mut f32,
}

impl<V: Lanes, const NV: usize> RowTile<V> for GatherTile<'_, NV> {
    const MOST: usize = rows_of_gather::<V>(NV);

    #[inline(always)]
    unsafe fn run<const M: usize>(self, from: usize) {
        let source = self.source;
        let (depth, stride) = (source.depth, source.row);
        // SAFETY: rows `from..from + M` lie inside every panel, taps and locations inside the wiring's arrays.
        unsafe {
            let mut sums = [[V::splat(0.0); NV]; M];
            if source.add {
                for (row, sums) in sums.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = V::load(self.out.add((from + row) * source.block + v * V::LEN));
                    }
                }
            }
            for next in source.next {
                let share = |row: usize| row * next.len() / source.batch;
                for line in (share(from)..share(from + M)).step_by(LINE) {
                    V::prefetch(next.as_ptr().add(line));
                }
            }
            for link in source.links {
                let panel = source
                    .panels
                    .add(link.location as usize * source.panel_len + from * stride);
                let mut weights = source.weights.add(link.tap as usize * depth * source.block);
                let pairs = if V::TWO_TERMS && NV == 2 {
                    depth / 2
                } else {
                    0
                };
                // Two terms at once take half as many additions of addresses, which compete with multiply-adds for the
                // same units.
                for pair in 0..pairs {
                    let (mut w, mut next) = ([V::splat(0.0); NV], [V::splat(0.0); NV]);
                    for (v, (w, next)) in w.iter_mut().zip(&mut next).enumerate() {
                        *w = V::load(weights.add(v * V::LEN));
                        *next = V::load(weights.add((NV + v) * V::LEN));
                    }
                    weights = weights.add(2 * NV * V::LEN);
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let values = panel.add(row * stride + 2 * pair);
                        let (x, y) = (V::splat(*values), V::splat(*values.add(1)));
                        for ((sum, w), next) in sums.iter_mut().zip(w).zip(next) {
                            *sum = y.mul_add(next, x.mul_add(w, *sum));
                        }
                    }
                }
                let mut k = 2 * pairs;
                while V::TERMS > 1 && k + V::TERMS <= depth {
                    for term in 0..V::TERMS {
                        let weights = weights.add(term * NV * V::LEN);
                        add_term(&mut sums, panel.add(k + term), stride, weights);
                    }
                    weights = weights.add(V::TERMS * NV * V::LEN);
                    k += V::TERMS;
                }
                for k in k..depth {
                    add_term(&mut sums, panel.add(k), stride, weights);
                    weights = weights.add(NV * V::LEN);
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    sum.store(self.out.add((from + row) * source.block + v * V::LEN));
                }
            }
        }
    }
}
