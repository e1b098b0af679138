//! The parts of a tile of stride 2.
//!
//! Along a side, destination i sees source 2i through the first tap, 2i + 1 through the second, and 2i + 2 through the
//! third. The first and the third tap are a convolution of stride 1 on even sources, F(4, 2) at the points 0, 1, −1, 2 and
//! ∞; the second multiplies odd sources as they are. So there are five matrices of even rows (or columns) and one of odd ones,
//! and four parts of 25, 20, 20 and 16 products, 81 where a plain sum takes 144. Feedback has the same parts: even sources
//! receive two taps from two destinations, odd ones the second tap from one.

use super::transform::{Line, Side, Signals};
use super::{SIDE, TILE};
use crate::cpu::lanes::Lanes;

/// Products of a tile.
pub(super) const PRODUCTS: usize = (5 + TILE) * (5 + TILE);

/// Points of the greatest part that is transformed.
pub(super) const MOST_POINTS: usize = 5 * 5;

/// Even rows or columns.
pub(super) struct Even;

impl Side<5> for Even {
    type Sources = EvenSources;
    type Destinations = EvenDestinations;
    type Signals = EvenSignals;
    const FIRST: usize = 0;
    const MATRIX: [usize; 5] = [0, 1, 2, 3, 4];
}

/// Odd ones.
pub(super) struct Odd;

impl Side<TILE> for Odd {
    type Sources = Same;
    type Destinations = Same;
    type Signals = Same;
    const FIRST: usize = 1;
    const MATRIX: [usize; TILE] = [SIDE - 1; TILE];
}

/// The unit matrix.
pub(super) struct Same;

impl<const N: usize> Line<N, N> for Same {
    #[inline(always)]
    unsafe fn line<V: Lanes>(x: [V; N]) -> [V; N] {
        x
    }
}

/// `Bᵀ`: sources to points.
pub(super) struct EvenSources;

impl Line<5, 5> for EvenSources {
    #[inline(always)]
    unsafe fn line<V: Lanes>(d: [V; 5]) -> [V; 5] {
        // SAFETY: arithmetic only.
        unsafe {
            let two = V::splat(2.0);
            let (near, far) = (d[3].sub(d[1]), d[3].sub(d[2]));
            [
                two.mul_add(d[0].sub(d[2]), near),
                far.sub(two.mul(d[1])),
                two.mul_add(d[1].sub(d[2]), far),
                near,
                d[4].sub(d[2]).sub(two.mul(near)),
            ]
        }
    }
}

/// `Aᵀ`: points to destinations.
pub(super) struct EvenDestinations;

impl Line<5, TILE> for EvenDestinations {
    #[inline(always)]
    unsafe fn line<V: Lanes>(m: [V; 5]) -> [V; TILE] {
        // SAFETY: arithmetic only.
        unsafe {
            let (two, four, eight) = (V::splat(2.0), V::splat(4.0), V::splat(8.0));
            let (sum, difference) = (m[1].add(m[2]), m[1].sub(m[2]));
            [
                m[0].add(sum).add(m[3]),
                two.mul_add(m[3], difference),
                four.mul_add(m[3], sum),
                eight.mul_add(m[3], difference).add(m[4]),
            ]
        }
    }
}

/// `A`: signals at destinations to points, which are those of F(4, 3) but for −2.
pub(super) struct EvenSignals;

impl Line<TILE, 5> for EvenSignals {
    #[inline(always)]
    unsafe fn line<V: Lanes>(y: [V; TILE]) -> [V; 5] {
        // SAFETY: arithmetic only.
        let [zero, one, minus_one, two, _, infinity] = unsafe { Signals::line(y) };
        [zero, one, minus_one, two, infinity]
    }
}

/// `G` of both kinds: three taps to the matrices of even sources and that of odd ones.
pub(super) struct Weights;

impl Line<3, SIDE> for Weights {
    #[inline(always)]
    unsafe fn line<V: Lanes>(g: [V; 3]) -> [V; SIDE] {
        // SAFETY: arithmetic only.
        unsafe {
            let (half, third, sixth) = (V::splat(0.5), V::splat(1.0 / 3.0), V::splat(1.0 / 6.0));
            [
                g[0].mul(half),
                g[0].add(g[2]).mul(V::splat(-0.5)),
                g[2].sub(g[0]).mul(sixth),
                third.mul_add(g[2], g[0].mul(sixth)),
                g[2],
                g[1],
            ]
        }
    }
}

/// `Gᵀ` of both kinds: sums at the matrices to the weights' gradient.
pub(super) struct Gradient;

impl Line<SIDE, 3> for Gradient {
    #[inline(always)]
    unsafe fn line<V: Lanes>(s: [V; SIDE]) -> [V; 3] {
        // SAFETY: arithmetic only.
        unsafe {
            let (half, third, sixth) = (V::splat(0.5), V::splat(1.0 / 3.0), V::splat(1.0 / 6.0));
            let first = sixth.mul_add(s[3].sub(s[2]), half.mul(s[0].sub(s[1])));
            let last = sixth.mul_add(s[2], third.mul(s[3])).add(s[4]);
            [first, s[5], last.sub(half.mul(s[1]))]
        }
    }
}
