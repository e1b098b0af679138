//! Transforms, each a matrix applied to the rows and one applied to the columns of a small rectangle of vectors, and the five
//! matrices of F(4, 3).

use super::TILE;
use crate::cpu::lanes::{Lanes, store};
use crate::cpu::values::Value;

/// Where panels of a rectangle begin; null ones are zeros.
pub(super) type Panels<E, const ROWS: usize, const COLUMNS: usize> = [[*const E; COLUMNS]; ROWS];

/// A matrix of M rows and N columns, applied to one line.
pub(super) trait Line<const N: usize, const M: usize> {
    /// # Safety
    /// The instruction set of `V`.
    unsafe fn line<V: Lanes>(x: [V; N]) -> [V; M];
}

/// How rows or columns of a tile, or of a part of it, are computed: N sources, as many points, and the tile's destinations.
pub(super) trait Side<const N: usize> {
    /// Sources to points.
    type Sources: Line<N, N>;
    /// Points to destinations.
    type Destinations: Line<N, TILE>;
    /// Signals at destinations to points, for the gradient: the adjoint of the former.
    type Signals: Line<TILE, N>;
    /// Where the sources begin.
    const FIRST: usize;
    /// Which of a side's matrices each point goes through.
    const MATRIX: [usize; N];
}

/// Stride 1.
pub(super) struct Whole;

impl Side<6> for Whole {
    type Sources = Sources;
    type Destinations = Destinations;
    type Signals = Signals;
    const FIRST: usize = 0;
    const MATRIX: [usize; 6] = [0, 1, 2, 3, 4, 5];
}

/// `R x Cᵀ`, from values that are loaded when their column's turn comes, to values that are stored row by row: all of
/// them at once would not fit the registers.
///
/// # Safety
/// The instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn plane<
    R,
    C,
    V: Lanes,
    const NR: usize,
    const NC: usize,
    const MR: usize,
    const MC: usize,
>(
    load: impl Fn(usize, usize) -> V,
    mut store: impl FnMut(usize, usize, V),
) where
    R: Line<NR, MR>,
    C: Line<NC, MC>,
{
    // SAFETY: arithmetic only, in the caller's instruction set.
    unsafe {
        let mut half = [[V::splat(0.0); NC]; MR];
        for j in 0..NC {
            let mut column = [V::splat(0.0); NR];
            for (i, value) in column.iter_mut().enumerate() {
                *value = load(i, j);
            }
            for (row, value) in half.iter_mut().zip(R::line(column)) {
                row[j] = value;
            }
        }
        for (i, row) in half.into_iter().enumerate() {
            for (j, value) in C::line(row).into_iter().enumerate() {
                store(i, j, value);
            }
        }
    }
}

/// `len` values from `from` on of each panel, at the points, whose values are written a distance apart. Those `ahead` are
/// asked for: so many streams are more than a processor follows by itself.
///
/// # Safety
/// The instruction set of `V`; readable values in the panels, writable ones at the points.
#[inline(always)]
pub(super) unsafe fn to_points<
    R,
    C,
    V: Lanes,
    E: Value,
    const NR: usize,
    const NC: usize,
    const PR: usize,
    const PC: usize,
>(
    panels: &Panels<E, NR, NC>,
    (from, len): (usize, usize),
    ahead: usize,
    (to, apart): (*mut f32, usize),
) where
    R: Line<NR, PR>,
    C: Line<NC, PC>,
{
    let whole = len / V::LEN * V::LEN;
    // SAFETY: handed on from the caller.
    unsafe {
        for at in (0..whole).step_by(V::LEN) {
            let from = from + at;
            if from % E::LINE < V::LEN {
                for panel in panels.iter().flatten() {
                    V::prefetch(panel.wrapping_add(from + ahead).cast());
                }
            }
            let to = (to.add(at), apart);
            vector_to_points::<R, C, V, E, NR, NC, PR, PC>(panels, (from, V::LEN), to);
        }
        if whole < len {
            let to = (to.add(whole), apart);
            vector_to_points::<R, C, V, E, NR, NC, PR, PC>(panels, (from + whole, len - whole), to);
        }
    }
}

/// One vector's `count` values of that.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn vector_to_points<
    R,
    C,
    V: Lanes,
    E: Value,
    const NR: usize,
    const NC: usize,
    const PR: usize,
    const PC: usize,
>(
    panels: &Panels<E, NR, NC>,
    (from, count): (usize, usize),
    (to, apart): (*mut f32, usize),
) where
    R: Line<NR, PR>,
    C: Line<NC, PC>,
{
    // SAFETY: handed on from the caller.
    unsafe {
        plane::<R, C, V, NR, NC, PR, PC>(
            |i, j| match panels[i][j] {
                panel if panel.is_null() => V::splat(0.0),
                panel => E::load::<V>(panel.wrapping_add(from), count),
            },
            |i, j, value| store(value, to.add((i * PC + j) * apart), count),
        );
    }
}

/// `Bᵀ`: sources to points.
pub(super) struct Sources;

impl Line<6, 6> for Sources {
    #[inline(always)]
    unsafe fn line<V: Lanes>(d: [V; 6]) -> [V; 6] {
        // SAFETY: arithmetic only.
        unsafe {
            let (two, four, five) = (V::splat(2.0), V::splat(4.0), V::splat(5.0));
            let even = d[4].sub(four.mul(d[2]));
            let odd = d[3].sub(four.mul(d[1]));
            let near = d[4].sub(d[2]);
            let far = two.mul(d[3].sub(d[1]));
            [
                four.mul_add(d[0], d[4].sub(five.mul(d[2]))),
                even.add(odd),
                even.sub(odd),
                near.add(far),
                near.sub(far),
                four.mul_add(d[1], d[5].sub(five.mul(d[3]))),
            ]
        }
    }
}

/// `Aᵀ`: points to destinations.
pub(super) struct Destinations;

impl Line<6, 4> for Destinations {
    #[inline(always)]
    unsafe fn line<V: Lanes>(m: [V; 6]) -> [V; 4] {
        // SAFETY: arithmetic only.
        unsafe {
            let (two, four, eight) = (V::splat(2.0), V::splat(4.0), V::splat(8.0));
            let (p, q) = (m[1].add(m[2]), m[1].sub(m[2]));
            let (r, s) = (m[3].add(m[4]), m[3].sub(m[4]));
            [
                m[0].add(p).add(r),
                two.mul_add(s, q),
                four.mul_add(r, p),
                eight.mul_add(s, q).add(m[5]),
            ]
        }
    }
}

/// `A`: signals at destinations to points.
pub(super) struct Signals;

impl Line<4, 6> for Signals {
    #[inline(always)]
    unsafe fn line<V: Lanes>(y: [V; 4]) -> [V; 6] {
        // SAFETY: arithmetic only.
        unsafe {
            let (two, four, eight) = (V::splat(2.0), V::splat(4.0), V::splat(8.0));
            let (even, odd) = (y[0].add(y[2]), y[1].add(y[3]));
            let far_even = four.mul_add(y[2], y[0]);
            let far_odd = two.mul_add(y[1], eight.mul(y[3]));
            [
                y[0],
                even.add(odd),
                even.sub(odd),
                far_even.add(far_odd),
                far_even.sub(far_odd),
                y[3],
            ]
        }
    }
}

/// `G`: weights to points.
pub(super) struct Weights;

impl Line<3, 6> for Weights {
    #[inline(always)]
    unsafe fn line<V: Lanes>(g: [V; 3]) -> [V; 6] {
        // SAFETY: arithmetic only.
        unsafe {
            let sixth = V::splat(-1.0 / 6.0);
            let ends = g[0].add(g[2]);
            let even = g[0]
                .mul(V::splat(1.0 / 24.0))
                .add(g[2].mul(V::splat(1.0 / 6.0)));
            let odd = g[1].mul(V::splat(1.0 / 12.0));
            [
                g[0].mul(V::splat(0.25)),
                ends.add(g[1]).mul(sixth),
                ends.sub(g[1]).mul(sixth),
                even.add(odd),
                even.sub(odd),
                g[2],
            ]
        }
    }
}

/// `Gᵀ`: points to the weights' gradient.
pub(super) struct Gradient;

impl Line<6, 3> for Gradient {
    #[inline(always)]
    unsafe fn line<V: Lanes>(s: [V; 6]) -> [V; 3] {
        // SAFETY: arithmetic only.
        unsafe {
            let (quarter, sixth) = (V::splat(0.25), V::splat(1.0 / 6.0));
            let near = s[1].add(s[2]).mul(sixth);
            let far = s[3].add(s[4]);
            let twist = s[2].sub(s[1]).mul(sixth);
            [
                quarter
                    .mul_add(s[0], far.mul(V::splat(1.0 / 24.0)))
                    .sub(near),
                s[3].sub(s[4]).mul_add(V::splat(1.0 / 12.0), twist),
                far.mul_add(sixth, s[5]).sub(near),
            ]
        }
    }
}
