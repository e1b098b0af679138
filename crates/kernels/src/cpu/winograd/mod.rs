//! 3×3 convolutions of stride 1 with a quarter of the multiplications: Winograd's F(4×4, 3×3).
//!
//! A tile of 4×4 destinations sees 6×6 sources. Both are transformed by small matrices, after which the convolution
//! is 36 products of `[batch, input]` by `[input, output]` a tile instead of 144 (Lavin & Gray 2016, arXiv
//! 1509.09308): `Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`. In location-major panels the transforms are sums of whole panels,
//! lane by lane; norm and activation follow while the tile is in cache. The weight gradient is the adjoint,
//! `∂g = Gᵀ [Σ (Bᵀ d B) ⊙ (A δ Aᵀ)] G`. Rounding is a few times that of a plain sum, see `docs/performance.md`.

mod gather;
mod gradient;
pub(super) mod strips;
mod transform;
mod weights;

use crate::{Layer, Link};

use transform::Panels;

pub(super) use gather::gather;
pub(super) use gradient::gradient;
pub(super) use weights::pack;

/// Products of a tile: one for each of the 6×6 transformed places.
const POINTS: usize = 36;

/// Rows and columns of a tile's destinations.
const TILE: usize = 4;

/// Channels, on both sides, from which on the transforms cost less than the products that they save.
const FEWEST_CHANNELS: usize = 32;

/// Place p of the transformed panels through matrix p.
const LINKS: [Link; POINTS] = {
    let mut links = [Link {
        tap: 0,
        location: 0,
    }; POINTS];
    let mut point = 0;
    while point < POINTS {
        links[point] = Link {
            tap: point as u32,
            location: point as u32,
        };
        point += 1;
    }
    links
};

/// A distance of at least `len` values between arrays that are walked side by side: an odd number of cache lines, so that
/// they do not fall on the same places of a cache.
fn apart(len: usize) -> usize {
    (len.div_ceil(16) | 1) * 16
}

/// The tiles of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiles {
    height: usize,
    width: usize,
}

impl Tiles {
    /// The tiles of a layer that gains by them; the layer's shape alone decides.
    pub(super) fn of(layer: &Layer) -> Option<Self> {
        let (height, width) = layer.wiring.same_grid()?;
        let tiles = Self { height, width };
        let wide = layer.inputs.min(layer.outputs) >= FEWEST_CHANNELS;
        // Tiles at the border may lie outside in part: only where they save half the products.
        let saves = 2 * POINTS * tiles.count() <= layer.wiring.forward().len();
        (wide && saves).then_some(tiles)
    }

    /// How many there are.
    fn count(self) -> usize {
        self.height.div_ceil(TILE) * self.width.div_ceil(TILE)
    }

    /// The location `rows` below and `columns` right of a tile's first destination; none outside the grid.
    #[inline(always)]
    fn location(self, tile: usize, rows: isize, columns: isize) -> Option<usize> {
        let across = self.width.div_ceil(TILE);
        let row = (tile / across * TILE).checked_add_signed(rows)?;
        let column = (tile % across * TILE).checked_add_signed(columns)?;
        (row < self.height && column < self.width).then_some(row * self.width + column)
    }

    /// The location of destination `i` of a tile, row by row; none outside the tile or the grid.
    #[inline(always)]
    fn destination(self, tile: usize, i: usize) -> Option<usize> {
        let (row, column) = (i / TILE, i % TILE);
        let location = || self.location(tile, row as isize, column as isize);
        (row < TILE).then(location).flatten()
    }

    /// A tile's 6×6 sources in an array of panels of `len` values.
    #[inline(always)]
    fn sources(self, tile: usize, panels: *const f32, len: usize) -> Panels<6> {
        self.square(tile, -1, panels, len)
    }

    /// Its 4×4 destinations.
    #[inline(always)]
    fn destinations(self, tile: usize, panels: *const f32, len: usize) -> Panels<TILE> {
        self.square(tile, 0, panels, len)
    }

    /// A square of panels that begins so far below and right of a tile's first destination; null outside the grid.
    #[inline(always)]
    fn square<const N: usize>(
        self,
        tile: usize,
        first: isize,
        panels: *const f32,
        len: usize,
    ) -> Panels<N> {
        std::array::from_fn(|i| {
            std::array::from_fn(|j| {
                let at = self.location(tile, first + i as isize, first + j as isize);
                at.map_or(std::ptr::null(), |at| panels.wrapping_add(at * len))
            })
        })
    }
}
