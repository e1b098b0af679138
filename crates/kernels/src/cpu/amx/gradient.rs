//! Weight gradients: samples in pairs, and sums that stay in tiles over all locations of a chunk.

use super::unit::{Operand, Unit};
use super::{TILE, WORDS, equal_parts, words};
use crate::cpu::buffer::CpuBuffer;
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::Lanes;
use crate::cpu::outer_product::add_rows;
use crate::cpu::pointer::Pointer;
use crate::cpu::scratch::Workers;
use crate::cpu::threads::Threads;
use crate::cpu::weight_gradient::{Cut, Operands, Task, add_partials};

/// Rows and columns of a square of sums.
const SQUARE: usize = 2 * WORDS;

/// As [`weight_gradient`](crate::cpu::weight_gradient::weight_gradient); `rounded` and `partials` are scratch.
pub(in crate::cpu) fn gradient(
    workers: &mut Workers<'_>,
    operands: &Operands<'_>,
    rounded: &mut [CpuBuffer; 2],
    partials: &mut CpuBuffer,
    weights: &mut [f32],
    biases: &mut [f32],
) {
    let (layer, batch) = (operands.layer, operands.batch);
    let (threads, set) = (workers.threads, workers.set);
    let [sources, signals] = rounded;
    let samples = Samples::of(batch);
    round(
        threads,
        samples,
        Form::Sources,
        layer.inputs,
        operands.input,
        sources,
    );
    round(
        threads,
        samples,
        Form::Signals,
        layer.outputs,
        operands.delta,
        signals,
    );
    let (sources, signals) = (&sources[..], &signals[..]);
    let cut = Cut::of(layer);
    partials.reserve(cut.len());
    let shared = Pointer::new(partials);
    let cost = layer.multiply_adds(batch) / cut.tasks() / WORDS;
    let work = |square: &mut [f32], number: usize| {
        let kernel = TaskKernel {
            operands,
            samples,
            sources,
            signals,
            // SAFETY: every task is one thread's, which alone touches the task's rows of its chunk's partial sums.
            task: unsafe { cut.task(layer, shared, number) },
            square,
        };
        // SAFETY: `set` was found available when the backend was made.
        unsafe { set.run(kernel) };
    };
    // SAFETY: a kernel waits for nobody.
    unsafe { workers.for_each(cut.tasks(), cost, SQUARE * SQUARE, work) };
    add_partials(threads, layer, cut, partials, weights, biases);
}

/// How a minibatch is cut: pairs of samples in steps. Pairs behind the batch are zeros.
#[derive(Clone, Copy)]
struct Samples {
    batch: usize,
    steps: usize,
    /// Pairs of a step.
    pairs: usize,
}

impl Samples {
    fn of(batch: usize) -> Self {
        let (steps, pairs) = equal_parts(batch.div_ceil(2), WORDS);
        Self {
            batch,
            steps,
            pairs,
        }
    }

    /// Words of one channel tile of a panel.
    fn tile_words(self, form: Form) -> usize {
        self.steps * self.step_words(form)
    }

    /// Words of one step of it.
    fn step_words(self, form: Form) -> usize {
        match form {
            Form::Sources => TILE,
            Form::Signals => self.pairs * WORDS,
        }
    }

    /// Words of a panel.
    fn panel_words(self, form: Form, channels: usize) -> usize {
        channels.div_ceil(WORDS) * self.tile_words(form)
    }
}

/// What panels become: source panels are the rows of sums, deltas their columns.
#[derive(Clone, Copy)]
enum Form {
    /// `[channel tile, step, channel, pair]`
    Sources,
    /// `[channel tile, step, pair, channel]`
    Signals,
}

/// Rounds all panels to tiles.
fn round(
    threads: &Threads,
    samples: Samples,
    form: Form,
    channels: usize,
    panels: &[f32],
    out: &mut CpuBuffer,
) {
    let panel_len = samples.batch * channels;
    let locations = panels.len() / panel_len;
    let len = samples.panel_words(form, channels);
    out.reserve(locations * len);
    let to = Pointer::new(out);
    threads.for_each(locations, panel_len, |location| {
        let panel = &panels[location * panel_len..][..panel_len];
        // SAFETY: every location has words of its own, inside the reserved length; AVX-512 was found with the tiles.
        unsafe {
            round_panel(
                samples,
                form,
                channels,
                panel,
                to.slice(location * len, len),
            )
        };
    });
}

/// Rounds one panel.
///
/// # Safety
/// AVX-512 with bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn round_panel(
    samples: Samples,
    form: Form,
    channels: usize,
    panel: &[f32],
    to: &mut [f32],
) {
    for (i, words) in to.chunks_exact_mut(samples.step_words(form)).enumerate() {
        let (channel, step) = (i / samples.steps * WORDS, i % samples.steps);
        let pair = |pair: usize| {
            let sample = 2 * (step * samples.pairs + pair);
            let row = |row: usize| {
                (pair < samples.pairs && row < samples.batch)
                    .then(|| panel[row * channels + channel..].as_ptr())
            };
            // SAFETY: rows are the panel's, and so many of their values are left from this channel on.
            unsafe { words::columns([row(sample), row(sample + 1)], channels - channel) }
        };
        // SAFETY: every row that is written is a whole one of `words`.
        unsafe {
            match form {
                Form::Sources => {
                    let columns = words::transposed(std::array::from_fn(pair));
                    for (column, to) in columns.into_iter().zip(words.chunks_exact_mut(WORDS)) {
                        words::store(column, to.as_mut_ptr());
                    }
                }
                Form::Signals => {
                    for (i, to) in words.chunks_exact_mut(WORDS).enumerate() {
                        words::store(pair(i), to.as_mut_ptr());
                    }
                }
            }
        }
    }
}

struct TaskKernel<'a> {
    operands: &'a Operands<'a>,
    samples: Samples,
    sources: &'a [f32],
    signals: &'a [f32],
    task: Task<'a>,
    /// Sums on their way to a matrix that ends within their tiles.
    square: &'a mut [f32],
}

impl Kernel for TaskKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(mut self) {
        let &Operands {
            layer,
            batch,
            delta,
            ..
        } = self.operands;
        if let Some(bias) = self.task.bias.take() {
            let size = batch * layer.outputs;
            let task = &self.task.destinations;
            for panel in delta[task.start * size..task.end * size].chunks_exact(size) {
                // SAFETY: the instruction set is the caller's promise.
                unsafe { add_rows::<V>(panel, bias) };
            }
        }
        // SAFETY: the machine has the tiles.
        let unit = unsafe { Unit::new(WORDS, self.samples.pairs) };
        // Taps vary fastest: they share deltas and most source panels.
        for input in self.task.inputs.clone().step_by(SQUARE) {
            for output in (0..layer.outputs).step_by(SQUARE) {
                let high = self.task.inputs.end - input > WORDS;
                let wide = layer.outputs - output > WORDS;
                for tap in 0..layer.wiring.taps() {
                    let place = (tap, input, output);
                    // SAFETY: operands lie inside the arrays that `gradient` measured; these rows of the partial sums
                    // are this task's.
                    unsafe {
                        match (high, wide) {
                            (true, true) => self.sum::<2, 2>(&unit, place),
                            (true, false) => self.sum::<2, 1>(&unit, place),
                            (false, true) => self.sum::<1, 2>(&unit, place),
                            (false, false) => self.sum::<1, 1>(&unit, place),
                        }
                    }
                }
            }
        }
    }
}

impl TaskKernel<'_> {
    /// One or two tiles of inputs by outputs of one tap, over all destinations of the task.
    ///
    /// # Safety
    /// Operands and partial sums of the cut's lengths, whose rows at `input` are this task's.
    unsafe fn sum<const ROWS: usize, const COLUMNS: usize>(
        &mut self,
        unit: &Unit,
        (tap, input, output): (usize, usize, usize),
    ) {
        let (layer, samples) = (self.operands.layer, self.samples);
        let operand = |panels: &[f32], form, location, channels, channel: usize| Operand {
            first: panels[location * samples.panel_words(form, channels)
                + channel / WORDS * samples.tile_words(form)..]
                .as_ptr(),
            second: samples.tile_words(form),
            step: samples.step_words(form),
        };
        unit.clear();
        for destination in self.task.destinations.clone() {
            let links = layer.wiring.forward().of(destination);
            for link in links.iter().filter(|link| link.tap as usize == tap) {
                let source = link.location as usize;
                let source = operand(self.sources, Form::Sources, source, layer.inputs, input);
                let signal = operand(
                    self.signals,
                    Form::Signals,
                    destination,
                    layer.outputs,
                    output,
                );
                // SAFETY: handed on from the caller.
                unsafe { unit.add_products::<ROWS, COLUMNS>(source, signal, samples.steps) };
            }
        }
        let rows = (self.task.inputs.end - input).min(ROWS * WORDS);
        let columns = (layer.outputs - output).min(COLUMNS * WORDS);
        let at = (tap * layer.inputs + input) * layer.outputs + output;
        // SAFETY: handed on from the caller; the square holds all tiles.
        unsafe {
            if rows == ROWS * WORDS && columns == COLUMNS * WORDS {
                unit.store::<ROWS, COLUMNS>(self.task.partial.at(at), layer.outputs);
                return;
            }
            unit.store::<ROWS, COLUMNS>(self.square.as_mut_ptr(), SQUARE);
            for (row, sums) in self.square.chunks_exact(SQUARE).take(rows).enumerate() {
                let to = self.task.partial.slice(at + row * layer.outputs, columns);
                to.copy_from_slice(&sums[..columns]);
            }
        }
    }
}
