//! What peers report of each layer: how well a rule's update points along the gradient, how far weights and kernels
//! have moved.

use crate::cohort::{Cohort, Room};
use crate::learn::FeedbackState;
use crate::model::Model;
use crate::network::Network;
use crate::pass::{Pass, Weights};
use crate::rule::{FeedbackWeights, Rule};
use sansprop_kernels::Backend;

/// What is to be looked at, once an epoch on its first minibatch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The rule's update against the true gradient: one extra backward pass.
    pub gradient: bool,
    /// Feedback weights, weight change and kernel drift: one extra forward pass of the initial network.
    pub drift: bool,
}

/// One layer of one trial, before an update.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LayerDiagnosis {
    /// Cosine of the angle between the rule's update and the gradient of the loss, weights only.
    pub gradient_cosine: Option<f64>,
    /// Norm of the rule's update over the norm of the gradient.
    pub gradient_norm_ratio: Option<f64>,
    /// Cosine of the angle between the forward weights and the feedback weights of this layer; none without a
    /// chain of feedback.
    pub feedback_cosine: Option<f64>,
    /// `‖W − W⁽⁰⁾‖ / ‖W⁽⁰⁾‖`.
    pub weight_change: Option<f64>,
    /// `‖K − K⁽⁰⁾‖_F / ‖K⁽⁰⁾‖_F` with K the Gram matrix of the layer's activations on the minibatch; for the
    /// head, of its outputs.
    pub kernel_drift: Option<f64>,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Cosine of the angle between two arrays; none where one of them is 0.
fn cosine(a: &[f64], b: &[f64]) -> Option<f64> {
    let size = (dot(a, a) * dot(b, b)).sqrt();
    (size > 0.0).then(|| dot(a, b) / size)
}

fn relative_change(now: &[f64], before: &[f64]) -> Option<f64> {
    let change: f64 = now.iter().zip(before).map(|(a, b)| (a - b).powi(2)).sum();
    let size = dot(before, before);
    (size > 0.0).then(|| (change / size).sqrt())
}

/// `K_bc = Σ_(location, channel) a_b a_c` of panels `[location, batch, channel]`.
fn gram(values: &[f64], batch: usize, channels: usize) -> Vec<f64> {
    let mut kernel = vec![0.0; batch * batch];
    for panel in values.chunks_exact(batch * channels) {
        for (b, row) in panel.chunks_exact(channels).enumerate() {
            for (c, other) in panel.chunks_exact(channels).enumerate().take(b + 1) {
                kernel[b * batch + c] += dot(row, other);
            }
        }
    }
    for b in 0..batch {
        for c in b + 1..batch {
            kernel[b * batch + c] = kernel[c * batch + b];
        }
    }
    kernel
}

impl<B: Backend> Cohort<'_, B> {
    /// From now on, the first minibatch of every epoch is looked at.
    ///
    /// # Panics
    /// If the network is recurrent.
    pub fn request_diagnosis(&mut self, request: Request) {
        assert!(
            self.model.feed_forward().is_some(),
            "layers are diagnosed in feed-forward networks"
        );
        self.diagnosis_request = request;
    }

    /// The layers as a trial's step found them, if this step was to be looked at; head last.
    pub fn diagnosis(&self) -> Option<&[LayerDiagnosis]> {
        self.diagnosis.as_deref()
    }

    /// Looks at all layers of a trial, from the pass and the error at hand. Leaves the trial's own update
    /// direction to be computed again.
    pub(crate) fn diagnose(&mut self, trial: usize) -> Vec<LayerDiagnosis> {
        let Model::FeedForward(network) = self.model.clone() else {
            unreachable!("only feed-forward networks are asked for");
        };
        let mut layers = vec![LayerDiagnosis::default(); network.layers().len()];
        if self.diagnosis_request.gradient {
            self.compare_gradients(trial, &mut layers);
        }
        if self.diagnosis_request.drift {
            self.measure_drift(trial, &network, &mut layers);
        }
        layers
    }

    fn compare_gradients(&mut self, trial: usize, layers: &mut [LayerDiagnosis]) {
        let normal = Rule::named("normal").expect("a row of the table");
        let read = |cohort: &Self| -> Vec<Vec<f64>> {
            let gradient = cohort.last_gradient();
            gradient
                .weight
                .iter()
                .map(|w| cohort.backend.read(w))
                .collect()
        };
        self.learn_with(trial, &normal);
        let gradient = read(self);
        self.learn(trial);
        let update = read(self);
        let rule = self.trials[trial].spec().rule;
        let hidden = layers.len() - 1;
        for (l, layer) in layers.iter_mut().enumerate() {
            // What the rule does not touch still holds the gradient: its update is 0.
            if l < hidden && !rule.trains_hidden_layers() {
                layer.gradient_norm_ratio = Some(0.0);
                continue;
            }
            layer.gradient_cosine = cosine(&update[l], &gradient[l]);
            let size = dot(&gradient[l], &gradient[l]);
            layer.gradient_norm_ratio =
                (size > 0.0).then(|| (dot(&update[l], &update[l]) / size).sqrt());
        }
    }

    fn measure_drift(&self, trial: usize, network: &Network, layers: &mut [LayerDiagnosis]) {
        let Room::FeedForward(room) = &self.room else {
            return;
        };
        let (backend, batch) = (self.backend, self.batch);
        let initial_draw = self.initial_weights_of(trial);
        let initial: Weights<B> = self.model.upload(backend, &initial_draw);
        let mut pass = Pass::new(backend, network, batch);
        room.run_from(backend, network, &initial, batch, &mut pass);
        let trial = &self.trials[trial];
        let rule = trial.spec().rule;
        for (l, layer) in layers.iter_mut().enumerate() {
            let now = backend.read(&trial.weights().weight[l]);
            let before = backend.read(&initial.weight[l]);
            layer.weight_change = relative_change(&now, &before);
            layer.feedback_cosine = match (rule.feedback_weights(), trial.feedback()) {
                (Some(FeedbackWeights::Current), _) => Some(1.0),
                (Some(FeedbackWeights::Initial), _) => cosine(&now, &before),
                (Some(FeedbackWeights::Random), FeedbackState::Random(random)) => {
                    cosine(&now, &backend.read(&random[l]))
                }
                (Some(FeedbackWeights::Sign), _) => {
                    let signs: Vec<f64> = now.iter().map(|w| w.signum()).collect();
                    cosine(&now, &signs)
                }
                (Some(FeedbackWeights::Random), _) | (None, _) => None,
            };
            let kernel = |pass: &Pass<B>| {
                let record = pass.hidden.get(l).unwrap_or(&pass.head);
                let shape = &network.layers()[l];
                let mut values = backend.read(&record.a);
                values.truncate(shape.locations() * batch * shape.outputs);
                gram(&values, batch, shape.outputs)
            };
            layer.kernel_drift = relative_change(&kernel(room.current()), &kernel(&pass));
        }
    }
}
