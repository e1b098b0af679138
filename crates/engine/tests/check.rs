//! `sansprop::check` passes sound backends on networks of every kind, and names the fault of each broken one.
//! Oracle: the fault itself, put into a backend on purpose.

use sansprop::check::{Bound, Check, Finding, Property, check_batch};
use sansprop::images::ImageShape;
use sansprop::network::{Architecture, Network, NetworkSpec, Parameterization};
use sansprop::rng::LegacyRandom;
use sansprop::rule::{Feedback, FeedbackWeights, Point, RULES, Rule};
use sansprop_kernels::{
    Activation, AdamStep, Backend, CellWeights, CpuBackend, ForwardPass, GpuBackend, Landing,
    Layer, LossReport, Norm, Operands, Record, RecurrentCell, Reference, Unrolled,
};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a broken backend does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    NormalisedTooLarge,
    ActivationsTooLarge,
    DeviationsTooLarge,
    BiasForgotten,
    PooledTooLarge,
    LossTooLarge,
    ErrorTooLarge,
    TransposedTooLarge,
    FeedbackTooLarge,
    /// Only where the second network's delta lands.
    LocalFeedbackTooLarge,
    /// As if normᵀ forgot its mean term.
    MeanKept,
    PooledFeedbackTooLarge,
    DirectFeedbackTooLarge,
    WeightGradientTooLarge,
    BiasGradientTooLarge,
    /// The gradients of the layer with so many inputs stay as they are.
    LayerForgotten {
        inputs: usize,
    },
    /// One of all calls, counted from 0, leaves the gradients as they are.
    WeightGradientSkipped(usize),
    SignFlipped,
    UpdateFlipped,
    UpdateIdle,
    AdamTooLarge,
    NotANumber,
    GradientNotANumber,
    /// Every read finds values a little larger than the one before.
    MemoryDrifts,
}

/// A backend with a fault.
struct Broken<B> {
    inner: B,
    fault: Fault,
    calls: AtomicUsize,
}

const TOO_LARGE: f64 = 1.01;

impl<B: Backend> Broken<B> {
    fn new(inner: B, fault: Fault) -> Self {
        Self {
            inner,
            fault,
            calls: AtomicUsize::new(0),
        }
    }

    /// Changes a buffer if that is the fault.
    fn spoil(&self, fault: Fault, buffer: &mut B::Buffer, change: impl Fn(f64) -> f64) {
        if self.fault == fault {
            let values = self.inner.read(buffer);
            let values: Vec<f64> = values.into_iter().map(change).collect();
            self.inner.write(&values, buffer);
        }
    }

    fn enlarge(&self, fault: Fault, buffer: &mut B::Buffer) {
        self.spoil(fault, buffer, |v| TOO_LARGE * v);
    }

    fn keep_mean(&self, delta: &mut B::Buffer) {
        self.spoil(Fault::MeanKept, delta, |v| v + 1e-3);
    }
}

impl<B: Backend> Backend for Broken<B> {
    type Buffer = B::Buffer;

    fn device(&self) -> String {
        self.inner.device()
    }

    fn precision(&self) -> &'static str {
        self.inner.precision()
    }

    fn zeros(&self, len: usize) -> B::Buffer {
        self.inner.zeros(len)
    }

    fn write(&self, values: &[f64], to: &mut B::Buffer) {
        self.inner.write(values, to);
    }

    fn write_f32(&self, values: &[f32], to: &mut B::Buffer) {
        self.inner.write_f32(values, to);
    }

    fn copy(&self, len: usize, from: &B::Buffer, to: &mut B::Buffer) {
        self.inner.copy(len, from, to);
    }

    fn read(&self, from: &B::Buffer) -> Vec<f64> {
        let mut values = self.inner.read(from);
        if self.fault == Fault::MemoryDrifts {
            let calls = self.calls.fetch_add(1, Ordering::Relaxed) as f64;
            values.iter_mut().for_each(|v| *v += 1e-6 * calls);
        }
        values
    }

    fn forward_pass(&self, pass: ForwardPass<'_, B::Buffer>, out: &mut Record<B::Buffer>) {
        let mut bias = pass.bias.clone();
        self.spoil(Fault::BiasForgotten, &mut bias, |_| 0.0);
        let pass = ForwardPass {
            bias: &bias,
            ..pass
        };
        self.inner.forward_pass(pass, out);
        self.enlarge(Fault::NormalisedTooLarge, &mut out.z);
        self.enlarge(Fault::ActivationsTooLarge, &mut out.a);
        self.enlarge(Fault::DeviationsTooLarge, &mut out.inverse_deviation);
        self.spoil(Fault::NotANumber, &mut out.a, |_| f64::NAN);
    }

    fn pool(
        &self,
        locations: usize,
        batch: usize,
        channels: usize,
        input: &B::Buffer,
        out: &mut B::Buffer,
    ) {
        self.inner.pool(locations, batch, channels, input, out);
        self.enlarge(Fault::PooledTooLarge, out);
    }

    fn loss(
        &self,
        labels: &[u32],
        classes: usize,
        shift: f64,
        output: &B::Buffer,
        error: &mut B::Buffer,
    ) -> LossReport {
        let mut report = self.inner.loss(labels, classes, shift, output, error);
        self.enlarge(Fault::ErrorTooLarge, error);
        if self.fault == Fault::LossTooLarge {
            report.loss *= TOO_LARGE;
        }
        report
    }

    fn transposed(
        &self,
        layer: &Layer,
        batch: usize,
        weight: &B::Buffer,
        delta: &B::Buffer,
        out: &mut B::Buffer,
    ) {
        self.inner.transposed(layer, batch, weight, delta, out);
        self.enlarge(Fault::TransposedTooLarge, out);
    }

    fn feedback(
        &self,
        layer: &Layer,
        port: &Layer,
        batch: usize,
        weight: &B::Buffer,
        delta: &B::Buffer,
        path: Landing<'_, B::Buffer>,
        local: Option<Landing<'_, B::Buffer>>,
    ) {
        let Landing {
            record,
            delta: on_path,
        } = path;
        let path = Landing {
            record,
            delta: &mut *on_path,
        };
        let mut local = local;
        let borrowed = local.as_mut().map(|local| Landing {
            record: local.record,
            delta: &mut *local.delta,
        });
        self.inner
            .feedback(layer, port, batch, weight, delta, path, borrowed);
        self.enlarge(Fault::FeedbackTooLarge, on_path);
        self.keep_mean(on_path);
        if let Some(local) = local {
            self.enlarge(Fault::LocalFeedbackTooLarge, local.delta);
        }
    }

    fn pool_feedback(
        &self,
        port: &Layer,
        batch: usize,
        signal: &B::Buffer,
        landing: Landing<'_, B::Buffer>,
    ) {
        let Landing { record, delta } = landing;
        let landing = Landing {
            record,
            delta: &mut *delta,
        };
        self.inner.pool_feedback(port, batch, signal, landing);
        self.enlarge(Fault::PooledFeedbackTooLarge, delta);
    }

    fn direct_feedback(
        &self,
        direct: &Layer,
        port: &Layer,
        batch: usize,
        weight: &B::Buffer,
        error: &B::Buffer,
        landing: Landing<'_, B::Buffer>,
    ) {
        let Landing { record, delta } = landing;
        let landing = Landing {
            record,
            delta: &mut *delta,
        };
        self.inner
            .direct_feedback(direct, port, batch, weight, error, landing);
        self.enlarge(Fault::DirectFeedbackTooLarge, delta);
    }

    fn weight_gradient(
        &self,
        layer: &Layer,
        batch: usize,
        input: &B::Buffer,
        delta: &B::Buffer,
        weight_gradient: &mut B::Buffer,
        bias_gradient: &mut B::Buffer,
    ) {
        if let Fault::WeightGradientSkipped(call) = self.fault
            && self.calls.fetch_add(1, Ordering::Relaxed) == call
        {
            return;
        }
        if self.fault
            == (Fault::LayerForgotten {
                inputs: layer.inputs,
            })
        {
            return;
        }
        self.inner
            .weight_gradient(layer, batch, input, delta, weight_gradient, bias_gradient);
        self.enlarge(Fault::WeightGradientTooLarge, weight_gradient);
        self.enlarge(Fault::BiasGradientTooLarge, bias_gradient);
        self.spoil(Fault::GradientNotANumber, weight_gradient, |_| f64::NAN);
    }

    fn recur(
        &self,
        cell: &RecurrentCell,
        batch: usize,
        weights: CellWeights<'_, B::Buffer>,
        input: &B::Buffer,
        record: &mut Record<B::Buffer>,
    ) {
        self.inner.recur(cell, batch, weights, input, record);
    }

    fn recur_feedback(
        &self,
        cell: &RecurrentCell,
        batch: usize,
        hidden: &B::Buffer,
        signal: &B::Buffer,
        unrolled: Unrolled<'_, B::Buffer>,
        local: Option<Landing<'_, B::Buffer>>,
    ) {
        self.inner
            .recur_feedback(cell, batch, hidden, signal, unrolled, local);
    }

    fn sequence_loss(
        &self,
        targets: &[f32],
        batch: usize,
        output: &B::Buffer,
        error: &mut B::Buffer,
    ) -> f64 {
        self.inner.sequence_loss(targets, batch, output, error)
    }

    fn sign(&self, scale: f64, weight: &B::Buffer, out: &mut B::Buffer) {
        self.inner.sign(scale, weight, out);
        self.spoil(Fault::SignFlipped, out, |v| -v);
    }

    fn sgd(&self, rate: f64, gradient: &B::Buffer, weight: &mut B::Buffer) {
        let rate = match self.fault {
            Fault::UpdateIdle => return,
            Fault::UpdateFlipped => -rate,
            _ => rate,
        };
        self.inner.sgd(rate, gradient, weight);
    }

    fn adam(
        &self,
        mut step: AdamStep,
        gradient: &B::Buffer,
        first: &mut B::Buffer,
        second: &mut B::Buffer,
        weight: &mut B::Buffer,
    ) {
        if self.fault == Fault::AdamTooLarge {
            step.rate *= TOO_LARGE;
        }
        self.inner.adam(step, gradient, first, second, weight);
    }
}

const CLASSES: usize = 10;
const CHANNELS: usize = 2;

struct Example {
    network: Network,
    input: Vec<f32>,
    labels: Vec<u32>,
}

impl Example {
    /// A network and grey images in [0, 1], every fourth location black in all of them, like the border of a digit.
    fn new(
        architecture: Architecture,
        width: usize,
        batch: usize,
        norm: Norm,
        activation: Activation,
        parameterization: Parameterization,
    ) -> Self {
        let network = Network::new(NetworkSpec {
            input: ImageShape {
                height: 6,
                width: 5,
                channels: CHANNELS,
            },
            classes: CLASSES,
            architecture,
            width,
            activation,
            norm,
            parameterization,
        })
        .expect("a valid network");
        let (locations, channels) = network.input_panels();
        let mut random = LegacyRandom::new(3);
        let input = (0..locations * batch * channels)
            .map(|i| match i / (batch * channels) % 4 {
                3 => 0.0,
                _ => random.uniform() as f32,
            })
            .collect();
        Self {
            network,
            input,
            labels: (0..batch as u32).map(|b| b * 7 % CLASSES as u32).collect(),
        }
    }

    fn conv(norm: Norm, activation: Activation) -> Self {
        let strides = vec![1, 2, 1];
        let architecture = Architecture::Conv { strides };
        Self::new(architecture, 5, 6, norm, activation, Parameterization::Ntk)
    }

    fn check<F: Backend, E: Backend>(&self, fast: &F, exact: &E, rules: &[Rule]) -> Vec<Finding> {
        let mut findings = Vec::new();
        Check {
            network: &self.network,
            rules,
            seed: 99,
            target_shift: 0.1,
            input: &self.input,
            labels: &self.labels,
        }
        .run(fast, exact, &mut |finding| findings.push(finding));
        findings
    }
}

fn cpu() -> CpuBackend {
    CpuBackend::new(1).expect("a backend with one thread")
}

fn failed(findings: &[Finding]) -> Vec<(Property, &str)> {
    let failed = findings.iter().filter(|finding| !finding.passed);
    failed.map(|f| (f.property, f.subject.as_str())).collect()
}

const PARAMETERIZATIONS: [Parameterization; 2] =
    [Parameterization::Ntk, Parameterization::Standard];

/// Oracle: the kernels' own conformance suite and the golden rules, which both backends pass.
#[test]
fn sound_backends_pass_on_every_kind_of_network() {
    let architectures = [
        Architecture::Conv {
            strides: vec![1, 2, 1],
        },
        Architecture::Conv { strides: vec![3] },
        Architecture::Dense { depth: 0 },
        Architecture::Dense { depth: 1 },
        Architecture::Dense { depth: 3 },
    ];
    let activations = [
        Activation::Relu,
        Activation::Tanh,
        Activation::Erf,
        Activation::Linear,
    ];
    for architecture in &architectures {
        for norm in [Norm::Location, Norm::Channel, Norm::None] {
            for activation in activations {
                for (width, batch) in [(1, 4), (3, 4), (8, 9), (17, 45)] {
                    for parameterization in PARAMETERIZATIONS {
                        let example = Example::new(
                            architecture.clone(),
                            width,
                            batch,
                            norm,
                            activation,
                            parameterization,
                        );
                        for finding in example.check(&cpu(), &Reference, &RULES) {
                            assert!(
                                finding.passed,
                                "{architecture:?} width {width} batch {batch} {norm:?} {activation:?} \
                                 {parameterization:?}: {finding:?}"
                            );
                        }
                    }
                }
            }
        }
    }
}

/// Oracle: as above. CUDA's kernels, compiled for the processor, on panels of which neighbouring ones are made together.
#[test]
fn neighbouring_panels_pass() {
    let emulated = GpuBackend::emulated("c++".as_ref(), true);
    let backend = emulated.expect("a C++ compiler").rounding(Operands::F32);
    let strides = vec![1, 1, 2];
    let architecture = Architecture::Conv { strides };
    let (norm, activation, ntk) = (Norm::Location, Activation::Relu, Parameterization::Ntk);
    let example = Example::new(architecture, 8, 24, norm, activation, ntk);
    // Of all that rules make of two networks, this one makes most.
    let rules: Vec<Rule> = RULES
        .into_iter()
        .filter(|rule| rule.name == "align-ada")
        .collect();
    let findings = example.check(&backend, &Reference, &rules);
    assert!(
        rules.len() == 1 && failed(&findings).is_empty(),
        "{findings:?}"
    );
}

/// What is looked at, and in which order, depends on network and rules alone.
#[test]
fn findings_come_in_a_fixed_order() {
    let example = Example::conv(Norm::Location, Activation::Relu);
    let findings = example.check(&cpu(), &Reference, &RULES);
    assert_eq!(findings, example.check(&cpu(), &Reference, &RULES));
    let count = |property| findings.iter().filter(|f| f.property == property).count();
    assert_eq!(count(Property::Gradient), 4, "layers");
    assert_eq!(count(Property::FirstStep), 3, "rules through W⁽⁰⁾");
    assert_eq!(count(Property::Moved), 1);
    assert_eq!(count(Property::FedBackThroughInitial), 1, "fa");
    assert_eq!(count(Property::Linear), 1, "align-zero");
    assert_eq!(count(Property::Trained), RULES.len());
    assert_eq!(count(Property::Untouched), 1, "last-layer");
    assert_eq!(count(Property::Loss), RULES.len());
    // Four forward and four weight-gradient kernels, head transposed, pooled feedback, two feedbacks, three
    // direct ones, pool, loss, sign and two optimisers.
    assert_eq!(count(Property::Kernel), 8 + 1 + 1 + 2 + 3 + 5);
    assert_eq!(findings[0].subject, "head");
    assert_eq!(findings[3].subject, "layers.0");
}

/// Faults of the fast backend, and the finding that must name each.
#[test]
fn every_fault_of_the_fast_backend_is_found() {
    use Property::{Kernel, Loss, Trained, Untouched};
    let faults = [
        (Fault::NormalisedTooLarge, Kernel, "layers.1 forward"),
        (Fault::ActivationsTooLarge, Kernel, "layers.2 forward"),
        (Fault::ActivationsTooLarge, Loss, "fa"),
        (Fault::DeviationsTooLarge, Kernel, "layers.0 forward"),
        (Fault::BiasForgotten, Kernel, "head forward"),
        (Fault::PooledTooLarge, Kernel, "pool"),
        (Fault::LossTooLarge, Kernel, "loss"),
        (Fault::LossTooLarge, Loss, "dfa"),
        (Fault::ErrorTooLarge, Kernel, "loss"),
        (Fault::TransposedTooLarge, Kernel, "head transposed"),
        (Fault::FeedbackTooLarge, Kernel, "layers.1 feedback"),
        (Fault::LocalFeedbackTooLarge, Kernel, "layers.2 feedback"),
        (Fault::MeanKept, Kernel, "layers.1 feedback"),
        (
            Fault::PooledFeedbackTooLarge,
            Kernel,
            "layers.2 pooled feedback",
        ),
        (
            Fault::DirectFeedbackTooLarge,
            Kernel,
            "layers.0 direct feedback",
        ),
        (
            Fault::WeightGradientTooLarge,
            Kernel,
            "layers.0 weight gradient",
        ),
        (Fault::BiasGradientTooLarge, Kernel, "head weight gradient"),
        (Fault::SignFlipped, Kernel, "sign"),
        (Fault::UpdateFlipped, Kernel, "sgd"),
        (Fault::UpdateIdle, Kernel, "sgd"),
        (Fault::UpdateIdle, Trained, "normal"),
        (Fault::UpdateIdle, Trained, "last-layer"),
        (Fault::AdamTooLarge, Kernel, "adam"),
        (Fault::NotANumber, Kernel, "layers.0 forward"),
        (Fault::NotANumber, Loss, "normal"),
        (Fault::NotANumber, Trained, "normal"),
        (
            Fault::GradientNotANumber,
            Kernel,
            "layers.0 weight gradient",
        ),
        (Fault::GradientNotANumber, Trained, "dfa"),
        (Fault::MemoryDrifts, Untouched, "last-layer"),
    ];
    for norm in [Norm::Location, Norm::Channel] {
        let example = Example::conv(norm, Activation::Relu);
        for (fault, property, subject) in faults {
            let findings = example.check(&Broken::new(cpu(), fault), &Reference, &RULES);
            let failed = failed(&findings);
            assert!(
                failed.contains(&(property, subject)),
                "{norm:?} {fault:?}: {property} of {subject} is not among {failed:?}"
            );
            let exact = [
                Property::Gradient,
                Property::FirstStep,
                Property::Moved,
                Property::FedBackThroughInitial,
                Property::Linear,
            ];
            let blamed = failed.iter().find(|(property, _)| exact.contains(property));
            assert_eq!(blamed, None, "{fault:?} is no fault of the rules");
        }
    }
}

/// A layer that never gets its gradient is every rule's fault that trains it, and no fault of the one that does not.
#[test]
fn a_forgotten_layer_is_found_in_every_rule() {
    let example = Example::conv(Norm::Location, Activation::Tanh);
    let fast = Broken::new(cpu(), Fault::LayerForgotten { inputs: CHANNELS });
    let findings = example.check(&fast, &Reference, &RULES);
    let mut expected: Vec<(Property, &str)> = RULES
        .iter()
        .filter(|rule| rule.trains_hidden_layers())
        .map(|rule| (Property::Trained, rule.name))
        .collect();
    expected.push((Property::Kernel, "layers.0 weight gradient"));
    assert_eq!(failed(&findings), expected);
}

/// Faults of the arithmetic that the rules run in, here put into the reference: each identity must see its own.
#[test]
fn every_broken_identity_is_found() {
    use Property::{FedBackThroughInitial, FirstStep, Gradient, Linear, Moved};
    let layers = 4;
    let forgotten = Fault::LayerForgotten { inputs: CHANNELS };
    // Weight gradients in the order of the checks: one update for the differences; normal, align-ada,
    // align-zero and align-prop at the first step; two of normal that move the weights; fa and its twin;
    // align-zero three times. Within an update the head comes first, then the layers downwards.
    let skip = |update: usize, layer: usize| {
        let within = if layer == layers - 1 {
            0
        } else {
            layers - 1 - layer
        };
        Fault::WeightGradientSkipped(update * layers + within)
    };
    let faults = [
        (Fault::TransposedTooLarge, Gradient, "layers.2"),
        (Fault::PooledFeedbackTooLarge, Gradient, "layers.2"),
        (Fault::FeedbackTooLarge, Gradient, "layers.0"),
        (Fault::FeedbackTooLarge, Gradient, "layers.1"),
        (Fault::MeanKept, Gradient, "layers.1"),
        (Fault::ErrorTooLarge, Gradient, "head"),
        (Fault::LossTooLarge, Gradient, "head"),
        (Fault::WeightGradientTooLarge, Gradient, "layers.1"),
        (Fault::BiasGradientTooLarge, Gradient, "head"),
        (forgotten, Gradient, "layers.0"),
        (Fault::NotANumber, Gradient, "layers.0"),
        (Fault::GradientNotANumber, Gradient, "layers.2"),
        (Fault::LocalFeedbackTooLarge, FirstStep, "align-ada"),
        (skip(2, 1), FirstStep, "align-ada"),
        (skip(3, 0), FirstStep, "align-zero"),
        (skip(4, 2), FirstStep, "align-prop"),
        (Fault::NotANumber, FirstStep, "align-zero"),
        (Fault::UpdateIdle, Moved, "normal"),
        (skip(7, 2), FedBackThroughInitial, "fa"),
        (skip(8, 0), FedBackThroughInitial, "fa"),
        (skip(9, 0), Linear, "align-zero"),
        (skip(10, 1), Linear, "align-zero"),
        (skip(11, 3), Linear, "align-zero"),
        (Fault::NotANumber, Linear, "align-zero"),
    ];
    for norm in [Norm::Location, Norm::None] {
        let example = Example::conv(norm, Activation::Relu);
        for (fault, property, subject) in faults {
            let exact = Broken::new(Reference, fault);
            let findings = example.check(&cpu(), &exact, &RULES);
            let failed = failed(&findings);
            assert!(
                failed.contains(&(property, subject)),
                "{norm:?} {fault:?}: {property} of {subject} is not among {failed:?}"
            );
            if matches!(fault, Fault::WeightGradientSkipped(call) if call >= layers) {
                assert_eq!(failed, [(property, subject)], "{norm:?} {fault:?}");
            }
        }
    }
}

/// A rule that claims to live at the initial network but looks at the current one is not linear in the error.
#[test]
fn rules_that_look_at_the_current_network_are_not_linear() {
    let zero = Rule::named("align-zero").expect("a rule of the table");
    let current = Point::Current;
    let feedbacks = [
        (FeedbackWeights::Current, Point::Initial),
        (FeedbackWeights::Initial, current),
    ];
    for (weights, slopes) in feedbacks {
        let feedback = Feedback::Chain { weights, slopes };
        let rules = [Rule { feedback, ..zero }];
        let example = Example::conv(Norm::Location, Activation::Relu);
        let findings = example.check(&cpu(), &Reference, &rules);
        assert_eq!(failed(&findings), [(Property::Linear, "align-zero")]);
    }
}

/// 1,600 million multiply-adds and 65,536 terms in a sum are affordable, 4 samples always, more than the user's
/// minibatch never.
#[test]
fn the_minibatch_shrinks_with_the_network() {
    let network = |width| {
        let strides = vec![1, 1, 1, 2, 1, 2, 1];
        Network::new(NetworkSpec {
            input: ImageShape {
                height: 32,
                width: 32,
                channels: 3,
            },
            classes: 10,
            architecture: Architecture::Conv { strides },
            width,
            activation: Activation::Relu,
            norm: Norm::Location,
            parameterization: Parameterization::Ntk,
        })
        .expect("a valid network")
    };
    assert_eq!(check_batch(&network(16), 100), 64);
    assert_eq!(check_batch(&network(16), 50), 50);
    assert_eq!(check_batch(&network(16), 3), 3);
    let batch = check_batch(&network(64), 100);
    assert!((8..=32).contains(&batch), "{batch}");
    assert_eq!(check_batch(&network(512), 100), 4);
}

#[test]
fn bounds_read_as_they_judge() {
    assert_eq!(Bound::AtMost(1e-4).to_string(), "≤ 1e-4");
    assert_eq!(Bound::MoreThan(0.0).to_string(), "> 0");
    assert_eq!(Bound::Exactly(0.0).to_string(), "= 0");
    for bound in [
        Bound::AtMost(1.0),
        Bound::MoreThan(-1.0),
        Bound::Exactly(0.0),
    ] {
        assert!(bound.admits(0.0));
        assert!(!bound.admits(f64::NAN));
        assert!(!bound.admits(f64::INFINITY));
    }
    assert!(!Bound::MoreThan(0.0).admits(0.0));
    assert!(!Bound::Exactly(0.0).admits(f64::MIN_POSITIVE));
    assert!(!Bound::AtMost(1.0).admits(1.5));
}
