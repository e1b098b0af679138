//! The gradient of one matrix, summed over all samples of all links.

use crate::cpu::isa::Kernel;
use crate::cpu::lanes::Lanes;
use crate::cpu::outer_product::{OuterProduct, Sum, add_outer_product, add_rows};
use crate::cpu::pack::copy_row;
use crate::cpu::pointer::Pointer;
use crate::cpu::scratch::Workers;
use crate::cpu::weight_gradient::Operands;
use std::ops::Range;

/// Inputs of one task.
const INPUTS: usize = 96;

/// Samples whose products are summed before they are written.
const SAMPLES: usize = 128;

/// Columns of the widest block: two vectors.
const MOST_COLUMNS: usize = 32;

/// `∂W = scale · Σ aᵀ delta` and `∂b = Σ delta` of a layer of one tap.
pub(in crate::cpu) fn gradient(
    workers: &mut Workers<'_>,
    operands: &Operands<'_, &[f32]>,
    weights: &mut [f32],
    biases: &mut [f32],
) {
    let (layer, set) = (operands.layer, workers.set);
    let block = 2 * set.lanes();
    let (tasks, blocks) = (layer.inputs.div_ceil(INPUTS), layer.outputs.div_ceil(block));
    // Few inputs leave threads without work: their columns are shared out, too.
    let parts = (2 * workers.threads.count()).div_ceil(tasks).min(blocks);
    let edge = |part: usize| part * blocks / parts;
    let out = Pointer::new(weights);
    let biases = Pointer::new(&mut biases[..layer.outputs]);
    let cost = layer.multiply_adds(operands.batch) / (tasks * parts);
    let work = |scratch: &mut [f32], item: usize| {
        let (task, part) = (item / parts, item % parts);
        let (sources, signals) = scratch.split_at_mut(SAMPLES * INPUTS);
        let kernel = ProductKernel {
            operands,
            inputs: task * INPUTS..((task + 1) * INPUTS).min(layer.inputs),
            blocks: edge(part)..edge(part + 1),
            block,
            out,
            biases: (task == 0).then_some(biases),
            sources,
            signals,
        };
        // SAFETY: `set` was found available when the backend was made; every item writes only its own rows and columns,
        // and the first task's items their columns' biases.
        unsafe { set.run(kernel) };
    };
    workers.for_each(tasks * parts, cost, SAMPLES * (INPUTS + block), work);
}

struct ProductKernel<'a> {
    operands: &'a Operands<'a, &'a [f32]>,
    inputs: Range<usize>,
    /// Blocks of columns, of so many columns each.
    blocks: Range<usize>,
    block: usize,
    /// `[input, output]`
    out: Pointer,
    /// `[output]`, where this item adds them.
    biases: Option<Pointer>,
    /// `[sample, input of this task]`
    sources: &'a mut [f32],
    /// `[sample, column of a block]`
    signals: &'a mut [f32],
}

impl Kernel for ProductKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(mut self) {
        let (layer, batch) = (self.operands.layer, self.operands.batch);
        let links = layer.wiring.forward();
        // Row of the source, row of the destination.
        let mut rows = (0..layer.locations()).flat_map(|dst| {
            links.of(dst).iter().flat_map(move |link| {
                (0..batch).map(move |r| [link.location as usize * batch + r, dst * batch + r])
            })
        });
        let samples = links.len() * batch;
        let mut these = [[0; 2]; SAMPLES];
        for first in (0..samples).step_by(SAMPLES) {
            let count = SAMPLES.min(samples - first);
            for (to, row) in these[..count].iter_mut().zip(&mut rows) {
                *to = row;
            }
            let ends = (first == 0, first + count == samples);
            // SAFETY: the rows are those of the links' panels; the rest is the caller's promise.
            unsafe { self.add::<V>(&these[..count], ends) };
        }
    }
}

impl ProductKernel<'_> {
    /// Adds the products of some samples, given by their rows of source and destination; the first begin the sums, the
    /// last complete them.
    ///
    /// # Safety
    /// The instruction set of `V`; rows of the two arrays; nobody else touches this item's sums.
    #[inline(always)]
    unsafe fn add<V: Lanes>(&mut self, rows: &[[usize; 2]], (first, last): (bool, bool)) {
        let &Operands {
            layer,
            input,
            delta,
            ..
        } = self.operands;
        let (inputs, outputs, block) = (self.inputs.len(), layer.outputs, self.block);
        for (to, &[source, _]) in self.sources.chunks_exact_mut(inputs).zip(rows) {
            to.copy_from_slice(&input[source * layer.inputs + self.inputs.start..][..inputs]);
        }
        for column in self.blocks.clone().map(|b| b * block) {
            let used = block.min(outputs - column);
            for (to, &[_, destination]) in self.signals.chunks_exact_mut(block).zip(rows) {
                let row = &delta[destination * outputs + column..][..used];
                // SAFETY: any address may be asked for; the instruction set is the caller's promise.
                unsafe {
                    V::prefetch(row.as_ptr().wrapping_add(block));
                    copy_row::<V>(row, to);
                }
            }
            let product = OuterProduct {
                a: self.sources.as_ptr(),
                inputs,
                rows: inputs,
                delta: self.signals.as_ptr(),
                delta_row: block,
                outputs: used,
                batch: rows.len(),
            };
            let sum = Sum {
                to: self.out.at(self.inputs.start * outputs + column),
                row: outputs,
                add: !first,
                scale: if last { layer.scale as f32 } else { 1.0 },
            };
            // SAFETY: scratch holds the rows' values; the sums are this item's.
            unsafe { add_outer_product::<V>(product, sum) };
            if let Some(biases) = self.biases {
                let mut sums = [0.0; MOST_COLUMNS];
                // SAFETY: the first task's items alone touch their columns' biases.
                unsafe {
                    add_rows::<V, _>(&self.signals[..rows.len() * block], &mut sums[..block]);
                    let biases = biases.slice(column, used);
                    for (bias, sum) in biases.iter_mut().zip(sums) {
                        *bias = if first { sum } else { *bias + sum };
                    }
                }
            }
        }
    }
}
