//! The precision bf16: operands are rounded, and nothing else is.

use sansprop_kernels::tolerance::BF16_ROUNDING;
use sansprop_kernels::{Backend, CpuBackend, InstructionSet, Norm, Wiring};

mod tile_unit;

use crate::cases::{self, ACTIVATIONS, Case, Values, within_roundings};

/// The nearest value with eight significant bits, on the bits of an f32.
fn rounded(value: f64) -> f64 {
    let bits = (value as f32).to_bits();
    f64::from(f32::from_bits((bits + 0x8000) & 0xffff_0000))
}

/// Whether a value lies in the middle between two of eight bits.
fn is_tie(value: f64) -> bool {
    (value as f32).to_bits() & 0xffff == 0x8000
}

/// Whether every found value is the expected one rounded, to either side where there is no nearest.
fn are_rounded(found: &[f64], expected: &[f64]) -> bool {
    let below = |e: f64| rounded(f64::from(f32::from_bits((e as f32).to_bits() - 1)));
    let pairs = found.iter().zip(expected);
    pairs
        .into_iter()
        .all(|(&f, &e)| f == rounded(e) || is_tie(e) && f == below(e))
}

fn cases() -> Vec<Case> {
    let conv = |height, width, stride, inputs, outputs, batch, norm, i: usize| {
        let wiring = Wiring::conv3x3(height, width, stride);
        Case::new(wiring, inputs, outputs, batch, norm, ACTIVATIONS[i % 4])
    };
    vec![
        conv(5, 4, 1, 3, 8, 11, Norm::Location, 0),
        conv(5, 4, 2, 9, 17, 6, Norm::Channel, 1),
        conv(4, 4, 1, 33, 40, 5, Norm::Location, 0),
        conv(7, 5, 1, 32, 47, 9, Norm::Channel, 3),
        conv(4, 8, 1, 40, 32, 7, Norm::None, 1),
        conv(8, 16, 2, 33, 32, 6, Norm::Location, 0),
        Case::new(Wiring::dense(), 30, 21, 10, Norm::None, ACTIVATIONS[0]),
    ]
}

/// The weights of all products of a case.
fn all_weights(case: &mut Case) -> [&mut Vec<f64>; 3] {
    let Case {
        weight,
        port_weight,
        direct_weight,
        ..
    } = case;
    [weight, port_weight, direct_weight]
}

/// What holds operands, and is rounded as it is stored.
const OPERANDS: [&str; 7] = [
    "forward a",
    "forward a alone",
    "forward a for the next layer",
    "feedback path",
    "feedback local",
    "pool feedback",
    "direct feedback",
];

/// Oracle: the f32 kernels on weights that are rounded beforehand, whose operands are rounded afterwards. Bit by bit,
/// but for the tile unit, which adds in another order and is tested on its own.
#[test]
fn operands_are_rounded_and_nothing_else() {
    for set in InstructionSet::ALL
        .into_iter()
        .filter(|set| set.available() && *set != InstructionSet::Amx)
    {
        let backend = || CpuBackend::with_instruction_set(2, set).expect("an available set");
        for (i, mut case) in cases().into_iter().enumerate() {
            for weights in all_weights(&mut case) {
                weights
                    .iter_mut()
                    .filter(|w| is_tie(**w))
                    .for_each(|w| *w *= 0.75);
            }
            let found = case.run(&backend().bf16());
            for weights in all_weights(&mut case) {
                weights.iter_mut().for_each(|w| *w = rounded(*w));
            }
            let expected = case.run(&backend());
            for ((name, found), (_, expected)) in found.iter().zip(&expected) {
                let same = match *name {
                    "pool" => are_rounded(found, found),
                    name if OPERANDS.contains(&name) => are_rounded(found, expected),
                    _ => found == expected,
                };
                assert!(same, "case {i} on {set}: {name}");
            }
        }
    }
}

/// Oracle: the reference, within what rounding each operand once may do.
#[test]
fn no_kernel_is_further_off_than_its_roundings() {
    let backend = CpuBackend::new(2).expect("a backend").bf16();
    assert_eq!(
        (backend.precision(), backend.operand_rounding()),
        ("bf16", BF16_ROUNDING)
    );
    within_roundings(&backend, cases(), BF16_ROUNDING, "bf16");
}

/// Errors are operands too: the head's gradient and all feedback read them.
#[test]
fn errors_are_rounded_and_the_loss_is_not() {
    let (samples, classes) = (6, 5);
    let output = Values(3).take(samples * classes);
    let labels: Vec<u32> = (0..samples as u32).map(|i| i % classes as u32).collect();
    let run = |backend: CpuBackend| {
        let output = cases::buffer(&backend, &output);
        let mut error = backend.zeros(samples * classes);
        let report = backend.loss(&labels, classes, 0.1, &output, &mut error);
        (report, backend.read(&error))
    };
    let backend = || CpuBackend::new(1).expect("a backend");
    let ((exact, expected), (report, found)) = (run(backend()), run(backend().bf16()));
    assert_eq!(report, exact);
    assert!(are_rounded(&found, &expected));
}
