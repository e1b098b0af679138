//! One suite for all CPU kernels. Oracle: [`Reference`], the formulas in f64; tolerances and their reasons
//! stand in `sansprop_kernels::tolerance`. Sizes straddle every tile edge.

use sansprop_kernels::tolerance::deviation;
use sansprop_kernels::{
    Activation, Backend, CpuBackend, InstructionSet, Layer, Norm, Reference, Wiring,
};
use std::sync::Arc;

mod bf16;
mod cases;
use cases::{ACTIVATIONS, Case, NORMS, Updates, buffer, compare, run_cell};

fn instruction_sets() -> Vec<InstructionSet> {
    InstructionSet::ALL
        .into_iter()
        .filter(|set| set.available())
        .collect()
}

fn check(case: &Case, name: &str) {
    check_as(case, name, |backend| backend);
}

fn check_as(case: &Case, name: &str, make: impl Fn(CpuBackend) -> CpuBackend) {
    let run = |backend: CpuBackend| case.run(&make(backend));
    check_results(name, &case.run(&Reference), run);
}

/// On every instruction set and number of threads.
fn check_results(
    name: &str,
    expected: &[(&'static str, Vec<f64>)],
    run: impl Fn(CpuBackend) -> Vec<(&'static str, Vec<f64>)>,
) {
    for set in instruction_sets() {
        let mut first: Option<Vec<(&str, Vec<f64>)>> = None;
        for threads in [1, 3] {
            let backend = CpuBackend::with_instruction_set(threads, set).expect("an available set");
            let results = run(backend);
            compare(&format!("{name} on {set}"), &results, expected);
            match &first {
                None => first = Some(results),
                Some(first) => assert_eq!(first, &results, "{name} on {set}: threads change bits"),
            }
        }
    }
}

fn check_all(cases: Vec<(String, Case)>) {
    for (name, case) in cases {
        check(&case, &name);
    }
}

#[test]
fn convolutions_of_every_stride_norm_and_activation() {
    check_all(cases::convolutions());
}

/// Grids and channels that are computed in tiles of 4×4, whole and cut off at the border, of both strides and every padding.
#[test]
fn tiled_convolutions() {
    let cases = [
        (4, 4, 1, 32, 32, 5),
        (4, 7, 1, 33, 40, 7),
        (7, 7, 1, 40, 65, 6),
        (8, 8, 1, 64, 32, 13),
        (9, 13, 1, 32, 47, 3),
        (16, 12, 1, 100, 33, 5),
        (7, 8, 1, 129, 96, 1),
        (12, 5, 1, 40, 49, 6),
        (4, 4, 1, 128, 130, 35),
        (16, 16, 2, 32, 33, 6),
        (31, 15, 2, 40, 32, 7),
        (8, 16, 2, 64, 100, 13),
        (15, 24, 2, 33, 47, 9),
        (32, 31, 2, 129, 70, 1),
        // So many weights that a hundred samples pass at once; the case has no norm, which among very many values would find
        // some minibatch of hardly any variance.
        (4, 4, 1, 292, 300, 101),
        (16, 8, 2, 32, 130, 35),
    ];
    let portable = CpuBackend::with_instruction_set(1, InstructionSet::Portable);
    let portable = portable.expect("always there");
    for (i, (height, width, stride, inputs, outputs, batch)) in cases.into_iter().enumerate() {
        let norm = match batch {
            1 => Norm::None,
            _ => NORMS[i % 3],
        };
        let activation = ACTIVATIONS[i % 4];
        let wiring = Wiring::conv3x3(height, width, stride);
        let case = Case::new(wiring, inputs, outputs, batch, norm, activation);
        let name = format!(
            "{height}×{width}, stride {stride}, {inputs} to {outputs}, {norm:?} {activation:?}"
        );
        let kernels = portable.kernels(&case.layer);
        assert!(kernels.forward.starts_with("Winograd tiles"), "{name}");
        check(&case, &name);
        check_as(&case, &format!("{name}, strict"), CpuBackend::strict);
    }
}

/// Layers too wide for the caches: links are walked a few at a time, all blocks of columns together, and the operands of
/// gradients brought together; whole and cut off at every edge.
#[test]
fn wide_plain_sums() {
    let cases = [
        (4, 3, 2, 128, 128, 7),
        (3, 3, 1, 64, 130, 100),
        (5, 4, 1, 150, 200, 13),
        (3, 2, 2, 70, 300, 6),
        (2, 2, 1, 257, 129, 3),
    ];
    for (i, (height, width, stride, inputs, outputs, batch)) in cases.into_iter().enumerate() {
        let wiring = Wiring::conv3x3(height, width, stride);
        let norm = NORMS[i % 3];
        let case = Case::new(wiring, inputs, outputs, batch, norm, ACTIVATIONS[i % 4]);
        let name = format!("{height}×{width}, {inputs} to {outputs}, {norm:?}, strict");
        check_as(&case, &name, CpuBackend::strict);
    }
}

/// Arrays of 2 MB, and of 8, which are written past the caches where vectors fill cache lines, alone, in twos or by two samples.
#[test]
fn arrays_past_the_caches() {
    let cases = [
        (16, 16, 1, 2, 8, 256),
        (32, 32, 2, 8, 8, 257),
        (8, 16, 1, 2, 24, 180),
        (4, 16, 1, 32, 32, 260),
        (16, 16, 1, 1, 32, 256),
    ];
    for (i, (height, width, stride, inputs, outputs, batch)) in cases.into_iter().enumerate() {
        let wiring = Wiring::conv3x3(height, width, stride);
        let values = wiring.destinations() * outputs * batch;
        assert!(values >= 1 << 19, "{values} values are few");
        let case = Case::new(
            wiring,
            inputs,
            outputs,
            batch,
            Norm::Location,
            ACTIVATIONS[i % 2],
        );
        check(
            &case,
            &format!("{height}×{width}, {inputs} to {outputs}, batch {batch}"),
        );
    }
}

/// Grids and channels for which stride 1 is computed in strips of four columns, whole and cut off at the border, on
/// vectors of one length or another; with eight channels, two samples may share one.
#[test]
fn strips_of_few_channels() {
    let cases = [
        (1, 4, 6, 3, 5),
        (2, 7, 8, 8, 1),
        (9, 8, 8, 8, 7),
        (17, 4, 3, 8, 4),
        (8, 9, 8, 3, 13),
        (7, 12, 7, 5, 50),
        (16, 16, 8, 8, 40),
        (5, 8, 24, 24, 6),
        (10, 11, 20, 6, 3),
        (3, 6, 16, 16, 33),
        (6, 8, 8, 8, 12),
        (2, 4, 5, 8, 6),
    ];
    for (i, (height, width, inputs, outputs, batch)) in cases.into_iter().enumerate() {
        let norm = match batch {
            1 => Norm::None,
            _ => NORMS[i % 3],
        };
        let wiring = Wiring::conv3x3(height, width, 1);
        let case = Case::new(wiring, inputs, outputs, batch, norm, ACTIVATIONS[i % 4]);
        check(
            &case,
            &format!("{height}×{width}, {inputs} to {outputs}, {norm:?}"),
        );
    }
}

#[test]
fn channels_that_straddle_every_tile_edge() {
    check_all(cases::channels());
}

#[test]
fn channels_that_fill_the_widest_tiles() {
    check_all(cases::whole_tiles(34));
}

#[test]
fn channels_that_make_whole_blocks() {
    check_all(cases::blocks());
    check_all(cases::neighbours());
}

#[test]
fn batches_that_straddle_every_tile_edge() {
    check_all(cases::batches(&[
        1, 2, 3, 5, 6, 7, 13, 14, 15, 27, 28, 29, 45, 100, 257,
    ]));
}

#[test]
fn work_shared_between_threads() {
    check_all(cases::large());
}

#[test]
fn sums_that_are_cut() {
    check_all(cases::long_sums());
}

/// Deltas that are made where a weight gradient needs them.
#[test]
fn gradients_of_signals() {
    for (name, case) in cases::signals() {
        let expected = case.run(&Reference);
        check_results(&name, &expected, |backend| case.run(&backend));
        let strict = |backend: CpuBackend| case.run(&backend.strict());
        check_results(&format!("{name}, strict"), &expected, strict);
    }
}

/// Oracle: ⟨conv x, y⟩ = ⟨x, convᵀ y⟩, in the reference itself.
#[test]
fn transposed_is_the_adjoint() {
    for stride in [1, 2, 4] {
        let case = Case::new(
            Wiring::conv3x3(7, 6, stride),
            3,
            4,
            2,
            Norm::None,
            Activation::Linear,
        );
        let results = case.run(&Reference);
        let find = |name| {
            &results
                .iter()
                .find(|(n, _)| *n == name)
                .expect("a kernel's name")
                .1
        };
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let without_bias: Vec<f64> = find("forward z")
            .iter()
            .enumerate()
            .map(|(i, z)| z - case.bias[i % 4])
            .collect();
        let left = dot(&without_bias, &case.delta);
        let right = dot(find("transposed"), &case.input);
        assert!(
            (left - right).abs() <= 1e-12 * left.abs().max(1.0),
            "{left} {right}"
        );
    }
}

/// Oracle: the reference on element-wise updates and on the loss.
#[test]
fn optimisers_sign_and_loss() {
    let updates = Updates::new();
    let (expected, loss, correct) = updates.run(&Reference);
    let classes = updates.classes;
    let direct: f64 = updates
        .output
        .iter()
        .enumerate()
        .map(|(i, f)| {
            let target = if updates.labels[i / classes] as usize == i % classes {
                0.9
            } else {
                -0.1
            };
            (f - target).powi(2)
        })
        .sum::<f64>()
        / updates.output.len() as f64;
    assert!((loss - direct).abs() < 1e-12);
    for set in instruction_sets() {
        let backend = CpuBackend::with_instruction_set(2, set).expect("an available set");
        let (arrays, fast_loss, fast_correct) = updates.run(&backend);
        assert_eq!(fast_correct, correct);
        assert!((fast_loss - loss).abs() < 1e-6 * loss);
        for (fast, reference) in arrays.iter().zip(&expected) {
            let d = deviation(fast, reference);
            assert!(d.worst <= 1.0, "{set}: {d:?}");
        }
    }
}

/// The recurrent cell and its feedback, over widths that straddle tile edges.
#[test]
fn recurrent_cells() {
    for (cell, batch) in cases::cells() {
        let width = cell.width;
        let expected = run_cell(&Reference, &cell, batch);
        for set in instruction_sets() {
            let mut first = None;
            for threads in [1, 3] {
                let backend = CpuBackend::with_instruction_set(threads, set).expect("available");
                let results = run_cell(&backend, &cell, batch);
                compare(&format!("width {width} on {set}"), &results, &expected);
                match &first {
                    None => first = Some(results),
                    Some(first) => assert_eq!(first, &results, "{set}: threads change bits"),
                }
            }
        }
    }
}

/// A NaN anywhere must reach the output: a diverged network must not look alive behind a ReLU.
#[test]
fn nan_survives_every_activation() {
    for activation in ACTIVATIONS {
        for set in instruction_sets() {
            let backend = CpuBackend::with_instruction_set(1, set).expect("an available set");
            let layer = Layer {
                wiring: Arc::new(Wiring::dense()),
                inputs: 1,
                outputs: 20,
                scale: 1.0,
                norm: Norm::None,
                activation,
            };
            let mut record = Case::record(&backend, &layer, 2);
            let weight = buffer(&backend, &[1.0; 20]);
            let bias = buffer(&backend, &[0.0; 20]);
            backend.forward(
                &layer,
                2,
                &weight,
                &bias,
                &buffer(&backend, &[f64::NAN, 1.0]),
                &mut record,
            );
            let a = backend.read(&record.a);
            assert!(
                a[..20].iter().all(|v| v.is_nan()),
                "{activation:?} on {set}: {:?}",
                &a[..20]
            );
            assert!(a[20..].iter().all(|v| v.is_finite()));
        }
    }
}

/// Oracle: `f64::tanh`, over the whole range and where the vector formula changes its branch.
#[test]
fn tanh_is_accurate() {
    for set in instruction_sets() {
        let backend = CpuBackend::with_instruction_set(1, set).expect("an available set");
        let points: Vec<f64> = (-4000..=4000)
            .map(|i| f64::from(i as f32 * 0.003))
            .chain([
                -100.0,
                -9.2,
                -0.625,
                0.0,
                0.624_999,
                0.625,
                9.0,
                1e9,
                f64::INFINITY,
                1e-30,
            ])
            .collect();
        let layer = Layer {
            wiring: Arc::new(Wiring::dense()),
            inputs: 1,
            outputs: 1,
            scale: 1.0,
            norm: Norm::None,
            activation: Activation::Tanh,
        };
        let mut record = Case::record(&backend, &layer, points.len());
        let (one, zero) = (buffer(&backend, &[1.0]), buffer(&backend, &[0.0]));
        backend.forward(
            &layer,
            points.len(),
            &one,
            &zero,
            &buffer(&backend, &points),
            &mut record,
        );
        for (x, a) in points.iter().zip(backend.read(&record.a)) {
            let expected = f64::from(*x as f32).tanh();
            assert!(
                (a - expected).abs() <= 4e-7 * expected.abs(),
                "{set}: tanh({x}) = {a}, not {expected}"
            );
        }
    }
}

/// Oracle: the reference. Tiles and strips round a few times as much as plain sums do, and no more: the paper's second
/// layer at widths 64 and 8, and one of stride 2, of which `docs/performance.md` gives the figures.
#[test]
fn what_tiles_cost_in_accuracy() {
    for (width, stride, how) in [
        (64, 1, "tiles"),
        (64, 2, "tiles of stride 2"),
        (8, 1, "strips"),
    ] {
        cost_in_accuracy(width, stride, how);
    }
}

fn cost_in_accuracy(width: usize, stride: usize, how: &str) {
    let wiring = Wiring::conv3x3(16, 16, stride);
    let case = Case::new(wiring, width, width, 8, Norm::None, Activation::Linear);
    let expected = case.run(&Reference);
    let backend = || CpuBackend::new(2).expect("a backend");
    let deviations = |backend: CpuBackend| -> Vec<(&str, f64)> {
        let results = case.run(&backend).into_iter().zip(&expected);
        results
            .map(|((name, fast), (_, reference))| (name, deviation(&fast, reference).relative_rms))
            .filter(|(name, _)| ["forward z", "transposed", "weight gradient"].contains(name))
            .collect()
    };
    let (tiled, strict) = (deviations(backend()), deviations(backend().strict()));
    for ((name, tiled), (_, strict)) in tiled.into_iter().zip(strict) {
        println!("{how}, {name}: relative RMS deviation {tiled:.1e}, strict {strict:.1e}");
        assert!(tiled != strict, "{name}: {how} were not used");
        assert!(
            tiled < 4e-6 && strict < 1e-6,
            "{name}: {tiled:e}, {strict:e}"
        );
    }
}
