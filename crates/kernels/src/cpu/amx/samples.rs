//! Panels as tiles of a gradient's operands: samples in pairs.

use super::words::{self, Operand, Rows};
use super::{TILE, WORDS, equal_parts};

/// How a minibatch is cut: pairs of samples in steps. Pairs behind the batch are zeros.
#[derive(Clone, Copy)]
pub(super) struct Samples<const PARTS: usize> {
    batch: usize,
    pub steps: usize,
    /// Pairs of a step.
    pub pairs: usize,
}

impl<const PARTS: usize> Samples<PARTS> {
    pub(super) fn of(batch: usize) -> Self {
        let (steps, pairs) = equal_parts(batch.div_ceil(2), WORDS);
        Self {
            batch,
            steps,
            pairs,
        }
    }

    /// Words of one channel tile of a panel.
    pub(super) fn tile_words(self, form: Form) -> usize {
        self.steps * self.step_words(form)
    }

    /// Words of one step of it.
    pub(super) fn step_words(self, form: Form) -> usize {
        PARTS * self.part_words(form)
    }

    /// Words of one part of it.
    pub(super) fn part_words(self, form: Form) -> usize {
        match form {
            Form::Sources => TILE,
            Form::Signals => self.pairs * WORDS,
        }
    }

    /// Words of a panel.
    pub(super) fn panel_words(self, form: Form, channels: usize) -> usize {
        channels.div_ceil(WORDS) * self.tile_words(form)
    }
}

/// What panels become: source panels are the rows of sums, deltas their columns.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// `[channel tile, step, part, channel, pair]`
    Sources,
    /// `[channel tile, step, part, pair, channel]`
    Signals,
}

/// Rounds a panel of so many channels, from channel `first` on.
///
/// # Safety
/// AVX-512 with bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn round_panel<const PARTS: usize, E: Operand>(
    samples: Samples<PARTS>,
    form: Form,
    (channels, first): (usize, usize),
    panel: &[E],
    to: &mut [f32],
) {
    let tiles = to.len() / samples.tile_words(form);
    // Steps vary slowest, so that the panel is read from its first row to its last.
    for step in 0..samples.steps {
        let sample = 2 * step * samples.pairs;
        for tile in 0..tiles {
            let channel = first + tile * WORDS;
            let rows = Rows {
                first: panel.as_ptr().wrapping_add(sample * channels + channel),
                stride: channels,
                count: samples.batch.saturating_sub(sample),
                columns: channels - channel,
                // The panel that lies behind this one is usually the next.
                next: panel.len(),
            };
            let at = tile * samples.tile_words(form) + step * samples.step_words(form);
            let to = to[at..][..samples.step_words(form)].as_mut_ptr();
            let part = samples.part_words(form);
            // SAFETY: the machine has AVX-512; rows and columns are the panel's, and a step has room for its parts.
            unsafe {
                match form {
                    Form::Sources => {
                        words::round_pairs::<PARTS, true, E>(rows, samples.pairs, to, part);
                    }
                    Form::Signals => {
                        words::round_pairs::<PARTS, false, E>(rows, samples.pairs, to, part);
                    }
                }
            }
        }
    }
}
