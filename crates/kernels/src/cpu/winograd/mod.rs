//! 3×3 convolutions with fewer multiplications: Winograd's F(4×4, 3×3), and what is like it at stride 2.
//!
//! A tile of 4×4 destinations sees 6×6 sources. Both are transformed by small matrices, after which the convolution
//! is 36 products of `[batch, input]` by `[input, output]` a tile instead of 144 (Lavin & Gray 2016, arXiv
//! 1509.09308): `Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`. In location-major panels the transforms are sums of whole panels,
//! lane by lane; norm and activation follow while the tile is in cache. The weight gradient is the adjoint,
//! `∂g = Gᵀ [Σ (Bᵀ d B) ⊙ (A δ Aᵀ)] G`. Rounding is a few times that of a plain sum, see `docs/performance.md`.
//!
//! At stride 2 rows and columns are of two kinds, and a tile is computed in the four parts that they make ([`stride_2`]):
//! 81 products through 36 matrices.

mod gather;
mod gradient;
mod stride_2;
pub(super) mod strips;
mod transform;
mod weights;

use crate::cpu::pack::Direction;
use crate::{ConvGrid, Layer};

use transform::Panels;

pub(super) use gather::{Gather, gather};
pub(super) use gradient::gradient;
pub(super) use weights::pack;

/// Matrices of transformed weights along a side of their square.
const SIDE: usize = 6;

/// Matrices of transformed weights.
const MATRICES: usize = SIDE * SIDE;

/// Rows and columns of a tile at the layer's destinations.
const TILE: usize = 4;

/// Channels, on both sides, from which on the transforms cost less than the products that they save.
pub(super) const FEWEST_CHANNELS: usize = 32;

/// A distance of at least `len` values between arrays that are walked side by side: an odd number of cache lines, so that
/// they do not fall on the same places of a cache.
fn apart(len: usize) -> usize {
    (len.div_ceil(16) | 1) * 16
}

/// The tiles of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiles {
    grid: ConvGrid,
}

impl Tiles {
    /// The tiles of a layer that gains by them; the layer's shape alone decides.
    pub(super) fn of(layer: &Layer) -> Option<Self> {
        let grid = layer.wiring.conv_grid().filter(|grid| grid.stride <= 2)?;
        let tiles = Self { grid };
        let (products, links) = (
            tiles.count() * tiles.products(),
            layer.wiring.forward().len(),
        );
        // Tiles at the border may lie outside in part: only where they save half the products, or a third.
        let saves = match grid.stride {
            1 => 2 * products <= links,
            _ => 3 * products <= 2 * links,
        };
        let wide = layer.inputs.min(layer.outputs) >= FEWEST_CHANNELS;
        (wide && saves).then_some(tiles)
    }

    /// How many lie side by side.
    fn across(self) -> usize {
        self.grid.destinations[1].div_ceil(TILE)
    }

    /// How many there are.
    fn count(self) -> usize {
        self.grid.destinations[0].div_ceil(TILE) * self.across()
    }

    /// Products of one.
    fn products(self) -> usize {
        match self.grid.stride {
            1 => MATRICES,
            _ => stride_2::PRODUCTS,
        }
    }

    /// Points of one, or of the greatest of its parts.
    fn points(self) -> usize {
        match self.grid.stride {
            1 => MATRICES,
            _ => stride_2::MOST_POINTS,
        }
    }

    /// Where the panels lie that one direction's gather reads, from a tile's row and column `first` on.
    fn sources(self, direction: Direction, first: [usize; 2]) -> Places {
        match direction {
            Direction::Forward => self.at_sources(first),
            // A tile's first source is fed by the destination before the tile's, too.
            Direction::Backward => self.at_destinations([1, 1], first),
        }
    }

    /// Where those lie that it writes.
    fn destinations(self, direction: Direction, first: [usize; 2]) -> Places {
        match direction {
            Direction::Backward if self.grid.stride == 2 => self.at_sources(first),
            // Forward, all parts of a tile have the same destinations; at stride 1 both grids are one.
            _ => self.at_destinations([0, 0], [0, 0]),
        }
    }

    /// The layer's sources.
    fn at_sources(self, first: [usize; 2]) -> Places {
        Places {
            grid: self.grid.sources,
            across: self.across(),
            step: TILE * self.grid.stride,
            before: self.grid.before,
            first,
            apart: self.grid.stride,
        }
    }

    /// The layer's destinations, from so many rows and columns before a tile on.
    fn at_destinations(self, before: [usize; 2], first: [usize; 2]) -> Places {
        Places {
            grid: self.grid.destinations,
            across: self.across(),
            step: TILE,
            before,
            first,
            apart: 1,
        }
    }
}

/// A rectangle of locations on a grid for each tile.
#[derive(Clone, Copy)]
struct Places {
    /// Height and width.
    grid: [usize; 2],
    /// Tiles side by side.
    across: usize,
    /// Rows or columns from one tile to the next.
    step: usize,
    /// Rows and columns of the first tile that lie before the grid.
    before: [usize; 2],
    /// Row and column of a tile at which its rectangle begins.
    first: [usize; 2],
    /// Rows or columns from one of the rectangle to the next.
    apart: usize,
}

impl Places {
    /// The location at a row and a column of a tile's rectangle; none outside the grid.
    #[inline(always)]
    fn location(self, tile: usize, row: usize, column: usize) -> Option<usize> {
        let at = |tile: usize, i: usize, side: usize| {
            let place = tile * self.step + self.first[side] + i * self.apart;
            let place = place.checked_sub(self.before[side])?;
            (place < self.grid[side]).then_some(place)
        };
        let row = at(tile / self.across, row, 0)?;
        let column = at(tile % self.across, column, 1)?;
        Some(row * self.grid[1] + column)
    }

    /// A tile's rectangle in an array of panels of `len` values; null outside the grid.
    #[inline(always)]
    fn panels<E, const ROWS: usize, const COLUMNS: usize>(
        self,
        tile: usize,
        panels: *const E,
        len: usize,
    ) -> Panels<E, ROWS, COLUMNS> {
        std::array::from_fn(|row| {
            std::array::from_fn(|column| {
                let at = self.location(tile, row, column);
                at.map_or(std::ptr::null(), |at| panels.wrapping_add(at * len))
            })
        })
    }
}
