//! Weight gradients: outer products of source and feedback panels, summed in an order that the shape fixes.

use super::buffer::CpuBuffer;
use super::isa::Kernel;
use super::lanes::Lanes;
use super::outer_product::{
    FEW_INPUTS, OuterProduct, Sum, THREE, add_far_outer_product, add_rows, add_three_outer_products,
};
use super::pack::copy_row;
use super::pairs;
use super::pointer::Pointer;
use super::scratch::Workers;
use super::threads::Threads;
use super::values::ask_for;
use crate::{Layer, Link};

/// Partial sums are kept below this many values in all (32 MiB) …
pub(super) const PARTIAL_VALUES: usize = 8 << 20;
/// … and locations are cut into at most this many chunks, each with a partial sum of its own.
pub(super) const CHUNKS: usize = 16;
/// Inputs of one task: a task's partial sum should stay in the second-level cache.
pub(super) const INPUTS_PER_TASK: usize = 64;

/// How a layer's gradient is cut into tasks. It depends on the layer's shape alone, so the order of additions
/// and with it every bit of the result is the same for any number of threads.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// What is cut into chunks: locations, or groups of them.
    items: usize,
    chunks: usize,
    input_blocks: usize,
    /// Values of a chunk's partial sums: weights `[tap, input, output]`, then biases.
    chunk_len: usize,
}

/// One block of inputs of one chunk.
pub(super) struct Task<'a> {
    /// The chunk's destinations, or whatever the cut is of.
    pub items: std::ops::Range<usize>,
    pub inputs: std::ops::Range<usize>,
    /// `[tap, input of the whole layer, output]`
    pub partial: Pointer,
    /// Bias sums, zeros so far; the chunk's first block adds them.
    pub bias: Option<&'a mut [f32]>,
}

impl Cut {
    /// A chunk is some of `items` locations, or groups of locations.
    pub(super) fn of(layer: &Layer, items: usize) -> Self {
        let input_blocks = layer.inputs.div_ceil(INPUTS_PER_TASK);
        let chunks = (PARTIAL_VALUES / layer.weights().max(1)).clamp(1, CHUNKS);
        Self {
            items,
            chunks: chunks.min(items),
            input_blocks,
            chunk_len: (layer.weights() + layer.outputs).next_multiple_of(16),
        }
    }

    /// Number of tasks.
    pub(super) fn tasks(self) -> usize {
        self.chunks * self.input_blocks
    }

    /// Values of all partial sums.
    pub(super) fn len(self) -> usize {
        self.chunks * self.chunk_len
    }

    /// A task by its number.
    ///
    /// # Safety
    /// `partials` are [`len`](Self::len) values, and no other thread has this task.
    pub(super) unsafe fn task<'a>(
        self,
        layer: &Layer,
        partials: Pointer,
        number: usize,
    ) -> Task<'a> {
        let (chunk, block) = (number / self.input_blocks, number % self.input_blocks);
        let part = |i: usize| i * self.items / self.chunks;
        let partial = partials.skip(chunk * self.chunk_len);
        let bias = (block == 0).then(|| {
            // SAFETY: only the first input block of a chunk touches the chunk's bias sums.
            let bias = unsafe { partial.slice(layer.weights(), layer.outputs) };
            bias.fill(0.0);
            bias
        });
        Task {
            items: part(chunk)..part(chunk + 1),
            inputs: block * INPUTS_PER_TASK..((block + 1) * INPUTS_PER_TASK).min(layer.inputs),
            partial,
            bias,
        }
    }
}

struct ChunkKernel<'a> {
    layer: &'a Layer,
    batch: usize,
    input: &'a [f32],
    delta: &'a [f32],
    task: Task<'a>,
    /// `[block, sample, column of the block]`
    signals: &'a mut [f32],
}

impl Kernel for ChunkKernel<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let layer = self.layer;
        let (inputs, outputs, block) = (layer.inputs, layer.outputs, 2 * V::LEN);
        let Task {
            items: destinations,
            inputs: rows,
            partial,
            mut bias,
        } = self.task;
        let last = destinations.end;
        for dst in destinations {
            let panel = &self.delta[dst * self.batch * outputs..][..self.batch * outputs];
            if let Some(bias) = bias.as_deref_mut() {
                // SAFETY: the instruction set is the caller's promise.
                unsafe { add_rows::<V, _>(panel, bias) };
            }
            let links = layer.wiring.forward().of(dst);
            let following = match dst + 1 < last {
                true => layer.wiring.forward().of(dst + 1),
                false => &[],
            };
            let source = |link: &Link| {
                let panel = &self.input[link.location as usize * self.batch * inputs..];
                panel[..self.batch * inputs]
                    .as_ptr()
                    .wrapping_add(rows.start)
            };
            let sum = |link: &Link| partial.at((link.tap as usize * inputs + rows.start) * outputs);
            let product = |a: *const f32| OuterProduct {
                a,
                inputs,
                rows: rows.len(),
                delta: panel.as_ptr(),
                delta_row: outputs,
                outputs,
                batch: self.batch,
            };
            if V::PAIRED && inputs <= pairs::MOST_INPUTS && outputs == V::LEN {
                for link in links {
                    let (source, sum) = ((source(link), inputs), sum(link));
                    // SAFETY: all panels were sliced whole; this task alone writes its chunk's partial sums.
                    unsafe {
                        pairs::add_outer_product::<V>(source, panel.as_ptr(), self.batch, sum);
                    }
                }
                continue;
            }
            let together = match rows.len() <= FEW_INPUTS && outputs <= V::LEN {
                true => links.len() / THREE * THREE,
                false => 0,
            };
            let (threes, singles) = links.split_at(together);
            // SAFETY: all panels were sliced whole; this task alone writes its inputs' rows of its chunk's partial sums.
            unsafe {
                for three in threes.chunks_exact(THREE) {
                    let (a, sums) = (
                        std::array::from_fn(|i| source(&three[i])),
                        std::array::from_fn(|i| sum(&three[i])),
                    );
                    add_three_outer_products::<V>(product(std::ptr::null()), a, sums);
                }
                let (delta, delta_row) = match outputs > block && !singles.is_empty() {
                    true => {
                        to_blocks::<V>(panel, outputs, block, self.signals);
                        (self.signals.as_ptr(), block)
                    }
                    false => (panel.as_ptr(), outputs),
                };
                let mut after = singles.iter().skip(1).chain(following.first());
                let ahead = self.delta.get((dst + 1) * panel.len()..).unwrap_or(&[]);
                let mut ahead = ahead.chunks(panel.len().div_ceil(singles.len().max(1)));
                for link in singles {
                    ask_for::<V, _>(ahead.next().unwrap_or(&[]));
                    let product = OuterProduct {
                        delta,
                        delta_row,
                        ..product(source(link))
                    };
                    let next = after.next().map_or(std::ptr::null(), source);
                    let sum = Sum::more(sum(link), outputs);
                    add_far_outer_product::<V>(product, sum, next);
                }
            }
        }
    }
}

/// A panel, `[sample, column]`, in column blocks, `[block, sample, column of the block]`: its rows are a power of two apart,
/// more often than not, and would meet in a few places of a cache.
///
/// # Safety
/// The instruction set of `V`.
#[inline(always)]
unsafe fn to_blocks<V: Lanes>(panel: &[f32], columns: usize, block: usize, out: &mut [f32]) {
    let places = out.chunks_exact_mut(panel.len() / columns * block);
    for (column, to) in (0..columns).step_by(block).zip(places) {
        let used = block.min(columns - column);
        for (to, row) in to.chunks_exact_mut(block).zip(panel.chunks_exact(columns)) {
            // SAFETY: handed on from the caller.
            unsafe { copy_row::<V>(&row[column..][..used], to) };
        }
    }
}

/// Operands of [`weight_gradient`].
pub(super) struct Operands<'a, P> {
    pub layer: &'a Layer,
    pub batch: usize,
    /// `[source, batch, input]`
    pub input: P,
    /// `[destination, batch, output]`
    pub delta: P,
}

/// `∂W = scale · Σ aᵀ delta` and `∂b = Σ delta`; `partials` is scratch.
pub(super) fn weight_gradient(
    workers: &mut Workers<'_>,
    operands: &Operands<'_, &[f32]>,
    partials: &mut CpuBuffer,
    weights: &mut [f32],
    biases: &mut [f32],
) {
    let &Operands {
        layer,
        batch,
        input,
        delta,
    } = operands;
    let cut = Cut::of(layer, layer.locations());
    partials.reserve(cut.len());
    let shared = Pointer::new(partials);
    let cost = layer.multiply_adds(batch) / cut.tasks();
    let set = workers.set;
    let work = |signals: &mut [f32], number: usize| {
        // SAFETY: every task is one thread's, which alone touches the task's rows of its chunk's partial sums.
        let task = unsafe { cut.task(layer, shared, number) };
        for tap in 0..layer.wiring.taps() {
            let at = (tap * layer.inputs + task.inputs.start) * layer.outputs;
            // SAFETY: as above.
            unsafe { task.partial.slice(at, task.inputs.len() * layer.outputs) }.fill(0.0);
        }
        let kernel = ChunkKernel {
            layer,
            batch,
            input,
            delta,
            task,
            signals,
        };
        // SAFETY: `set` is available; the kernel's own contract is met as noted there.
        unsafe { set.run(kernel) };
    };
    let columns = layer.outputs.next_multiple_of(2 * set.lanes());
    workers.for_each(cut.tasks(), cost, columns * batch, work);
    add_partials(workers.threads, layer, cut, partials, weights, biases);
}

/// The gradient from all partial sums.
pub(super) fn add_partials(
    threads: &Threads,
    layer: &Layer,
    cut: Cut,
    partials: &[f32],
    weights: &mut [f32],
    biases: &mut [f32],
) {
    const STRIP: usize = 4096;
    let (partials, len) = (&partials[..cut.len()], layer.weights());
    let scale = layer.scale as f32;
    let out = Pointer::new(weights);
    threads.for_each(len.div_ceil(STRIP), STRIP * cut.chunks, |_, strip| {
        let from = strip * STRIP;
        // SAFETY: strips do not overlap.
        let out = unsafe { out.slice(from, STRIP.min(len - from)) };
        add_chunks(partials, cut.chunk_len, from, out);
        for v in out {
            *v *= scale;
        }
    });
    add_chunks(partials, cut.chunk_len, len, &mut biases[..layer.outputs]);
}

/// `out = Σ_chunks partial[from..]`, in chunk order.
fn add_chunks(partials: &[f32], chunk_len: usize, from: usize, out: &mut [f32]) {
    out.copy_from_slice(&partials[from..][..out.len()]);
    for chunk in partials.chunks_exact(chunk_len).skip(1) {
        for (sum, v) in out.iter_mut().zip(&chunk[from..]) {
            *sum += v;
        }
    }
}
