//! What fills column blocks of panels.

use super::lanes::Lanes;
use super::pack::Packing;
use super::tile::{GatherSource, gather_block};
use crate::{Link, Links};
use std::ops::Range;

/// What fills a column block.
#[derive(Clone, Copy)]
pub(super) enum Fill<'a> {
    /// Products of source panels with packed weights.
    Gather {
        links: &'a Links,
        panels: &'a [f32],
        packed: &'a [f32],
        packing: Packing,
    },
    /// The same `[batch, channel]` panel at every location.
    Broadcast { panel: &'a [f32], packing: Packing },
}

impl Fill<'_> {
    pub(super) fn packing(&self) -> Packing {
        match self {
            Self::Gather { packing, .. } | Self::Broadcast { packing, .. } => *packing,
        }
    }
}

/// Fills column blocks of the panel at `location` in `scratch`, `[block, batch, column of the block]`.
///
/// # Safety
/// The instruction set of `V`; arrays behind `fill` of the layer's shape; room in scratch.
#[inline(always)]
pub(super) unsafe fn fill_blocks<V: Lanes>(
    fill: Fill<'_>,
    location: usize,
    blocks: Range<usize>,
    batch: usize,
    scratch: *mut f32,
) {
    // SAFETY: handed on from the caller.
    unsafe {
        match fill {
            Fill::Gather {
                links,
                panels,
                packed,
                packing,
            } => {
                let (links, following) = match location + 1 < links.locations() {
                    true => (links.of(location), links.of(location + 1)),
                    false => (links.of(location), &[][..]),
                };
                let last = following.iter().max_by_key(|link| link.location);
                let seen = |new: &Link| links.iter().any(|link| link.location == new.location);
                let walk = Walk {
                    links,
                    then: last.filter(|link| !seen(link)),
                    panels,
                    packed,
                    packing,
                    blocks,
                    batch,
                };
                walk.run::<V>(scratch);
            }
            Fill::Broadcast { panel, packing } => {
                for (place, block) in blocks.enumerate() {
                    let first = block * packing.block;
                    let used = packing.block.min(packing.columns - first);
                    for row in 0..batch {
                        std::ptr::copy_nonoverlapping(
                            panel.as_ptr().add(row * packing.columns + first),
                            scratch.add((place * batch + row) * packing.block),
                            used,
                        );
                    }
                }
            }
        }
    }
}

/// The links of a location, a few at a time: those whose weights of a block stay near while all rows go by. Wide layers'
/// source panels and weights come from far away, so each is asked for while the one before it is at work.
struct Walk<'a> {
    links: &'a [Link],
    /// The next location's link with the last panel, if these have not seen it.
    then: Option<&'a Link>,
    panels: &'a [f32],
    packed: &'a [f32],
    packing: Packing,
    blocks: Range<usize>,
    batch: usize,
}

impl Walk<'_> {
    /// Fills the blocks.
    ///
    /// # Safety
    /// As for [`fill_blocks`].
    #[inline(always)]
    unsafe fn run<V: Lanes>(&self, scratch: *mut f32) {
        let packing = self.packing;
        let turns = self
            .links
            .len()
            .div_ceil((V::NEAR / packing.tap_len()).max(1))
            .max(1);
        let turn = self.links.len().div_ceil(turns).max(1);
        let size = self.batch * packing.block;
        // A location without links is filled with zeros.
        for from in (0..self.links.len().max(1)).step_by(turn) {
            let links = &self.links[from..(from + turn).min(self.links.len())];
            let after = self.links.get(from + turn);
            for (place, block) in self.blocks.clone().enumerate() {
                let source = GatherSource {
                    links,
                    panels: self.panels.as_ptr(),
                    panel_len: self.batch * packing.depth,
                    batch: self.batch,
                    depth: packing.depth,
                    row: packing.depth,
                    // SAFETY: the block lies inside the packed weights.
                    weights: unsafe { self.packed.as_ptr().add(block * packing.block_len()) },
                    block: packing.block,
                    add: from > 0,
                    next: self.next(links, after, place),
                };
                // SAFETY: handed on from the caller.
                unsafe { gather_block::<V>(source, scratch.add(place * size)) };
            }
        }
    }

    /// What will be read after these links' products with the block at `place`: the next weights, and a part of the
    /// panel of the link `after` these, or of the next location.
    #[inline(always)]
    fn next(&self, links: &[Link], after: Option<&Link>, place: usize) -> [&[f32]; 2] {
        let (packing, count) = (self.packing, self.blocks.len());
        let weights = |place: usize, link: &Link| {
            let block = self.blocks.start + place;
            let at = block * packing.block_len() + link.tap as usize * packing.tap_len();
            &self.packed[at..at + packing.tap_len()]
        };
        let weights = match (place + 1 < count, links, after) {
            (true, [link, ..], _) => weights(place + 1, link),
            (false, _, Some(link)) => weights(0, link),
            _ => &[],
        };
        let len = self.batch * packing.depth;
        let panel = after.or(self.then).map_or(&[][..], |link| {
            let panel = &self.panels[link.location as usize * len..][..len];
            &panel[place * len / count..(place + 1) * len / count]
        });
        [weights, panel]
    }
}
