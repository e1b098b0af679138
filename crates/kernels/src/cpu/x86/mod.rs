//! AVX2 and AVX-512 vectors.

mod eight;
mod sixteen;

pub(super) use eight::{Avx2, Narrow};
pub(super) use sixteen::Avx512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InstructionSet;
    use crate::cpu::lanes::{Lanes, MOST_LANES};
    use crate::cpu::portable::Portable;

    /// # Safety
    /// The instruction set of `V`.
    unsafe fn check_halves<V: Lanes>() {
        let half = V::LEN / 2;
        let low: [f32; MOST_LANES] = std::array::from_fn(|i| i as f32 + 1.0);
        let high = low.map(|x| 10.0 * x);
        let halves = |vector: V| {
            let mut values = [0.0; MOST_LANES];
            // SAFETY: room for the longest vector; the instruction set is the caller's promise.
            unsafe { vector.store(values.as_mut_ptr()) };
            [&values[..half], &values[half..V::LEN]].map(<[f32]>::to_vec)
        };
        let (first, second) = (low[..half].to_vec(), high[..half].to_vec());
        let sums: Vec<f32> = first.iter().map(|x| 11.0 * x).collect();
        // SAFETY: half a vector's values behind each pointer.
        unsafe {
            let two = V::load_two(low.as_ptr(), high.as_ptr());
            assert_eq!(halves(two), [first.clone(), second]);
            assert_eq!(halves(V::load_twice(low.as_ptr())), [first.clone(), first]);
            assert_eq!(
                halves(V::splat_two(3.0, 4.0)),
                [vec![3.0; half], vec![4.0; half]]
            );
            assert_eq!(halves(two.add_halves()), [sums.clone(), sums]);
        }
    }

    #[test]
    fn two_samples_share_a_vector() {
        // SAFETY: the portable lanes need nothing, the others are asked for first.
        unsafe {
            check_halves::<Portable>();
            if InstructionSet::Avx2.available() {
                check_halves::<Avx2>();
            }
            if InstructionSet::Avx512.available() {
                check_halves::<Avx512>();
            } else {
                println!("no AVX-512 here: halves of its vectors are not tested");
            }
        }
    }
}
