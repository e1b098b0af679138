//! What every device must pass. Oracle: [`Reference`], the formulas in f64. The test that has this module says where the
//! device comes from.

use crate::cases::{self, ACTIVATIONS, Case, Updates, buffer, compare, run_cell};
use crate::{CUTS, device};
use sansprop_kernels::tolerance::deviation;
use sansprop_kernels::{Activation, Backend, GpuBackend, Layer, Norm, Reference, Wiring};
use std::sync::Arc;

/// The device that was looked for, or none, which counts as a skipped test unless one is required.
pub fn found(device: Result<GpuBackend, String>) -> Option<GpuBackend> {
    match device {
        Ok(backend) => {
            println!("on {}", backend.device());
            Some(backend)
        }
        Err(e) if std::env::var_os("SANSPROP_REQUIRE_GPU").is_some() => panic!("{e}"),
        Err(e) => {
            println!("skipped, 1 test without a GPU: {e}");
            None
        }
    }
}

/// How often cases run: what differs from run to run shows in any of them that has a kernel's sums.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Runs {
    One,
    Two,
}

fn check_all(cases: Vec<(String, Case)>, runs: Runs) {
    let Some(backend) = device() else { return };
    for (name, case) in cases {
        let results = case.run(&backend);
        compare(&name, &results, &case.run(&Reference));
        if runs == Runs::Two {
            assert_eq!(results, case.run(&backend), "{name}: a second run differs");
        }
    }
}

#[test]
fn convolutions_of_every_stride_norm_and_activation() {
    check_all(cases::convolutions(), Runs::Two);
}

#[test]
fn channels_that_straddle_every_tile_edge() {
    check_all(cases::channels(), Runs::One);
}

#[test]
fn channels_that_fill_the_widest_tiles() {
    let mut cases = cases::whole_tiles(18);
    let widest = cases.pop().expect("cases");
    check_all(cases, Runs::Two);
    check_all(vec![widest], Runs::One);
}

/// Checks what only kernels treat apart that lay operands out anew; to others these channels are like any.
fn check_where_cut(mut cases: Vec<(String, Case)>) {
    if !CUTS {
        return;
    }
    let more = cases.split_off(1);
    check_all(cases, Runs::Two);
    check_all(more, Runs::One);
}

#[test]
fn channels_that_make_whole_blocks() {
    check_where_cut(cases::blocks());
}

#[test]
fn neighbouring_panels_of_few_channels() {
    check_where_cut(cases::neighbours());
}

#[test]
fn batches_that_straddle_every_tile_edge() {
    // Rows of a tile come in eights or sixteens.
    let sizes = [1, 2, 7, 9, 17, 45, 100, 257];
    check_all(cases::batches(&sizes), Runs::One);
}

#[test]
fn work_cut_into_parts() {
    check_all(cases::large(), Runs::Two);
    check_all(cases::long_sums(), Runs::Two);
}

#[test]
fn optimisers_sign_and_loss() {
    let Some(backend) = device() else { return };
    let updates = Updates::new();
    let (expected, loss, correct) = updates.run(&Reference);
    let (arrays, fast_loss, fast_correct) = updates.run(&backend);
    assert_eq!(fast_correct, correct);
    assert!((fast_loss - loss).abs() < 1e-6 * loss);
    for (fast, reference) in arrays.iter().zip(&expected) {
        let d = deviation(fast, reference);
        assert!(d.worst <= 1.0, "{d:?}");
    }
}

#[test]
fn gradients_of_signals() {
    let Some(backend) = device() else { return };
    for (name, case) in cases::signals() {
        compare(&name, &case.run(&backend), &case.run(&Reference));
    }
}

#[test]
fn recurrent_cells() {
    let Some(backend) = device() else { return };
    for (cell, batch) in cases::cells() {
        let expected = run_cell(&Reference, &cell, batch);
        let name = format!("width {}", cell.width);
        compare(&name, &run_cell(&backend, &cell, batch), &expected);
    }
}

/// Clones, partial copies and writes keep values apart.
#[test]
fn buffers_are_values() {
    let Some(backend) = device() else { return };
    let mut first = buffer(&backend, &[1.0, 2.0, 3.0]);
    let second = first.clone();
    backend.write(&[9.0], &mut first);
    assert_eq!(backend.read(&first), [9.0, 2.0, 3.0]);
    assert_eq!(backend.read(&second), [1.0, 2.0, 3.0]);
    backend.copy(2, &second, &mut first);
    assert_eq!(backend.read(&first), [1.0, 2.0, 3.0]);
    assert_eq!(backend.read(&backend.zeros(5)), [0.0; 5]);
    assert!(backend.read(&backend.zeros(0)).is_empty());
}

/// A NaN anywhere must reach the output: a diverged network must not look alive behind a ReLU.
#[test]
fn nan_survives_every_activation() {
    let Some(backend) = device() else { return };
    for activation in ACTIVATIONS {
        let layer = Layer {
            wiring: Arc::new(Wiring::dense()),
            inputs: 1,
            outputs: 20,
            scale: 1.0,
            norm: Norm::None,
            activation,
        };
        let mut record = Case::record(&backend, &layer, 2);
        let [weight, bias] = [1.0, 0.0].map(|value| buffer(&backend, &[value; 20]));
        let input = buffer(&backend, &[f64::NAN, 1.0]);
        backend.forward(&layer, 2, &weight, &bias, &input, &mut record);
        let a = backend.read(&record.a);
        assert!(a[..20].iter().all(|v| v.is_nan()), "{activation:?}: {a:?}");
        assert!(a[20..].iter().all(|v| v.is_finite()));
    }
}

/// Oracle: `f64::tanh` and `libm::erf`, over the whole range and where the formulas change their branch.
#[test]
fn activations_are_accurate() {
    let Some(backend) = device() else { return };
    let points: Vec<f64> = (-4000..=4000)
        .map(|i| f64::from(i as f32 * 0.003))
        .chain([-100.0, -0.625, 0.0, 0.843, 0.844, 9.0, 1e9, 1e-30])
        .collect();
    type Exact = fn(f64) -> f64;
    let exact: [(Activation, Exact); 2] =
        [(Activation::Tanh, f64::tanh), (Activation::Erf, libm::erf)];
    for (activation, exact) in exact {
        let layer = Layer {
            wiring: Arc::new(Wiring::dense()),
            inputs: 1,
            outputs: 1,
            scale: 1.0,
            norm: Norm::None,
            activation,
        };
        let mut record = Case::record(&backend, &layer, points.len());
        let (one, zero) = (buffer(&backend, &[1.0]), buffer(&backend, &[0.0]));
        let input = buffer(&backend, &points);
        backend.forward(&layer, points.len(), &one, &zero, &input, &mut record);
        for (x, a) in points.iter().zip(backend.read(&record.a)) {
            let expected = exact(f64::from(*x as f32));
            assert!(
                (a - expected).abs() <= 1e-6 * expected.abs(),
                "{activation:?}({x}) = {a}, not {expected}"
            );
        }
    }
}
