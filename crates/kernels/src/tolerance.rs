//! How far a fast kernel may be from the reference, with the reason for each constant.

/// Relative part of the tolerance of one value of one f32 kernel: sums of up to some hundred thousand terms lose
/// about `√n · 6e-8`, and a norm whose minibatch happens to have a small variance multiplies what its
/// pre-activations lost by its inverse deviation, up to a hundredfold in the random cases of the tests.
pub const F32_RELATIVE: f64 = 1e-4;

/// Absolute part, as a share of the root mean square of the reference array: where terms cancel, the error
/// is relative to the terms, not to their sum. A term of operands in two parts of bf16 is off by 2e-6 of its size in the
/// mean, and the norms of the tests multiply it by up to a hundred.
pub const F32_ABSOLUTE_OF_RMS: f64 = 2e-4;

/// Root-mean-square deviation of a whole array, relative to the reference's: the bound that `f32` results
/// must meet for any arithmetic.
pub const F32_RMS: f64 = 1e-5;

/// Largest relative error of one rounding to f32.
pub const F32_ROUNDING: f64 = 1.0 / (1 << 24) as f64;

/// The same of a rounding to tf32, which keeps 11 significant bits.
pub const TF32_ROUNDING: f64 = 1.0 / (1 << 11) as f64;

/// The same of a rounding to bf16, which keeps 8 significant bits.
pub const BF16_ROUNDING: f64 = 1.0 / (1 << 8) as f64;

/// Root-mean-square deviation that one kernel may have from the reference, relative to the terms that it sums, where
/// each operand and each result is rounded once with a relative error of at most `rounding`: in the mean that error is 0.4
/// as large, and two operands and a result make 0.7.
pub fn kernel_rms(rounding: f64) -> f64 {
    F32_RMS.max(rounding)
}

/// How two arrays differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deviation {
    /// `‖fast − reference‖ / ‖reference‖` (the norm of the difference if the reference is 0).
    pub relative_rms: f64,
    /// Largest excess over `F32_ABSOLUTE_OF_RMS · rms + F32_RELATIVE · |reference|`, as a multiple of it.
    pub worst: f64,
    /// Index of the worst value.
    pub worst_at: usize,
}

/// Compares `fast` with `reference`.
///
/// # Panics
/// If the lengths differ or a value is not finite.
#[track_caller]
pub fn deviation(fast: &[f64], reference: &[f64]) -> Deviation {
    assert_eq!(fast.len(), reference.len(), "arrays of different length");
    let square_sum = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let size = square_sum(&mut reference.iter().copied());
    let rms = (size / reference.len().max(1) as f64).sqrt();
    let mut result = Deviation {
        relative_rms: 0.0,
        worst: 0.0,
        worst_at: 0,
    };
    for (i, (&f, &r)) in fast.iter().zip(reference).enumerate() {
        assert!(
            f.is_finite() && r.is_finite(),
            "value {i} is not finite: {f} against {r}"
        );
        let allowed = F32_ABSOLUTE_OF_RMS * rms + F32_RELATIVE * r.abs();
        let multiple = (f - r).abs() / allowed.max(f64::MIN_POSITIVE);
        if multiple > result.worst {
            (result.worst, result.worst_at) = (multiple, i);
        }
    }
    let difference = square_sum(&mut fast.iter().zip(reference).map(|(f, r)| f - r)).sqrt();
    result.relative_rms = if size > 0.0 {
        difference / size.sqrt()
    } else {
        difference
    };
    result
}
