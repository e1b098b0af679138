//! Proof on the user's own network and data that every rule does what it says.
//!
//! Oracles: finite differences of the loss, identities between rules that hold exactly, and the
//! f64 reference for every kernel of the fast backend. Each [`Finding`] compares one measured number with a
//! bound; the bounds stand here, each with its reason. A number that is not finite fails every bound.

mod gradient;
mod host;
mod identities;
mod kernels;
mod measure;
mod training;

use crate::cohort::{Cohort, TrialSpec};
use crate::minibatch::Minibatch;
use crate::network::Network;
use crate::optim::Optimizer;
use crate::pass::{Pass, Weights, upload};
use crate::rng::LegacyRandom;
use crate::rule::Rule;
use sansprop_kernels::{Backend, Layer};
use std::fmt;

/// Central differences against the computed gradient, as a share of the gradient's root-mean-square component. At the
/// step that suits a layer best, curvature and f64 rounding leave less than 1e-6 in most, 3e-5 in the worst of fifty
/// thousand; a gradient that is wrong by 1 % leaves at least 1e-2.
const FINITE_DIFFERENCE: f64 = 1e-4;

/// Two f64 computations of the same update, relative to the whole update. Rounding leaves about 1e-15, times
/// the factor by which norms multiply the signal of units that hardly vary: 7e-12 in the worst of many networks.
const IDENTITY: f64 = 1e-10;

/// Two steps, of 1 % and 0.5 %, move the weights by 0.5 % to 1.5 %, and by less only where no gradient reaches the
/// larger layers. Below this the identities away from W⁽⁰⁾ would say little.
const MOVED: f64 = 1e-4;

/// Multiply-adds that one forward pass of the checks may take in naive f64. All checks together take as long as some
/// 50 such passes: half a minute.
const AFFORDABLE: usize = 1_600_000_000;

/// Fewest samples that the checks shrink a minibatch to: the statistics of the norms need some.
const FEWEST_SAMPLES: usize = 4;

/// Most samples, and most samples times locations of a layer. Longer sums lose digits in f32 without any fault of
/// a kernel, and a kernel's error of 1 % would have to be looked for below what they lose.
const MOST_SAMPLES: usize = 128;
const MOST_TERMS: usize = 1 << 16;

/// Noise added to every input value, as a share of the inputs' rms. Pixels that are the same in the whole
/// minibatch (the border of most digits) make units without variance: a norm multiplies signals by 1e3 there,
/// layer after layer, and what should cancel leaves rounding that no bound could tell from an error.
const NOISE: f64 = 0.01;

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// Backpropagation is the gradient of the loss.
    Gradient,
    /// At the first step, rules that feed back through W⁽⁰⁾ are backpropagation.
    FirstStep,
    /// The weights are away from W⁽⁰⁾ where the next two properties are looked at.
    Moved,
    /// Random feedback weights set to W⁽⁰⁾ give the rule that feeds back through W⁽⁰⁾.
    FedBackThroughInitial,
    /// A rule that lives at the initial network is linear in the error, wherever the weights are.
    Linear,
    /// The rule trains the layers that it should.
    Trained,
    /// The rule leaves all other layers alone.
    Untouched,
    /// The fast backend's loss is that of f64.
    Loss,
    /// A fast kernel computes what its formula says, on this network's shapes and values.
    Kernel,
}

impl Property {
    /// A short name, for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gradient => "gradient",
            Self::FirstStep => "first step",
            Self::Moved => "moved",
            Self::FedBackThroughInitial => "feedback := W⁽⁰⁾",
            Self::Linear => "linear",
            Self::Trained => "trained",
            Self::Untouched => "untouched",
            Self::Loss => "loss",
            Self::Kernel => "kernel",
        }
    }

    /// What is claimed and how the finding's deviation measures it, in one sentence.
    pub fn statement(self) -> &'static str {
        match self {
            Self::Gradient => {
                "backpropagation equals central differences of the loss in f64, as a share of the gradient's rms component"
            }
            Self::FirstStep => {
                "at the first step the update equals backpropagation's, relative to the whole update, in f64"
            }
            Self::Moved => {
                "two steps of backpropagation moved the weights away from W⁽⁰⁾, relative to their size"
            }
            Self::FedBackThroughInitial => {
                "with W⁽⁰⁾ as its feedback weights the rule equals the one that feeds back through W⁽⁰⁾, in f64"
            }
            Self::Linear => {
                "for a fixed minibatch the update is linear in the error, also after the weights have moved, in f64"
            }
            Self::Trained => {
                "two steps on the fast backend change every trained layer; the smallest relative change"
            }
            Self::Untouched => {
                "two steps on the fast backend leave every other layer exactly as it was; the largest relative change"
            }
            Self::Loss => "the first loss on the fast backend equals that in f64, relative",
            Self::Kernel => {
                "the fast backend's kernel equals the f64 reference on the same values, relative to the terms it sums"
            }
        }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a measured number must satisfy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// At most this.
    AtMost(f64),
    /// More than this.
    MoreThan(f64),
    /// This and nothing else.
    Exactly(f64),
}

impl Bound {
    /// Whether a finite `value` keeps to the bound.
    pub fn admits(self, value: f64) -> bool {
        value.is_finite()
            && match self {
                Self::AtMost(limit) => value <= limit,
                Self::MoreThan(limit) => value > limit,
                Self::Exactly(expected) => value == expected,
            }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, limit) = match self {
            Self::AtMost(limit) => ('≤', limit),
            Self::MoreThan(limit) => ('>', limit),
            Self::Exactly(limit) => ('=', limit),
        };
        if *limit == 0.0 {
            return f.pad(&format!("{sign} 0"));
        }
        // Three digits, fewer where they are zeros: some bounds are measured.
        let digits = format!("{limit:.2e}");
        let (digits, exponent) = digits.split_once('e').unwrap_or((&digits, "0"));
        let digits = digits.trim_end_matches('0').trim_end_matches('.');
        f.pad(&format!("{sign} {digits}e{exponent}"))
    }
}

/// One measured number and what it must satisfy.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What was looked at.
    pub property: Property,
    /// The rule, layer or kernel that it is about: `align-ada`, `layers.0`, `head`, `layers.2 forward`.
    pub subject: String,
    /// The measured number; NaN where an intermediate value was not finite.
    pub deviation: f64,
    /// What it must satisfy.
    pub bound: Bound,
    /// Whether it does.
    pub passed: bool,
}

impl Finding {
    fn new(property: Property, subject: impl Into<String>, deviation: f64, bound: Bound) -> Self {
        Self {
            property,
            subject: subject.into(),
            deviation,
            bound,
            passed: bound.admits(deviation),
        }
    }
}

/// What is checked: a network, rules, and one minibatch to check them on.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    /// The network.
    pub network: &'a Network,
    /// The rules; `normal` is the yardstick of several checks, whether or not it is among them.
    pub rules: &'a [Rule],
    /// Seed of the initial draw.
    pub seed: u32,
    /// Subtracted from the one-hot targets.
    pub target_shift: f64,
    /// The minibatch, `[location, batch, channel]`; [`check_batch`] says how large it should be.
    pub input: &'a [f32],
    /// Its labels, `[batch]`.
    pub labels: &'a [u32],
}

/// How many samples the checks use: the user's minibatch if naive f64 can afford it and f32 can sum over it
/// without losing digits, else fewer, at least 4.
///
/// All checks together then take about half a minute at most, except for networks that take longer on 4 samples. The
/// CIFAR-10 network is checked on 64 samples at width 16, on 15 or so at width 64.
pub fn check_batch(network: &Network, batch: usize) -> usize {
    let affordable = AFFORDABLE / network.multiply_adds(1).max(1);
    let locations = network.layers().iter().map(Layer::locations).max();
    let summable = MOST_TERMS / locations.unwrap_or(1);
    let most = affordable.min(summable).min(MOST_SAMPLES);
    batch.min(most.max(FEWEST_SAMPLES))
}

impl Check<'_> {
    /// Runs all checks and reports each finding as soon as it is known, always in the same order.
    ///
    /// The checks see the minibatch with 1 % of noise, so that none of its values is constant.
    ///
    /// `exact` is the f64 oracle, [`sansprop_kernels::Reference`]; `fast` the backend that trains.
    ///
    /// # Panics
    /// If `input` and `labels` do not fit the network.
    pub fn run<F: Backend, E: Backend>(
        &self,
        fast: &F,
        exact: &E,
        report: &mut dyn FnMut(Finding),
    ) {
        let (locations, channels) = self.network.input_panels();
        assert_eq!(
            self.input.len(),
            locations * self.labels.len() * channels,
            "the minibatch must hold [{locations}, {}, {channels}] values",
            self.labels.len()
        );
        let input = self.noisy_input();
        let check = &Check {
            input: &input,
            ..*self
        };
        gradient::finite_differences(check, exact, report);
        let rate = identities::first_step(check, exact, report);
        identities::away_from_start(check, exact, report);
        training::train_two_steps(check, fast, exact, rate, report);
        kernels::compare(check, fast, exact, report);
    }

    fn noisy_input(&self) -> Vec<f32> {
        let squares = self.input.iter().map(|x| f64::from(x * x));
        let rms = (squares.sum::<f64>() / self.input.len() as f64).sqrt();
        let deviation = NOISE * if rms > 0.0 { rms } else { 1.0 };
        let mut random = LegacyRandom::new(self.seed);
        let noisy = |x: &f32| (f64::from(*x) + deviation * random.normal()) as f32;
        self.input.iter().map(noisy).collect()
    }

    /// A cohort of one at its first step, which no earlier rule's gradient can help.
    fn cohort<'b, B: Backend>(
        &self,
        backend: &'b B,
        rule: &Rule,
        optimizer: Optimizer,
    ) -> Cohort<'b, B> {
        let rule = *rule;
        let mut cohort = Cohort::new(
            backend,
            self.network.clone(),
            self.seed,
            self.batch(),
            self.target_shift,
            &[TrialSpec { rule, optimizer }],
        );
        let (input, labels) = (self.input.to_vec(), self.labels.to_vec());
        cohort.load(&Minibatch::labelled(input, labels));
        cohort.run_initial(true);
        cohort
    }

    fn batch(&self) -> usize {
        self.labels.len()
    }

    fn layer_name(&self, layer: usize) -> String {
        if layer == self.network.hidden().len() {
            "head".into()
        } else {
            format!("layers.{layer}")
        }
    }
}

/// A network at some weights, run on the check's minibatch.
struct Snapshot<B: Backend> {
    weights: Weights<B>,
    input: B::Buffer,
    pass: Pass<B>,
    error: B::Buffer,
    loss: f64,
}

impl<B: Backend> Snapshot<B> {
    fn new(check: &Check<'_>, backend: &B, weights: Weights<B>) -> Self {
        let classes = check.network.spec().classes;
        let mut snapshot = Self {
            weights,
            input: upload(backend, check.input),
            pass: Pass::new(backend, check.network, check.batch()),
            error: backend.zeros(check.batch() * classes),
            loss: 0.0,
        };
        snapshot.run_from(0, check, backend);
        snapshot
    }

    /// Runs layer `first` and those above it again, and the loss.
    fn run_from(&mut self, first: usize, check: &Check<'_>, backend: &B) {
        self.pass.run_from(
            first,
            backend,
            check.network,
            &self.weights,
            check.batch(),
            &self.input,
        );
        let classes = check.network.spec().classes;
        let (output, error) = (self.pass.output(), &mut self.error);
        let report = backend.loss(check.labels, classes, check.target_shift, output, error);
        self.loss = report.loss;
    }
}
