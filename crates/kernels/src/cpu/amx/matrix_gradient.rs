//! The gradient of one matrix: all samples of all links are the terms of one product, written once.

use super::samples::{Form, Samples, round_panel};
use super::unit::{Operand, Unit};
use super::{SQUARE, WORDS};
use crate::Link;
use crate::cpu::isa::Kernel;
use crate::cpu::lanes::{Lanes, store};
use crate::cpu::outer_product::add_rows;
use crate::cpu::pointer::Pointer;
use crate::cpu::scratch::Workers;
use crate::cpu::weight_gradient::Operands;
use std::ops::Range;

/// Inputs and outputs of an item: a rounded operand serves eight squares of sums.
const BLOCK: usize = 256;

/// Squares beside each other in an item.
const SQUARES: usize = BLOCK / SQUARE;

/// Steps whose operands stay in the second-level cache together.
const STEPS: usize = 16;

/// `∂W = scale · Σ aᵀ delta` and `∂b = Σ delta` of a layer of one tap. Operands have `PARTS` parts.
pub(in crate::cpu) fn matrix_gradient<const PARTS: usize>(
    workers: &mut Workers<'_>,
    operands: &Operands<'_, &[f32]>,
    weights: &mut [f32],
    biases: &mut [f32],
) {
    let (layer, set) = (operands.layer, workers.set);
    let samples = Samples::<PARTS>::of(operands.batch);
    let links = (STEPS / samples.steps).max(1);
    let blocks = |channels: usize| channels.div_ceil(BLOCK);
    let (down, across) = (blocks(layer.inputs), blocks(layer.outputs));
    let source_words = links * samples.panel_words(Form::Sources, BLOCK);
    let signal_words = links * samples.panel_words(Form::Signals, BLOCK);
    let out = Pointer::new(weights);
    let biases = Pointer::new(&mut biases[..layer.outputs]);
    let part = |i: usize, end: usize| i * BLOCK..((i + 1) * BLOCK).min(end);
    let work = |scratch: &mut [f32], item: usize| {
        let (sources, rest) = scratch.split_at_mut(source_words);
        let (signals, sums) = rest.split_at_mut(signal_words);
        // The last item adds the biases.
        if item == down * across {
            // SAFETY: nobody else touches them.
            let biases = unsafe { biases.slice(0, layer.outputs) };
            // SAFETY: `set` was found available when the backend was made.
            unsafe { set.run_beside_tiles(BiasKernel { operands, biases }) };
            return;
        }
        let kernel = BlockKernel::<PARTS> {
            operands,
            samples,
            links,
            inputs: part(item / across, layer.inputs),
            outputs: part(item % across, layer.outputs),
            out,
            sources,
            signals,
            sums,
        };
        // SAFETY: as above; every item writes only its own rows and columns.
        unsafe { set.run_beside_tiles(kernel) };
    };
    let len = source_words + signal_words + BLOCK * BLOCK;
    let cost = layer.multiply_adds(operands.batch) / (down * across) / WORDS;
    workers.for_each(down * across + 1, cost, len, work);
}

struct BiasKernel<'a> {
    operands: &'a Operands<'a, &'a [f32]>,
    biases: &'a mut [f32],
}

impl Kernel for BiasKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let &Operands {
            layer,
            batch,
            delta,
            ..
        } = self.operands;
        self.biases.fill(0.0);
        for destination in 0..layer.locations() {
            let size = batch * layer.outputs;
            for _ in layer.wiring.forward().of(destination) {
                // SAFETY: the instruction set is the caller's promise.
                unsafe { add_rows::<V, _>(&delta[destination * size..][..size], self.biases) };
            }
        }
    }
}

/// A block of inputs by outputs.
struct BlockKernel<'a, const PARTS: usize> {
    operands: &'a Operands<'a, &'a [f32]>,
    samples: Samples<PARTS>,
    /// Links whose operands are rounded together.
    links: usize,
    inputs: Range<usize>,
    outputs: Range<usize>,
    /// `[input, output]`
    out: Pointer,
    /// Rounded source panels, of the block's inputs.
    sources: &'a mut [f32],
    /// Rounded deltas, of its outputs.
    signals: &'a mut [f32],
    /// `[square of inputs, square of outputs, input, output]`
    sums: &'a mut [f32],
}

impl<const PARTS: usize> Kernel for BlockKernel<'_, PARTS> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(mut self) {
        let wiring = &self.operands.layer.wiring;
        // SAFETY: the machine has the tiles.
        let mut unit = unsafe { Unit::new(WORDS, self.samples.pairs) };
        let destinations = 0..wiring.destinations();
        let mut all = destinations.flat_map(|at| {
            let links = wiring.forward().of(at);
            links.iter().map(move |link| (at, link))
        });
        let mut first = true;
        loop {
            let mut count = 0;
            for (at, link) in all.by_ref().take(self.links) {
                self.round(count, at, link);
                count += 1;
            }
            if count == 0 && !first {
                break;
            }
            // SAFETY: the operands of so many links were rounded.
            unsafe { self.add(&mut unit, count, first) };
            first = false;
            if count < self.links {
                break;
            }
        }
        // SAFETY: the instruction set is the caller's promise; this block is this item's.
        unsafe { self.write::<V>() };
    }
}

impl<const PARTS: usize> BlockKernel<'_, PARTS> {
    /// Words of a rounded panel of so many channels.
    fn words(&self, form: Form, channels: usize) -> usize {
        self.samples.panel_words(form, channels)
    }

    /// Rounds the operands of a link to place `place`.
    fn round(&mut self, place: usize, destination: usize, link: &Link) {
        let &Operands {
            layer,
            batch,
            input,
            delta,
        } = self.operands;
        let words = self.words(Form::Sources, self.inputs.len());
        let size = batch * layer.inputs;
        let panel = &input[link.location as usize * size..][..size];
        let to = &mut self.sources[place * words..][..words];
        let channels = (layer.inputs, self.inputs.start);
        // SAFETY: AVX-512 was found with the tiles.
        unsafe { round_panel(self.samples, Form::Sources, channels, panel, to) };
        let words = self.words(Form::Signals, self.outputs.len());
        let size = batch * layer.outputs;
        let panel = &delta[destination * size..][..size];
        let to = &mut self.signals[place * words..][..words];
        let channels = (layer.outputs, self.outputs.start);
        // SAFETY: as above.
        unsafe { round_panel(self.samples, Form::Signals, channels, panel, to) };
    }

    /// Adds to all sums the products of so many links.
    ///
    /// # Safety
    /// Rounded operands.
    unsafe fn add(&mut self, unit: &mut Unit, links: usize, first: bool) {
        for input in (0..self.inputs.len()).step_by(SQUARE) {
            for output in (0..self.outputs.len()).step_by(SQUARE) {
                let high = self.inputs.len() - input > WORDS;
                let wide = self.outputs.len() - output > WORDS;
                let place = (input, output);
                // SAFETY: handed on from the caller.
                unsafe {
                    match (high, wide) {
                        (true, true) => self.sum::<2, 2>(unit, links, place, first),
                        (true, false) => self.sum::<2, 1>(unit, links, place, first),
                        (false, true) => self.sum::<1, 2>(unit, links, place, first),
                        (false, false) => self.sum::<1, 1>(unit, links, place, first),
                    }
                }
            }
        }
    }

    /// Where the square of sums at an input and an output of the block lies.
    fn square(&self, (input, output): (usize, usize)) -> usize {
        (input / SQUARE * SQUARES + output / SQUARE) * SQUARE * SQUARE
    }

    /// Adds to one square, of which one or two tiles each way are used.
    ///
    /// # Safety
    /// As for [`add`](Self::add).
    unsafe fn sum<const ROWS: usize, const COLUMNS: usize>(
        &mut self,
        unit: &mut Unit,
        links: usize,
        place: (usize, usize),
        first: bool,
    ) {
        let samples = self.samples;
        let operand = |panels: &[f32], form, start: usize, channel: usize| Operand {
            first: panels[start + channel / WORDS * samples.tile_words(form)..].as_ptr(),
            second: samples.tile_words(form),
            step: samples.step_words(form),
            part: samples.part_words(form),
        };
        let square = self.square(place);
        let sums = self.sums[square..].as_mut_ptr();
        // SAFETY: handed on from the caller; a square holds all tiles.
        unsafe {
            match first {
                true => unit.clear(),
                false => unit.load::<ROWS, COLUMNS>(sums, SQUARE),
            }
            for link in 0..links {
                let source = link * self.words(Form::Sources, self.inputs.len());
                let source = operand(self.sources, Form::Sources, source, place.0);
                let signal = link * self.words(Form::Signals, self.outputs.len());
                let signal = operand(self.signals, Form::Signals, signal, place.1);
                unit.add_products::<ROWS, COLUMNS, PARTS>(source, signal, samples.steps);
            }
            unit.store::<ROWS, COLUMNS>(sums, SQUARE);
        }
    }

    /// Writes all sums, scaled.
    ///
    /// # Safety
    /// The instruction set of `V`; nobody else touches this block of the gradient.
    #[inline(always)]
    unsafe fn write<V: Lanes>(&self) {
        let layer = self.operands.layer;
        // SAFETY: handed on from the caller.
        unsafe {
            let scale = V::splat(layer.scale as f32);
            for input in 0..self.inputs.len() {
                let row = (self.inputs.start + input) * layer.outputs + self.outputs.start;
                for output in (0..self.outputs.len()).step_by(V::LEN) {
                    let (down, across) = (input % SQUARE, output % SQUARE);
                    let at = self.square((input, output)) + down * SQUARE + across;
                    let value = V::load(self.sums[at..][..V::LEN].as_ptr()).mul(scale);
                    let count = V::LEN.min(self.outputs.len() - output);
                    store(value, self.out.at(row + output), count);
                }
            }
        }
    }
}
