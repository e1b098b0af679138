//! The register tile of a weight gradient: outer products, summed over samples.

use super::isa::Kernel;
use super::lanes::{self, CHAINS, Lanes, fold};
use super::tile::{LINE, RowTile, most_rows, run_rows, tiles};
use super::values::Value;

/// `sums[column] += Σ_row panel[row, column]` for a panel of whole rows.
///
/// # Safety
/// The instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn add_rows<V: Lanes, E: Value>(panel: &[E], sums: &mut [f32]) {
    let columns = sums.len();
    let rows = panel.len() / columns;
    let whole = rows / CHAINS * CHAINS;
    for column in (0..columns).step_by(V::LEN) {
        let count = V::LEN.min(columns - column);
        // SAFETY: `count` values from `column` on lie inside every row.
        unsafe {
            let first = panel.as_ptr().add(column);
            let mut chains = [V::splat(0.0); CHAINS];
            for row in (0..whole).step_by(CHAINS) {
                for (chain, sum) in chains.iter_mut().enumerate() {
                    *sum = sum.add(E::load(first.add((row + chain) * columns), count));
                }
            }
            for row in whole..rows {
                chains[0] = chains[0].add(E::load(first.add(row * columns), count));
            }
            let to = sums.as_mut_ptr().add(column);
            let sum = lanes::load::<V>(to, count).add(fold(chains));
            lanes::store(sum, to, count);
        }
    }
}

/// One link's share of a weight gradient.
#[derive(Clone, Copy)]
pub(super) struct OuterProduct {
    /// Source panel `[batch, inputs]`, at the first input wanted.
    pub a: *const f32,
    /// Channels of the source panel.
    pub inputs: usize,
    /// Inputs wanted from `a` on.
    pub rows: usize,
    /// Feedback panel, at the first output wanted.
    pub delta: *const f32,
    /// Distance between its rows.
    pub delta_row: usize,
    /// Outputs wanted from `delta` on.
    pub outputs: usize,
    /// Samples.
    pub batch: usize,
}

/// Where an outer product goes.
#[derive(Clone, Copy)]
pub(super) struct Sum {
    /// `[input, output]`, at the first of both.
    pub to: *mut f32,
    /// Distance between rows.
    pub row: usize,
    /// Whether to add to what stands there.
    pub add: bool,
    /// Factor on the result.
    pub scale: f32,
}

impl Sum {
    /// More of a sum whose rows are `row` values apart.
    pub(super) fn more(to: *mut f32, row: usize) -> Self {
        Self {
            to,
            row,
            add: true,
            scale: 1.0,
        }
    }
}

/// `sum[input, output] = scale · (what stands there + Σ_sample a[sample, input] · delta[sample, output])`.
///
/// # Safety
/// The instruction set of `V`; valid panels; `rows` rows of `outputs` writable values behind `sum`.
#[inline(always)]
pub(super) unsafe fn add_outer_product<V: Lanes>(product: OuterProduct, sum: Sum) {
    // SAFETY: handed on from the caller.
    unsafe { V::call(AddOuterProduct { product, sum }) }
}

struct AddOuterProduct {
    product: OuterProduct,
    sum: Sum,
}

impl Kernel for AddOuterProduct {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Self { product, sum } = self;
        for column in (0..product.outputs).step_by(2 * V::LEN) {
            for (from, rows) in tiles_of::<V>(product, column) {
                let place = Place {
                    column,
                    delta: product.delta.wrapping_add(column),
                    ahead: std::ptr::null(),
                };
                // SAFETY: the contract of [`add_outer_product`]; rows and columns lie inside the product.
                unsafe { outer_tile::<V>(product, place, (from, rows), sum) };
            }
        }
    }
}

/// As [`add_outer_product`] for sources that come from far away: each row's values are taken once for all outputs, and asked
/// for while the ones before them are at work, those at `next` after the last. The feedback panel lies in column blocks of two
/// vectors, `[block, sample, column]`.
///
/// # Safety
/// As for [`add_outer_product`].
#[inline(always)]
pub(super) unsafe fn add_far_outer_product<V: Lanes>(
    product: OuterProduct,
    sum: Sum,
    next: *const f32,
) {
    // SAFETY: handed on from the caller.
    unsafe { V::call(AddFarOuterProduct { product, sum, next }) }
}

struct AddFarOuterProduct {
    product: OuterProduct,
    sum: Sum,
    next: *const f32,
}

impl Kernel for AddFarOuterProduct {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Self { product, sum, next } = self;
        for (from, rows) in tiles_of::<V>(product, 0) {
            let then = match from + rows < product.rows {
                true => product.a.wrapping_add(from + rows),
                false => next,
            };
            // Rows of one line have been asked for.
            let seen =
                then as usize / LINE_BYTES == product.a.wrapping_add(from) as usize / LINE_BYTES;
            for column in (0..product.outputs).step_by(2 * V::LEN) {
                let place = Place {
                    column,
                    delta: product.delta.wrapping_add(column * product.batch),
                    ahead: match column == 0 && !seen {
                        true => then,
                        false => std::ptr::null(),
                    },
                };
                // SAFETY: the contract of [`add_far_outer_product`]; rows and columns lie inside the product.
                unsafe { outer_tile::<V>(product, place, (from, rows), sum) };
            }
        }
    }
}

/// Bytes of a cache line.
const LINE_BYTES: usize = LINE * size_of::<f32>();

/// The tiles of a product's rows.
#[inline(always)]
fn tiles_of<V: Lanes>(
    product: OuterProduct,
    column: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let vectors = 1 + usize::from(product.outputs - column > V::LEN);
    tiles(product.rows, most_rows::<V>(vectors), V::EVEN_ROWS)
}

/// Where a tile of an outer product lies.
#[derive(Clone, Copy)]
struct Place {
    /// The first output.
    column: usize,
    /// The first sample's signal of it.
    delta: *const f32,
    /// Whose samples' values are asked for on the way; null for none.
    ahead: *const f32,
}

/// The rows `from..from + rows` of at most two vectors of outputs.
///
/// # Safety
/// As for [`add_outer_product`].
#[inline(always)]
unsafe fn outer_tile<V: Lanes>(
    product: OuterProduct,
    place: Place,
    (from, rows): (usize, usize),
    sum: Sum,
) {
    let left = product.outputs - place.column;
    // SAFETY: handed on from the caller.
    unsafe {
        if left >= 2 * V::LEN && !place.ahead.is_null() {
            run_tile::<V, 2, false, true>(product, place, 2 * V::LEN, (from, rows), sum);
        } else if left >= 2 * V::LEN {
            run_tile::<V, 2, false, false>(product, place, 2 * V::LEN, (from, rows), sum);
        } else if left > V::LEN {
            run_tile::<V, 2, true, false>(product, place, left, (from, rows), sum);
        } else if left == V::LEN {
            run_tile::<V, 1, false, false>(product, place, left, (from, rows), sum);
        } else {
            run_tile::<V, 1, true, false>(product, place, left, (from, rows), sum);
        }
    }
}

#[inline(always)]
unsafe fn run_tile<V: Lanes, const NV: usize, const PARTIAL: bool, const AHEAD: bool>(
    product: OuterProduct,
    place: Place,
    columns: usize,
    (from, rows): (usize, usize),
    sum: Sum,
) {
    let tile = OuterTile::<NV, PARTIAL, AHEAD> {
        product,
        place,
        last: columns - (NV - 1) * V::LEN,
        sum,
    };
    // SAFETY: handed on from the caller.
    unsafe { run_rows::<V, _>(tile, from, rows) }
}

/// `NV` vectors of outputs; the last holds `last` values, fewer than a vector if `PARTIAL`.
struct OuterTile<const NV: usize, const PARTIAL: bool, const AHEAD: bool> {
    product: OuterProduct,
    place: Place,
    last: usize,
    sum: Sum,
}

impl<V: Lanes, const NV: usize, const PARTIAL: bool, const AHEAD: bool> RowTile<V>
    for OuterTile<NV, PARTIAL, AHEAD>
{
    const MOST: usize = most_rows::<V>(NV);

    #[inline(always)]
    unsafe fn run<const M: usize>(self, from: usize) {
        let Self { product, place, .. } = self;
        let partial = |v: usize| PARTIAL && v + 1 == NV;
        // SAFETY: inputs `from..from + M` and the named columns lie inside the panels and `sum`; only `last`
        // values of the last vector are touched if it is partial.
        unsafe {
            let Sum { to, add, scale, .. } = self.sum;
            let mut sums = [[V::splat(0.0); NV]; M];
            let mut a = product.a.add(from);
            let (mut delta, mut ahead) = (place.delta, place.ahead);
            // The sums come from further away than the panels.
            let sums_of = |row: usize| to.add((from + row) * self.sum.row + place.column);
            for row in 0..M {
                for v in 0..NV {
                    V::prefetch(sums_of(row).add(v * V::LEN));
                }
            }
            for _ in 0..product.batch {
                let mut d = [V::splat(0.0); NV];
                for (v, d) in d.iter_mut().enumerate() {
                    let at = delta.add(v * V::LEN);
                    *d = if partial(v) {
                        V::load_partial(at, self.last)
                    } else {
                        V::load(at)
                    };
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let x = V::splat(*a.add(row));
                    for (sum, d) in sums.iter_mut().zip(d) {
                        *sum = x.mul_add(d, *sum);
                    }
                }
                if AHEAD {
                    V::prefetch(ahead);
                    ahead = ahead.wrapping_add(product.inputs);
                }
                a = a.add(product.inputs);
                delta = delta.add(product.delta_row);
            }
            let scale = V::splat(scale);
            for (row, sums) in sums.iter().enumerate() {
                for (v, &s) in sums.iter().enumerate() {
                    let at = sums_of(row).add(v * V::LEN);
                    if partial(v) {
                        let before = match add {
                            true => V::load_partial(at, self.last),
                            false => V::splat(0.0),
                        };
                        before.add(s).mul(scale).store_partial(at, self.last);
                    } else {
                        let before = match add {
                            true => V::load(at),
                            false => V::splat(0.0),
                        };
                        before.add(s).mul(scale).store(at);
                    }
                }
            }
        }
    }
}

/// Links whose products [`add_three_outer_products`] computes together.
pub(super) const THREE: usize = 3;

/// Most inputs for which that pays: more fill the registers by themselves.
pub(super) const FEW_INPUTS: usize = 8;

/// As [`add_outer_product`] for three links of one destination, whose sums then run side by side: few inputs alone would
/// leave the multiply-adders waiting for them. `product.a` is not used; `a` are the three sources.
///
/// # Safety
/// As for [`add_outer_product`]; at most a vector of outputs.
#[inline(always)]
pub(super) unsafe fn add_three_outer_products<V: Lanes>(
    product: OuterProduct,
    a: [*const f32; THREE],
    sums: [*mut f32; THREE],
) {
    let whole = product.outputs == V::LEN;
    for (from, rows) in tiles(product.rows, most_rows::<V>(1) / THREE, usize::MAX) {
        // SAFETY: handed on from the caller.
        unsafe {
            if whole {
                run_rows::<V, _>(ThreeTiles::<true> { product, a, sums }, from, rows);
            } else {
                run_rows::<V, _>(ThreeTiles::<false> { product, a, sums }, from, rows);
            }
        }
    }
}

/// A tile of each of three links.
struct ThreeTiles<const WHOLE: bool> {
    product: OuterProduct,
    a: [*const f32; THREE],
    sums: [*mut f32; THREE],
}

impl<V: Lanes, const WHOLE: bool> RowTile<V> for ThreeTiles<WHOLE> {
    const MOST: usize = most_rows::<V>(1) / THREE;

    #[inline(always)]
    unsafe fn run<const M: usize>(self, from: usize) {
        let OuterProduct {
            inputs,
            outputs,
            batch,
            mut delta,
            ..
        } = self.product;
        let count = if WHOLE { V::LEN } else { outputs };
        // SAFETY: inputs `from..from + M` and `count` outputs lie inside the panels and the sums.
        unsafe {
            let mut sums = [[V::splat(0.0); M]; THREE];
            let mut a = self.a.map(|a| a.wrapping_add(from));
            for _ in 0..batch {
                let d = lanes::load::<V>(delta, count);
                for (sums, a) in sums.iter_mut().zip(&mut a) {
                    for (row, sum) in sums.iter_mut().enumerate() {
                        *sum = V::splat(*a.add(row)).mul_add(d, *sum);
                    }
                    *a = a.wrapping_add(inputs);
                }
                delta = delta.wrapping_add(outputs);
            }
            for (sums, to) in sums.iter().zip(self.sums) {
                for (row, &sum) in sums.iter().enumerate() {
                    let at = to.add((from + row) * outputs);
                    lanes::store(lanes::load::<V>(at, count).add(sum), at, count);
                }
            }
        }
    }
}
