//! Source panels as tiles: the rows' operands of forward pass and feedback.

use super::words::{self, Operand, prefetch};
use super::{PAIRED, WORDS, equal_parts};

/// How a panel is cut into tiles: `[tile, step, part, row, pair]`. Rows behind the batch hold anything; their sums are not
/// read.
#[derive(Clone, Copy)]
pub(super) struct Rows<const PARTS: usize> {
    pub tiles: usize,
    /// Rows of a tile.
    pub height: usize,
    /// Steps of 32 channels.
    pub steps: usize,
}

impl<const PARTS: usize> Rows<PARTS> {
    pub(super) fn of(batch: usize, depth: usize) -> Self {
        let (tiles, height) = equal_parts(batch, WORDS);
        Self {
            tiles,
            height,
            steps: depth.div_ceil(PAIRED),
        }
    }

    /// Words of one part of one step of a tile.
    pub(super) fn part_words(self) -> usize {
        self.height * WORDS
    }

    /// Words of one step of a tile.
    pub(super) fn step_words(self) -> usize {
        PARTS * self.part_words()
    }

    /// Words of a tile.
    pub(super) fn tile_words(self) -> usize {
        self.steps * self.step_words()
    }

    /// Words of a panel.
    pub(super) fn panel_words(self) -> usize {
        self.tiles * self.tile_words()
    }
}

/// Rounds one panel.
///
/// # Safety
/// AVX-512 with bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn round_panel<const PARTS: usize, E: Operand>(
    panel: &[E],
    rows: Rows<PARTS>,
    depth: usize,
    to: &mut [f32],
) {
    for (row, values) in panel.chunks_exact(depth).enumerate() {
        let tile = &mut to[row / rows.height * rows.tile_words()..][..rows.tile_words()];
        for (step, values) in values.chunks(PAIRED).enumerate() {
            let at = step * rows.step_words() + row % rows.height * WORDS;
            // SAFETY: the values are a slice's, the words a row of the tile's.
            unsafe {
                // The panel that lies behind this one is usually the next.
                for line in (0..values.len()).step_by(E::LINE) {
                    prefetch(values[line..].as_ptr().wrapping_add(panel.len()).cast());
                }
                let parts = E::neighbours::<PARTS>(values.as_ptr(), values.len());
                for (part, words) in parts.into_iter().enumerate() {
                    let at = at + part * rows.part_words();
                    words::store(words, tile[at..][..WORDS].as_mut_ptr());
                }
            }
        }
    }
}
