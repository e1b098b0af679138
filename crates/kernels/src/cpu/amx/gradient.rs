//! Weight gradients: samples in pairs, and sums that stay in tiles over a group of locations.

use super::cells::{Cells, Ring, Room};
use super::samples::{Form, Samples, round_panel};
use super::unit::{self, Unit};
use super::words::Operand;
use super::{SQUARE, WORDS};
use crate::cpu::buffer::CpuBuffer;
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::Lanes;
use crate::cpu::outer_product::add_rows;
use crate::cpu::pointer::Pointer;
use crate::cpu::scratch::Workers;
use crate::cpu::values::Values;
use crate::cpu::weight_gradient::{Cut, INPUTS_PER_TASK, Operands, Task, add_partials};
use std::ops::Range;

/// Columns of a cell, if its operands and sums stay in the second-level cache.
const STRIP: usize = 8;

/// Rows of a cell. It depends on the shape alone, as do all sums.
const BAND: usize = 8;

/// Words of operands and sums that should stay in the second-level cache.
const CACHED_WORDS: usize = 3 << 17;

/// As [`weight_gradient`](crate::cpu::weight_gradient::weight_gradient); `partials` is scratch. Operands have `PARTS` parts.
pub(in crate::cpu) fn gradient<const PARTS: usize>(
    workers: &mut Workers<'_>,
    operands: &Operands<'_, Values<'_>>,
    partials: &mut CpuBuffer,
    weights: &mut [f32],
    biases: &mut [f32],
) {
    let (layer, batch) = (operands.layer, operands.batch);
    let (threads, set) = (workers.threads, workers.set);
    let samples = Samples::<PARTS>::of(batch);
    let [sources_across, across] = layer.wiring.across();
    let links = layer.wiring.forward();
    let sources = (layer.sources(), sources_across);
    let destinations = (layer.locations(), across);
    let room = |strip: usize| Room::new(links, sources, destinations, strip);
    let inputs = layer.inputs.min(INPUTS_PER_TASK);
    let source_words = samples.panel_words(Form::Sources, inputs);
    let signal_words = samples.panel_words(Form::Signals, layer.outputs);
    let words = |strip: usize| (room(strip).slots() * source_words, strip * signal_words);
    let fits = |strip: usize| {
        let (sources, signals) = words(strip);
        sources + signals + layer.wiring.taps() * inputs * layer.outputs <= CACHED_WORDS
    };
    let strip = if fits(STRIP) { STRIP } else { STRIP / 2 };
    let band = if across > STRIP { BAND } else { BAND / 2 };
    let cells = Cells::new(layer.locations(), across, strip, band);
    let room = room(cells.strip());
    let (source_words, signal_words) = words(cells.strip());
    let cut = Cut::of(layer, cells.count());
    partials.reserve(cut.len());
    let shared = Pointer::new(partials);
    let cost = layer.multiply_adds(batch) / cut.tasks() / WORDS;
    let work = |scratch: &mut [f32], number: usize| {
        let (sources, rest) = scratch.split_at_mut(source_words);
        let (signals, square) = rest.split_at_mut(signal_words);
        let kernel = TaskKernel::<PARTS> {
            operands,
            samples,
            cells,
            room,
            // SAFETY: every task is one thread's, which alone touches the task's rows of its chunk's partial sums.
            task: unsafe { cut.task(layer, shared, number) },
            sources,
            signals,
            square,
        };
        // SAFETY: `set` was found available when the backend was made.
        unsafe { set.run_beside_tiles(kernel) };
    };
    let len = source_words + signal_words + SQUARE * SQUARE;
    workers.for_each(cut.tasks(), cost, len, work);
    add_partials(threads, layer, cut, partials, weights, biases);
}

struct TaskKernel<'a, const PARTS: usize> {
    operands: &'a Operands<'a, Values<'a>>,
    samples: Samples<PARTS>,
    cells: Cells,
    room: Room,
    task: Task<'a>,
    /// The task's inputs of rounded source panels.
    sources: &'a mut [f32],
    /// Rounded deltas of a cell's row.
    signals: &'a mut [f32],
    /// Sums on their way to a matrix that ends within their tiles.
    square: &'a mut [f32],
}

impl<const PARTS: usize> Kernel for TaskKernel<'_, PARTS> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(mut self) {
        // SAFETY: the machine has the tiles.
        let mut unit = unsafe { Unit::new(WORDS, self.samples.pairs) };
        let mut first = true;
        for cell in self.task.items.clone() {
            let cell = self.cells.cell(cell);
            let mut ring = Ring::new(self.room);
            for row in cell.rows.clone() {
                let destinations = cell.locations(row);
                // SAFETY: the instruction set is the caller's promise.
                unsafe { self.round::<V>(&mut ring, destinations.clone()) };
                let row = Row {
                    ring: &ring,
                    destinations,
                    first,
                };
                // SAFETY: the row's operands were rounded.
                unsafe { self.add(&mut unit, &row) };
                first = false;
            }
        }
    }
}

/// A row of a cell.
struct Row<'a> {
    ring: &'a Ring,
    destinations: Range<usize>,
    /// Whether the task has no sums yet.
    first: bool,
}

impl<const PARTS: usize> TaskKernel<'_, PARTS> {
    /// Words of a source panel, of the task's inputs.
    fn source_words(&self) -> usize {
        let inputs = self.task.inputs.len();
        self.samples.panel_words(Form::Sources, inputs)
    }

    /// Words of a panel of deltas.
    fn signal_words(&self) -> usize {
        let outputs = self.operands.layer.outputs;
        self.samples.panel_words(Form::Signals, outputs)
    }

    /// Rounds the operands of some destinations, and adds their deltas to the biases' sums.
    ///
    /// # Safety
    /// The instruction set of `V`.
    #[inline(always)]
    unsafe fn round<V: Lanes>(&mut self, ring: &mut Ring, destinations: Range<usize>) {
        let &Operands {
            layer,
            batch,
            input,
            delta,
        } = self.operands;
        let (samples, words) = (self.samples, self.source_words());
        let channels = (layer.inputs, self.task.inputs.start);
        let sources = &mut *self.sources;
        ring.bring(
            layer.wiring.forward(),
            destinations.clone(),
            |source, slot| {
                let size = batch * layer.inputs;
                let panel = source * size..(source + 1) * size;
                let to = &mut sources[slot * words..][..words];
                let form = Form::Sources;
                // SAFETY: AVX-512 was found with the tiles.
                unsafe {
                    match input {
                        Values::F32(all) => round_panel(samples, form, channels, &all[panel], to),
                        Values::Bf16(all) => round_panel(samples, form, channels, &all[panel], to),
                    }
                }
            },
        );
        let (words, size) = (self.signal_words(), batch * layer.outputs);
        for (place, destination) in destinations.enumerate() {
            let panel = destination * size..(destination + 1) * size;
            // SAFETY: handed on from the caller.
            unsafe {
                match delta {
                    Values::F32(all) => self.round_signals::<V, _>(&all[panel], place * words),
                    Values::Bf16(all) => self.round_signals::<V, _>(&all[panel], place * words),
                }
            }
        }
    }

    /// Rounds a panel of deltas, and adds them to the biases' sums.
    ///
    /// # Safety
    /// The instruction set of `V`.
    #[inline(always)]
    unsafe fn round_signals<V: Lanes, E: Operand>(&mut self, panel: &[E], at: usize) {
        let channels = (self.operands.layer.outputs, 0);
        let words = self.signal_words();
        let to = &mut self.signals[at..][..words];
        // SAFETY: AVX-512 was found with the tiles; the rest is handed on from the caller.
        unsafe {
            round_panel(self.samples, Form::Signals, channels, panel, to);
            if let Some(bias) = self.task.bias.as_deref_mut() {
                add_rows::<V, _>(panel, bias);
            }
        }
    }

    /// Adds to all sums the products of a row of the cell.
    ///
    /// # Safety
    /// Rounded operands of the row.
    unsafe fn add(&mut self, unit: &mut Unit, row: &Row<'_>) {
        let (inputs, outputs) = (self.task.inputs.clone(), self.operands.layer.outputs);
        // Taps vary fastest: they share deltas and most source panels.
        for input in inputs.clone().step_by(SQUARE) {
            for output in (0..outputs).step_by(SQUARE) {
                let (high, wide) = (inputs.end - input > WORDS, outputs - output > WORDS);
                for tap in 0..self.operands.layer.wiring.taps() {
                    let place = (tap, input, output);
                    // SAFETY: handed on from the caller.
                    unsafe {
                        match (high, wide) {
                            (true, true) => self.sum::<2, 2>(unit, row, place),
                            (true, false) => self.sum::<2, 1>(unit, row, place),
                            (false, true) => self.sum::<1, 2>(unit, row, place),
                            (false, false) => self.sum::<1, 1>(unit, row, place),
                        }
                    }
                }
            }
        }
    }

    /// Adds to one or two tiles of inputs by outputs of one tap.
    ///
    /// # Safety
    /// As for [`add`](Self::add); the sums' rows at `input` are this task's.
    unsafe fn sum<const ROWS: usize, const COLUMNS: usize>(
        &mut self,
        unit: &mut Unit,
        row: &Row<'_>,
        (tap, input, output): (usize, usize, usize),
    ) {
        let (layer, samples) = (self.operands.layer, self.samples);
        let operand = |panels: &[f32], form, start: usize, channel: usize| unit::Operand {
            first: panels[start + channel / WORDS * samples.tile_words(form)..].as_ptr(),
            second: samples.tile_words(form),
            step: samples.step_words(form),
            part: samples.part_words(form),
        };
        let rows = (self.task.inputs.end - input).min(ROWS * WORDS);
        let columns = (layer.outputs - output).min(COLUMNS * WORDS);
        let whole = rows == ROWS * WORDS && columns == COLUMNS * WORDS;
        let at = (tap * layer.inputs + input) * layer.outputs + output;
        let (sums, stride) = match whole {
            true => (self.task.partial.at(at), layer.outputs),
            false => (self.square.as_mut_ptr(), SQUARE),
        };
        let partial = self.task.partial;
        // SAFETY: handed on from the caller.
        let row_of_sums = |row: usize| unsafe { partial.slice(at + row * layer.outputs, columns) };
        if row.first {
            unit.clear();
        } else {
            if !whole {
                for (row, to) in self.square.chunks_exact_mut(SQUARE).take(rows).enumerate() {
                    to[..columns].copy_from_slice(row_of_sums(row));
                }
            }
            // SAFETY: handed on from the caller; the square holds all tiles.
            unsafe { unit.load::<ROWS, COLUMNS>(sums, stride) };
        }
        let first = self.task.inputs.start;
        for (place, destination) in row.destinations.clone().enumerate() {
            let links = layer.wiring.forward().of(destination);
            for link in links.iter().filter(|link| link.tap as usize == tap) {
                let slot = row.ring.slot(link.location as usize);
                let source = slot * self.source_words();
                let source = operand(self.sources, Form::Sources, source, input - first);
                let signal = place * self.signal_words();
                let signal = operand(self.signals, Form::Signals, signal, output);
                // SAFETY: handed on from the caller.
                unsafe {
                    unit.add_products::<ROWS, COLUMNS, PARTS>(source, signal, samples.steps);
                }
            }
        }
        // SAFETY: handed on from the caller; the square holds all tiles.
        unsafe { unit.store::<ROWS, COLUMNS>(sums, stride) };
        if !whole {
            for (row, sums) in self.square.chunks_exact(SQUARE).take(rows).enumerate() {
                row_of_sums(row).copy_from_slice(&sums[..columns]);
            }
        }
    }
}
