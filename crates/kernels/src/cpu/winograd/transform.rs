//! The five transforms of F(4×4, 3×3), each a matrix applied to both sides of a small square of vectors.

use crate::cpu::lanes::{Lanes, load, store};
use crate::cpu::tile::LINE;

/// Where a square of panels begins; null ones are zeros.
pub(super) type Panels<const N: usize> = [[*const f32; N]; N];

/// A matrix of M rows and N columns, applied to one line.
pub(super) trait Line<const N: usize, const M: usize> {
    /// # Safety
    /// The instruction set of `V`.
    unsafe fn line<V: Lanes>(x: [V; N]) -> [V; M];
}

/// `L x Lᵀ`, from values that are loaded when their column's turn comes, to values that are stored row by row: all of
/// them at once would not fit the registers.
///
/// # Safety
/// The instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn plane<L: Line<N, M>, V: Lanes, const N: usize, const M: usize>(
    load: impl Fn(usize, usize) -> V,
    mut store: impl FnMut(usize, usize, V),
) {
    // SAFETY: arithmetic only, in the caller's instruction set.
    unsafe {
        let mut half = [[V::splat(0.0); N]; M];
        for j in 0..N {
            let mut column = [V::splat(0.0); N];
            for (i, value) in column.iter_mut().enumerate() {
                *value = load(i, j);
            }
            for (row, value) in half.iter_mut().zip(L::line(column)) {
                row[j] = value;
            }
        }
        for (i, row) in half.into_iter().enumerate() {
            for (j, value) in L::line(row).into_iter().enumerate() {
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
pub(super) unsafe fn to_points<L: Line<N, 6>, V: Lanes, const N: usize>(
    panels: &Panels<N>,
    (from, len): (usize, usize),
    ahead: usize,
    (to, apart): (*mut f32, usize),
) {
    let whole = len / V::LEN * V::LEN;
    // SAFETY: handed on from the caller.
    unsafe {
        for at in (0..whole).step_by(V::LEN) {
            let from = from + at;
            if from % LINE < V::LEN {
                for panel in panels.iter().flatten() {
                    V::prefetch(panel.wrapping_add(from + ahead));
                }
            }
            vector_to_points::<L, V, N>(panels, (from, V::LEN), (to.add(at), apart));
        }
        if whole < len {
            let (from, to) = (from + whole, to.add(whole));
            vector_to_points::<L, V, N>(panels, (from, len - whole), (to, apart));
        }
    }
}

/// One vector's `count` values of that.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn vector_to_points<L: Line<N, 6>, V: Lanes, const N: usize>(
    panels: &Panels<N>,
    (from, count): (usize, usize),
    (to, apart): (*mut f32, usize),
) {
    // SAFETY: handed on from the caller.
    unsafe {
        plane::<L, V, N, 6>(
            |i, j| match panels[i][j] {
                panel if panel.is_null() => V::splat(0.0),
                panel => load::<V>(panel.wrapping_add(from), count),
            },
            |i, j, value| store(value, to.add((i * 6 + j) * apart), count),
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
