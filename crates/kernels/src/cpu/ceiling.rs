//! What the machine can do at most: multiply-adds that stay in registers, and a triad over memory.
//!
//! Both run on every thread at once, in short turns that all threads begin together; a turn's rate is the sum of its
//! threads' rates, and the fastest turn's is the ceiling: among many short turns there is one in which no thread was
//! kept waiting. Each loop's result is checked.

use super::isa::{InstructionSet, Kernel, Vectors};
use super::lanes::{Lanes, MOST_LANES};
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

/// Multiply-adds of one thread's turn, in vectors.
const VECTORS: usize = 8 << 20;
/// Turns of the multiply-adds.
const TURNS: usize = 50;
/// How often the triad goes over its arrays.
const PASSES: usize = 8;
/// Turns in which it goes over them once.
const PARTS: usize = 16;
/// s of the triad.
const FACTOR: f32 = 3.0;
/// What b and c hold.
const OPERANDS: [f32; 2] = [1.0, 2.0];

/// Measures both; the triad's three arrays take about `bytes` bytes together, which should be several times what the
/// last-level caches hold.
pub(super) fn ceilings(threads: &Threads, set: InstructionSet, bytes: usize) -> Ceilings {
    let set = set.vectors();
    let few = multiply_adds::<12>(threads, set);
    // More chains than a small register file holds are slower there, and faster where latencies are long.
    let many = multiply_adds::<24>(threads, set);
    Ceilings {
        flops: few.max(many),
        bytes: triads(threads, set, bytes),
    }
}

/// Operations per second of so many chains of multiply-adds a thread.
fn multiply_adds<const CHAINS: usize>(threads: &Threads, set: Vectors) -> f64 {
    let rounds = VECTORS / CHAINS;
    let once = |ends: &mut [[f32; MOST_LANES]; CHAINS], _| {
        let kernel = MultiplyAdds { rounds, ends };
        // SAFETY: `set` was found available when the backend was made; the kernel asks for nothing else.
        unsafe { set.run_wide(kernel) };
    };
    let check = |ends: &[[f32; MOST_LANES]; CHAINS]| {
        // The fixed point of x/2 + 1/2.
        let ones = |end: &[f32; MOST_LANES]| end[..set.lanes()].iter().all(|&x| x == 1.0);
        assert!(ends.iter().all(ones), "multiply-adds end at 1");
    };
    let operations = 2 * rounds * CHAINS * set.lanes();
    let begin = || [[0.0; MOST_LANES]; CHAINS];
    operations as f64 * most_turns(threads, TURNS, begin, once, check)
}

/// Bytes per second of triads on all threads.
fn triads(threads: &Threads, set: Vectors, bytes: usize) -> f64 {
    let parts = PARTS * 3 * size_of::<f32>() * threads.count();
    let part = (bytes / parts).next_multiple_of(set.lanes());
    let part = part.max(set.lanes());
    // Each thread fills its own arrays, so that they lie in the memory next to it.
    let arrays = || {
        let [b, c] = OPERANDS.map(|value| vec![value; PARTS * part]);
        [vec![-1.0; PARTS * part], b, c]
    };
    let once = |arrays: &mut [Vec<f32>; 3], turn: usize| {
        let from = turn % PARTS * part;
        let [out, first, second] = arrays;
        let kernel = Triad {
            out: &mut out[from..][..part],
            first: &first[from..][..part],
            second: &second[from..][..part],
        };
        // SAFETY: `set` was found available when the backend was made; the parts are equally long, whole vectors.
        unsafe { set.run_wide(kernel) };
    };
    let check = |[out, ..]: &[Vec<f32>; 3]| {
        let right = OPERANDS[0] + FACTOR * OPERANDS[1];
        assert!(out.iter().all(|&value| value == right), "a triad's sums");
    };
    let moved = 3 * size_of::<f32>() * part;
    moved as f64 * most_turns(threads, PASSES * PARTS, arrays, once, check)
}

/// How often all threads together can do `work` in a second: in the fastest of so many turns, which every thread
/// begins at the same time. `work` is told the turn.
fn most_turns<S>(
    threads: &Threads,
    turns: usize,
    begin: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) + Sync,
    check: impl Fn(&S) + Sync,
) -> f64 {
    let barrier = Barrier::new(threads.count());
    let rates = Mutex::new(vec![0.0; turns]);
    threads.on_each(|| {
        let mut state = begin();
        for turn in 0..turns {
            barrier.wait();
            let started = Instant::now();
            work(&mut state, turn);
            // A clock may be too coarse for tiny arrays.
            let seconds = started.elapsed().as_secs_f64().max(1e-9);
            rates.lock().unwrap_or_else(PoisonError::into_inner)[turn] += 1.0 / seconds;
        }
        check(&state);
    });
    let rates = rates.into_inner().unwrap_or_else(PoisonError::into_inner);
    rates.into_iter().fold(0.0, f64::max)
}

struct MultiplyAdds<'a, const CHAINS: usize> {
    rounds: usize,
    /// Where the chains end.
    ends: &'a mut [[f32; MOST_LANES]; CHAINS],
}

impl<const CHAINS: usize> Kernel for MultiplyAdds<'_, CHAINS> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        // SAFETY: arithmetic, and stores into arrays that hold the longest vector; the caller guarantees the
        // instruction set.
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
            for (chain, end) in chains.into_iter().zip(self.ends) {
                chain.store(end.as_mut_ptr());
            }
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
