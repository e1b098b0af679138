//! What the machine can do at most: multiply-adds that stay in registers, and a triad over memory.
//!
//! Both run on every thread at once, start together, and are repeated; the fastest repetition is the ceiling. Each
//! loop's result is checked.

use super::isa::{InstructionSet, Kernel};
use super::lanes::Lanes;
use super::threads::Threads;
use std::hint::black_box;
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::Instant;

/// What the machine can do at most, on the threads and the instruction set that it was measured with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Floating point operations per second, two for each multiply-add, of operands in registers.
    pub flops: f64,
    /// Bytes per second of the triad `a = b + s · c` over arrays in memory: two values read and one written. As the
    /// kernels do, it stores through the caches, so that the machine also reads a; that is not counted.
    pub bytes: f64,
}

/// Multiply-adds of one thread's repetition, in vectors.
const VECTORS: usize = 24 << 20;
/// Repetitions of the multiply-adds, and of the triad, of which the fastest counts.
const REPETITIONS: [usize; 2] = [10, 8];
/// s of the triad.
const FACTOR: f32 = 3.0;
/// What b and c hold.
const OPERANDS: [f32; 2] = [1.0, 2.0];

/// Measures both; the triad's three arrays take about `bytes` bytes together, which should be several times what the
/// last-level caches hold.
pub(super) fn ceilings(threads: &Threads, set: InstructionSet, bytes: usize) -> Ceilings {
    let few = multiply_adds::<12>(threads, set);
    // More chains than a small register file holds are slower there, and faster where latencies are long.
    let many = multiply_adds::<24>(threads, set);
    Ceilings {
        flops: few.max(many),
        bytes: triads(threads, set, bytes),
    }
}

/// Operations per second of so many chains of multiply-adds a thread.
fn multiply_adds<const CHAINS: usize>(threads: &Threads, set: InstructionSet) -> f64 {
    let rounds = VECTORS / CHAINS;
    let once = |sum: &mut f32| {
        let kernel = MultiplyAdds::<CHAINS> { rounds, sum };
        // SAFETY: `set` was found available when the backend was made; the kernel asks for nothing else.
        unsafe { set.run(kernel) };
    };
    let check = |sum: &f32| {
        // Every lane of every chain ends at 1, the fixed point of x/2 + 1/2.
        assert_eq!(*sum, (CHAINS * set.lanes()) as f32, "a sum of ones");
    };
    let seconds = fastest(threads, REPETITIONS[0], || 0.0, once, check);
    let operations = 2 * rounds * CHAINS * set.lanes() * threads.count();
    operations as f64 / seconds
}

/// Bytes per second of triads on all threads.
fn triads(threads: &Threads, set: InstructionSet, bytes: usize) -> f64 {
    let vector = set.lanes();
    let values = bytes / (3 * size_of::<f32>() * threads.count());
    let values = values.next_multiple_of(vector).max(vector);
    // Each thread fills its own arrays, so that they lie in the memory next to it.
    let arrays = || {
        let [b, c] = OPERANDS.map(|value| vec![value; values]);
        [vec![-1.0; values], b, c]
    };
    let once = |arrays: &mut [Vec<f32>; 3]| {
        let [out, first, second] = arrays;
        let kernel = Triad { out, first, second };
        // SAFETY: `set` was found available when the backend was made; the arrays are equally long, whole vectors.
        unsafe { set.run(kernel) };
    };
    let check = |[out, ..]: &[Vec<f32>; 3]| {
        let right = OPERANDS[0] + FACTOR * OPERANDS[1];
        assert!(out.iter().all(|&value| value == right), "a triad's sums");
    };
    let seconds = fastest(threads, REPETITIONS[1], arrays, once, check);
    (3 * size_of::<f32>() * values * threads.count()) as f64 / seconds
}

/// Seconds of the fastest of `repetitions` turns in which every thread does `work` once: from the first thread's
/// start to the last one's end, after a turn that is not counted.
fn fastest<S>(
    threads: &Threads,
    repetitions: usize,
    prepare: impl Fn() -> S + Sync,
    work: impl Fn(&mut S) + Sync,
    check: impl Fn(&S) + Sync,
) -> f64 {
    let barrier = Barrier::new(threads.count());
    let spans: Mutex<Vec<Option<(Instant, Instant)>>> = Mutex::new(vec![None; repetitions]);
    threads.on_each(|| {
        let mut state = prepare();
        work(&mut state);
        check(&state);
        for turn in 0..repetitions {
            barrier.wait();
            let started = Instant::now();
            work(&mut state);
            let ended = Instant::now();
            let mut spans = spans.lock().unwrap_or_else(PoisonError::into_inner);
            let (first, last) = spans[turn].unwrap_or((started, ended));
            spans[turn] = Some((first.min(started), last.max(ended)));
        }
        check(&state);
    });
    let spans = spans.into_inner().unwrap_or_else(PoisonError::into_inner);
    let seconds = spans.iter().flatten().map(|(a, b)| (*b - *a).as_secs_f64());
    // A clock may be too coarse for tiny arrays.
    seconds.fold(f64::INFINITY, f64::min).max(1e-9)
}

struct MultiplyAdds<'a, const CHAINS: usize> {
    rounds: usize,
    sum: &'a mut f32,
}

impl<const CHAINS: usize> Kernel for MultiplyAdds<'_, CHAINS> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        // SAFETY: arithmetic only, and a store into an array that holds the longest vector; the caller guarantees
        // the instruction set.
        unsafe {
            let half = V::splat(black_box(0.5));
            let mut chains = [half; CHAINS];
            for chain in &mut chains {
                // Nobody may know that all chains compute the same.
                *chain = V::splat(black_box(2.0));
            }
            for _ in 0..self.rounds {
                for chain in &mut chains {
                    *chain = chain.mul_add(half, half);
                }
            }
            let mut sum = V::splat(0.0);
            for chain in chains {
                sum = sum.add(chain);
            }
            let mut values = [0.0; 16];
            sum.store(values.as_mut_ptr());
            *self.sum = values[..V::LEN].iter().sum();
        }
    }
}

struct Triad<'a> {
    out: &'a mut [f32],
    first: &'a [f32],
    second: &'a [f32],
}

impl Kernel for Triad<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Self { out, first, second } = self;
        // SAFETY: the three arrays are equally long, a whole number of vectors; the caller guarantees the
        // instruction set.
        unsafe {
            let factor = V::splat(FACTOR);
            for at in (0..out.len()).step_by(V::LEN) {
                let first = V::load(first.as_ptr().add(at));
                let second = V::load(second.as_ptr().add(at));
                second
                    .mul_add(factor, first)
                    .store(out.as_mut_ptr().add(at));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: the loops' own results, which are checked on the way; a ceiling is a positive number whatever the
    /// instruction set, the threads and the size, down to less than one vector.
    #[test]
    fn every_instruction_set_has_ceilings() {
        for set in InstructionSet::ALL.into_iter().filter(|s| s.available()) {
            for (count, bytes) in [(1, 0), (2, 100_000)] {
                let threads = Threads::new(count).expect("threads");
                let Ceilings { flops, bytes } = ceilings(&threads, set, bytes);
                for ceiling in [flops, bytes] {
                    assert!(ceiling.is_finite() && ceiling > 0.0, "{set} {ceiling}");
                }
            }
        }
    }

    #[test]
    fn the_calling_thread_has_ceilings_too() {
        let measured = ceilings(&Threads::caller(), InstructionSet::best(), 1 << 16);
        assert!(measured.flops > 0.0 && measured.bytes > 0.0);
    }
}
