//! Rounding of operands to bf16: 8 significant bits, the exponents of f32.

use super::lanes::Lanes;

/// 2¹⁶ + 1. With `c = x · SPLIT`, `c − (c − x)` is x to the nearest with 24 − 16 bits (Dekker 1971, after Veltkamp), in
/// arithmetic that every vector has. Beyond 2¹¹¹, where no training is alive, it gives NaN.
const SPLIT: f32 = 65537.0;

/// The nearest bf16 value.
pub(super) fn bf16(x: f32) -> f32 {
    let c = x * SPLIT;
    c - (c - x)
}

/// Every lane's nearest bf16 value if `rounded`, else the lanes as they are.
///
/// # Safety
/// The instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn bf16_if<V: Lanes>(rounded: bool, x: V) -> V {
    // SAFETY: arithmetic only.
    unsafe {
        if rounded {
            let c = x.mul(V::splat(SPLIT));
            c.sub(c.sub(x))
        } else {
            x
        }
    }
}

#[cfg(test)]
mod tests {
    use super::bf16;

    /// Oracle: rounding to nearest on the bits, ties left out.
    #[test]
    fn eight_bits_are_left() {
        let mut bits = 0x0080_0000u32;
        while bits < 0x7700_0000 {
            let x = f32::from_bits(bits);
            if bits & 0xffff != 0x8000 {
                let nearest = f32::from_bits((bits + 0x8000) & 0xffff_0000);
                assert_eq!(bf16(x), nearest, "{x:e}");
                assert_eq!(bf16(-x), -nearest, "-{x:e}");
            }
            bits += 0x0001_2345;
        }
        assert_eq!(bf16(0.0), 0.0);
        assert_eq!(bf16(-0.75), -0.75);
        assert!(bf16(f32::NAN).is_nan() && bf16(f32::INFINITY).is_nan());
    }
}
