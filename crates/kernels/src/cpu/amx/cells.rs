//! How a grid is walked, and which source panels are at hand meanwhile, rounded.
//!
//! A cell is a strip of a few columns between two rows. Its destinations are visited row by row; a source panel is rounded
//! when the first of them needs it, and stays in the second-level cache until the last has read it.

use crate::Links;
use std::ops::Range;

/// A grid cut into cells.
#[derive(Clone, Copy)]
pub(super) struct Cells {
    /// Locations in a row.
    across: usize,
    rows: usize,
    /// Columns of a cell.
    strip: usize,
    /// Rows of a cell.
    band: usize,
}

/// Some columns of some rows of a grid.
#[derive(Clone)]
pub(super) struct Cell {
    across: usize,
    pub rows: Range<usize>,
    pub columns: Range<usize>,
}

impl Cells {
    /// `locations`, `across` in a row, in cells of at most `strip` columns and `band` rows.
    pub(super) fn new(locations: usize, across: usize, strip: usize, band: usize) -> Self {
        let rows = locations / across;
        let even = |total: usize, most: usize| total.div_ceil(total.div_ceil(most));
        Self {
            across,
            rows,
            strip: even(across, strip.max(1)),
            band: even(rows, band.max(1)),
        }
    }

    /// Columns of a cell at most.
    pub(super) fn strip(self) -> usize {
        self.strip
    }

    fn bands(self) -> usize {
        self.rows.div_ceil(self.band)
    }

    /// Number of cells.
    pub(super) fn count(self) -> usize {
        self.across.div_ceil(self.strip) * self.bands()
    }

    /// A cell by its number: those of a strip follow each other.
    pub(super) fn cell(self, number: usize) -> Cell {
        let (strip, band) = (number / self.bands(), number % self.bands());
        let part = |i: usize, len: usize, end: usize| i * len..((i + 1) * len).min(end);
        Cell {
            across: self.across,
            rows: part(band, self.band, self.rows),
            columns: part(strip, self.strip, self.across),
        }
    }
}

impl Cell {
    /// The locations of a row.
    pub(super) fn locations(&self, row: usize) -> Range<usize> {
        row * self.across + self.columns.start..row * self.across + self.columns.end
    }
}

/// Room for rounded source panels.
#[derive(Clone, Copy)]
pub(super) struct Room {
    /// Sources in a row of their grid.
    across: usize,
    rows: usize,
    columns: usize,
}

impl Room {
    /// What the cells of `destinations` need of `sources`, both as locations and how many of them lie in a row.
    pub(super) fn new(
        links: &Links,
        (sources, across): (usize, usize),
        (destinations, destinations_across): (usize, usize),
        strip: usize,
    ) -> Self {
        if sources == across && destinations == destinations_across {
            // No grid: what a strip needs is seen from its links.
            let span = |first: usize| {
                let strip = first..(first + strip).min(destinations);
                span(links, strip, across).map_or(0, |(_, columns)| columns.len())
            };
            let columns = (0..destinations).step_by(strip).map(span).max();
            return Self {
                across,
                rows: 1,
                columns: columns.unwrap_or(0),
            };
        }
        // Taps reach one location to either side, however far apart neighbours' sources are.
        let stride = across.div_ceil(destinations_across);
        Self {
            across,
            rows: 3,
            columns: across.min(stride * strip + 2),
        }
    }

    /// Panels that it holds.
    pub(super) fn slots(self) -> usize {
        self.rows * self.columns
    }
}

/// Rows and columns of all sources of some destinations; none if they have none.
fn span(
    links: &Links,
    destinations: Range<usize>,
    across: usize,
) -> Option<(Range<usize>, Range<usize>)> {
    let sources = || {
        let links = destinations.clone().flat_map(|at| links.of(at));
        links.map(|link| link.location as usize)
    };
    let range = |of: fn(usize, usize) -> usize| {
        let least = sources().map(|at| of(at, across)).min()?;
        let most = sources().map(|at| of(at, across)).max()?;
        Some(least..most + 1)
    };
    Some((
        range(|at, across| at / across)?,
        range(|at, across| at % across)?,
    ))
}

/// The source panels that are at hand while a cell is walked.
pub(super) struct Ring {
    room: Room,
    /// First column that is at hand.
    first: usize,
    /// First row that is not.
    next: usize,
}

impl Ring {
    /// None so far.
    pub(super) fn new(room: Room) -> Self {
        Self {
            room,
            first: usize::MAX,
            next: 0,
        }
    }

    /// Where a source that is at hand lies.
    #[inline(always)]
    pub(super) fn slot(&self, source: usize) -> usize {
        let Room {
            across,
            rows,
            columns,
        } = self.room;
        source / across % rows * columns + source % across - self.first
    }

    /// Brings the sources of some destinations to hand, by `round(source, slot)`. Destinations come row by row.
    pub(super) fn bring(
        &mut self,
        links: &Links,
        destinations: Range<usize>,
        mut round: impl FnMut(usize, usize),
    ) {
        let across = self.room.across;
        let Some((rows, columns)) = span(links, destinations, across) else {
            return;
        };
        if columns.start < self.first || columns.end > self.first + self.room.columns {
            (self.first, self.next) = (columns.start, 0);
        }
        let last = across.min(self.first + self.room.columns);
        for row in self.next.max(rows.start)..rows.end {
            for column in self.first..last {
                let source = row * across + column;
                round(source, self.slot(source));
            }
        }
        self.next = self.next.max(rows.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Wiring;

    /// Oracle: each location comes once.
    #[test]
    fn every_location_is_in_one_cell() {
        for (rows, across, strip, band) in [(1, 1, 8, 8), (3, 7, 3, 2), (4, 8, 8, 1), (5, 17, 8, 8)]
        {
            let cells = Cells::new(rows * across, across, strip, band);
            let cells = (0..cells.count()).map(|i| cells.cell(i));
            let locations = cells.flat_map(|cell| {
                let rows = cell.rows.clone();
                rows.flat_map(move |row| cell.locations(row))
            });
            let mut locations: Vec<usize> = locations.collect();
            locations.sort_unstable();
            assert!(locations.into_iter().eq(0..rows * across));
        }
    }

    /// Oracle: an array of what was rounded last in each slot.
    #[test]
    fn every_source_is_at_hand_when_it_is_needed() {
        let wirings = [
            Wiring::conv3x3(9, 11, 1),
            Wiring::conv3x3(9, 11, 2),
            Wiring::conv3x3(8, 16, 2),
            Wiring::conv3x3(13, 9, 4),
            Wiring::conv3x3(1, 9, 1),
            Wiring::sequence(20, 23, 2),
            Wiring::broadcast(7),
            Wiring::all_pairs(5),
        ];
        for wiring in wirings {
            let [sources_across, destinations_across] = wiring.across();
            let sources = (wiring.sources(), sources_across);
            let destinations = (wiring.destinations(), destinations_across);
            for (links, sources, destinations) in [
                (wiring.forward(), sources, destinations),
                (wiring.backward(), destinations, sources),
            ] {
                let cells = Cells::new(destinations.0, destinations.1, 4, 3);
                let room = Room::new(links, sources, destinations, cells.strip());
                for cell in (0..cells.count()).map(|i| cells.cell(i)) {
                    let mut held = vec![None; room.slots()];
                    let mut ring = Ring::new(room);
                    for row in cell.rows.clone() {
                        let place = cell.locations(row);
                        ring.bring(links, place.clone(), |source, slot| {
                            assert!(source < sources.0);
                            held[slot] = Some(source);
                        });
                        for link in place.flat_map(|at| links.of(at)) {
                            let source = link.location as usize;
                            assert_eq!(held[ring.slot(source)], Some(source), "{wiring:?}");
                        }
                    }
                }
            }
        }
    }
}
