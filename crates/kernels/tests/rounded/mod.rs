//! The precisions tf32 and bf16: operands of products are rounded, and nothing else is.

use crate::cases::{ACTIVATIONS, Case, buffer, within_roundings};
use crate::{CUTS, device};
use sansprop_kernels::tolerance::{BF16_ROUNDING, TF32_ROUNDING};
use sansprop_kernels::{Activation, Backend, GpuBackend, Layer, Norm, Operands, Wiring};
use std::sync::Arc;

/// Each precision with its name, the significant bits that it keeps and its largest relative error.
const PRECISIONS: [(Operands, &str, u32, f64); 2] = [
    (Operands::Tf32, "tf32", 11, TF32_ROUNDING),
    (Operands::Bf16, "bf16", 8, BF16_ROUNDING),
];

/// The nearest value of so many significant bits, the even one of two, by arithmetic in f64.
fn rounded(value: f64, bits: u32) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let unit = (value.abs().log2().floor() - f64::from(bits) + 1.0).exp2();
    (value / unit).round_ties_even() * unit
}

fn case_list() -> Vec<Case> {
    let conv = |height, width, stride, inputs, outputs, batch, norm, i: usize| {
        let wiring = Wiring::conv3x3(height, width, stride);
        Case::new(wiring, inputs, outputs, batch, norm, ACTIVATIONS[i % 4])
    };
    vec![
        // Panels too few to lie in blocks, where z is cut, too.
        conv(4, 3, 1, 3, 8, 11, Norm::Location, 0),
        conv(5, 4, 2, 9, 17, 6, Norm::Channel, 1),
        conv(2, 3, 1, 33, 40, 17, Norm::None, 2),
        Case::new(Wiring::dense(), 30, 21, 130, Norm::Location, ACTIVATIONS[0]),
    ]
}

/// What lies in blocks: of channels enough for all work-groups of groups of warps that bf16 has beside those of f32, and of
/// those few that neighbouring panels are made together of under bf16 only.
fn blocks_of_many_channels() -> Vec<Case> {
    let conv = |side, inputs, outputs, batch| {
        let wiring = Wiring::conv3x3(side, side, 1);
        Case::new(
            wiring,
            inputs,
            outputs,
            batch,
            Norm::Location,
            Activation::Tanh,
        )
    };
    vec![
        conv(16, 128, 256, 6),
        conv(16, 64, 64, 6),
        conv(16, 32, 64, 6),
        // A gradient in two shares.
        conv(12, 64, 32, 128),
    ]
}

/// What the products of a case read.
fn operands(case: &mut Case) -> [&mut Vec<f64>; 8] {
    let [first, second] = &mut case.port_inputs;
    [
        &mut case.weight,
        &mut case.input,
        &mut case.delta,
        first,
        second,
        &mut case.port_weight,
        &mut case.direct_weight,
        &mut case.error,
    ]
}

/// Oracle: the f32 kernels on operands that are rounded beforehand, bit by bit. A bias gradient is no product.
#[test]
fn operands_are_rounded_and_nothing_else() {
    let Some(exact) = device() else { return };
    for (operands_are, name, bits, rounding) in PRECISIONS {
        let backend = open().rounding(operands_are);
        for (i, mut case) in case_list().into_iter().enumerate() {
            // Ties to either side, where a sum would show them.
            case.weight[0] = 1.0 + 0.5f64.powi(bits as i32);
            case.weight[1] = 1.0 + 3.0 * 0.5f64.powi(bits as i32);
            let found = case.run(&backend);
            let plain = case.run(&exact);
            for values in operands(&mut case) {
                values.iter_mut().for_each(|v| *v = rounded(*v, bits));
            }
            let expected = case.run(&exact);
            for (k, (kernel, found)) in found.iter().enumerate() {
                let expected = match *kernel {
                    "bias gradient" => &plain[k].1,
                    _ => &expected[k].1,
                };
                // What the next product reads may already be rounded where it lies.
                let kept = matches!(
                    *kernel,
                    "forward z" | "transposed" | "weight gradient" | "bias gradient"
                );
                let largest = expected.iter().fold(0.0f64, |most, v| most.max(v.abs()));
                let close = |(f, e): (&f64, &f64)| (f - e).abs() <= rounding * largest;
                let right = match CUTS && !kept {
                    true => found.iter().zip(expected).all(close),
                    false => found == expected,
                };
                assert!(right, "case {i} in {name}: {kernel}");
            }
            assert!(found[0].1 != plain[0].1, "case {i} in {name}: as in f32");
        }
    }
}

/// Another handle on the device that [`device`] found.
fn open() -> GpuBackend {
    device().expect("a device that was there")
}

/// Oracle: the reference, within what rounding each operand once may do; by one convolution, as
/// [`operands_are_rounded_and_nothing_else`] holds a layer's kernels to more, and by recurrent cells.
#[test]
fn no_kernel_is_further_off_than_its_roundings() {
    if device().is_none() {
        return;
    }
    for (operands, name, _, rounding) in PRECISIONS {
        let backend = open().rounding(operands);
        assert_eq!(
            (backend.precision(), backend.operand_rounding()),
            (name, rounding)
        );
        let first = case_list().into_iter().take(1).collect();
        within_roundings(&backend, first, rounding, name);
        if CUTS && operands == Operands::Bf16 {
            within_roundings(&backend, blocks_of_many_channels(), rounding, name);
        }
    }
}

/// Oracle: [`rounded`], on the values where rounding on the bits could go wrong. A diverged network stays one.
#[test]
fn edges_of_the_format() {
    if device().is_none() {
        return;
    }
    let layer = Layer {
        wiring: Arc::new(Wiring::dense()),
        inputs: 1,
        outputs: 1,
        scale: 1.0,
        norm: Norm::None,
        activation: Activation::Linear,
    };
    for (operands, name, bits, _) in PRECISIONS {
        let backend = open().rounding(operands);
        let [one, zero] = [1.0, 0.0].map(|value| buffer(&backend, &[value]));
        let step = 0.5f64.powi(bits as i32);
        let points: Vec<f64> = [
            1.0,
            1.0 + step,
            1.0 + 3.0 * step,
            2.0 - step,
            1.0 + step * 1.001,
        ]
        .into_iter()
        .flat_map(|x| [x, -x, x * 1e-30, x * 1e30])
        .map(|x| f64::from(x as f32))
        .chain([0.0, f64::INFINITY, f64::NEG_INFINITY])
        .collect();
        let run = |input: &[f64]| {
            let mut record = Case::record(&backend, &layer, input.len());
            let given = buffer(&backend, input);
            backend.forward(&layer, input.len(), &one, &zero, &given, &mut record);
            backend.read(&record.z)
        };
        for (x, found) in points.iter().zip(run(&points)) {
            // Infinity may meet the zero that a weight of 1 leaves for a second part.
            let right = match x.is_finite() {
                true => found == rounded(*x, bits),
                false => !found.is_finite(),
            };
            assert!(right, "{name}: {x} became {found}");
        }
        for payload in [0x7fc0_0000u32, 0x7f80_0001, 0xffff_ffff] {
            let nan = f64::from(f32::from_bits(payload));
            assert!(run(&[nan])[0].is_nan(), "{name}: {payload:#x}");
        }
    }
}
