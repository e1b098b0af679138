//! Products of bf16 on the tile unit, where there is one. The other sets must pass too: same operands, same sums.

use sansprop_kernels::tolerance::{BF16_ROUNDING, deviation, kernel_rms};
use sansprop_kernels::{Backend, CpuBackend, InstructionSet, Norm, Reference, Wiring};

use super::{OPERANDS, PRE_ACTIVATIONS, all_weights, halves, rounded};
use crate::cases::{ACTIVATIONS, Case, NORMS, compare};
use crate::instruction_sets;

/// Channels and batches that straddle the edges of tiles, of steps and of pairs of tiles.
fn cases() -> Vec<Case> {
    let grids = [
        Wiring::conv3x3(3, 2, 1),
        Wiring::conv3x3(3, 3, 2),
        Wiring::conv3x3(5, 4, 4),
        Wiring::dense(),
        Wiring::sequence(3, 4, 1),
        Wiring::conv3x3(5, 5, 1),
    ];
    let shapes = [
        (16, 16, 5),
        (17, 33, 17),
        (33, 16, 16),
        (47, 32, 33),
        (32, 47, 1),
        (64, 17, 7),
        (100, 64, 5),
        (16, 100, 100),
        (65, 31, 31),
    ];
    let case = |i: usize| {
        let (inputs, outputs, batch) = shapes[i % shapes.len()];
        let wiring = grids[i % grids.len()].clone();
        let norm = match batch {
            1 => Norm::None,
            _ => NORMS[i % 3],
        };
        Case::new(wiring, inputs, outputs, batch, norm, ACTIVATIONS[i % 4])
    };
    // Dense layers of several slabs, and of blocks side by side.
    let dense = [
        (1100, 270, 33, Norm::Location),
        (260, 300, 7, Norm::None),
        (300, 260, 17, Norm::Location),
    ];
    let sequence = Wiring::sequence(19, 21, 1);
    let sequence = Case::new(sequence, 290, 270, 9, Norm::None, ACTIVATIONS[1]);
    let dense = dense.map(|(inputs, outputs, batch, norm)| {
        Case::new(
            Wiring::dense(),
            inputs,
            outputs,
            batch,
            norm,
            ACTIVATIONS[0],
        )
    });
    (0..2 * shapes.len())
        .map(case)
        .chain(dense)
        .chain([sequence])
        .collect()
}

fn describe(case: &Case) -> String {
    let (layer, batch) = (&case.layer, case.batch);
    let places = (layer.sources(), layer.locations());
    let channels = (layer.inputs, layer.outputs);
    format!("{places:?} locations, {channels:?} channels, batch {batch}")
}

/// Oracle: the reference on operands that are rounded beforehand; only a stored operand is rounded once more.
#[test]
fn rounded_operands_are_summed_as_f32() {
    for mut case in cases() {
        let round = |values: &mut Vec<f64>| values.iter_mut().for_each(|v| *v = rounded(*v));
        all_weights(&mut case).into_iter().for_each(round);
        [&mut case.input, &mut case.delta]
            .into_iter()
            .for_each(round);
        let expected = case.run(&Reference);
        for set in instruction_sets() {
            let name = format!("{} on {set}", describe(&case));
            let results = [1, 3].map(|threads| {
                let backend = CpuBackend::with_instruction_set(threads, set);
                let backend = backend.expect("an available set").bf16();
                let kernels = backend.kernels(&case.layer);
                for how in [kernels.forward, kernels.feedback, kernels.weight_gradient] {
                    let tiles = how == "AMX tiles, amx";
                    assert_eq!(tiles, set == InstructionSet::Amx, "{name}: {how}");
                }
                case.run(&backend)
            });
            assert_eq!(results[0], results[1], "{name}: threads change bits");
            let (stored, sums) = results[0]
                .iter()
                .cloned()
                .zip(expected.clone())
                .partition::<Vec<_>, _>(|((name, _), _)| {
                    let z = PRE_ACTIVATIONS.contains(name) && halves(&case.layer);
                    *name == "pool" || OPERANDS.contains(name) || z
                });
            let (found, wanted): (Vec<_>, Vec<_>) = sums.into_iter().unzip();
            compare(&name, &found, &wanted);
            for ((kernel, found), (_, wanted)) in stored {
                let d = deviation(&found, &wanted);
                assert!(
                    d.relative_rms <= kernel_rms(BF16_ROUNDING),
                    "{name}: {kernel}: {d:?}"
                );
            }
        }
    }
}

/// Oracle: layers too narrow for tiles, small single matrices in f32, and every layer in f32-strict are computed as without
/// them.
#[test]
fn narrow_layers_and_single_products_use_no_tiles() {
    let make = |set| CpuBackend::with_instruction_set(1, set).expect("an available set");
    for set in instruction_sets() {
        let wide = Case::new(Wiring::dense(), 16, 16, 1, Norm::None, ACTIVATIONS[0]);
        let narrow = Case::new(Wiring::dense(), 16, 15, 1, Norm::None, ACTIVATIONS[0]);
        let square = Wiring::conv3x3(2, 2, 2);
        let square = Case::new(square, 16, 16, 1, Norm::None, ACTIVATIONS[0]);
        let kernels = [
            make(set).kernels(&wide.layer),
            make(set).strict().kernels(&wide.layer),
            make(set).strict().kernels(&square.layer),
            make(set).bf16().kernels(&narrow.layer),
        ];
        for kernels in kernels {
            assert!(kernels.forward.starts_with("plain sums"), "{kernels:?}");
        }
    }
}

/// Oracle: the reference, within the bounds of f32, on operands of two parts.
#[test]
fn two_parts_are_as_good_as_f32() {
    for (i, case) in cases().into_iter().enumerate() {
        let expected = case.run(&Reference);
        for set in instruction_sets() {
            let name = format!("case {i}, {} on {set}", describe(&case));
            let results = [1, 3].map(|threads| {
                let backend = CpuBackend::with_instruction_set(threads, set);
                let backend = backend.expect("an available set");
                let kernels = backend.kernels(&case.layer);
                let layer = &case.layer;
                // Of a sequence's single matrix only the gradient is on the tile unit.
                let (fewest, all) = match layer.wiring.taps() {
                    1 => (256, layer.locations() == 1),
                    _ => (24, true),
                };
                let wide = layer.inputs.min(layer.outputs) >= fewest;
                let wanted = set == InstructionSet::Amx && wide;
                let tiles = "AMX tiles, amx";
                assert_eq!(kernels.weight_gradient == tiles, wanted, "{name}");
                assert_eq!(kernels.forward == tiles, wanted && all, "{name}");
                case.run(&backend)
            });
            assert_eq!(results[0], results[1], "{name}: threads change bits");
            let (found, wanted): (Vec<_>, Vec<_>) =
                results[0].iter().cloned().zip(expected.clone()).unzip();
            compare(&name, &found, &wanted);
        }
    }
}

/// A NaN among the operands must reach the sums, and nothing that it has no part in.
#[test]
fn nan_passes_through_tiles() {
    let channels = 20;
    for set in instruction_sets() {
        let backend = CpuBackend::with_instruction_set(1, set)
            .expect("an available set")
            .bf16();
        let mut case = Case::new(
            Wiring::dense(),
            channels,
            channels,
            3,
            Norm::None,
            ACTIVATIONS[3],
        );
        case.input[channels] = f64::NAN;
        let results = case.run(&backend);
        let find = |name| {
            &results
                .iter()
                .find(|(n, _)| *n == name)
                .expect("a kernel's name")
                .1
        };
        for (i, z) in find("forward z").iter().enumerate() {
            assert_eq!(z.is_nan(), i / channels == 1, "{set}: forward {i}");
        }
        for (i, g) in find("weight gradient").iter().enumerate() {
            assert_eq!(g.is_nan(), i / channels == 0, "{set}: gradient {i}");
        }
    }
}
