//! Working memory of a feed-forward cohort, and what is done in it.

use crate::cohort::Report;
use crate::learn::{FeedbackState, Inputs, Scratch, update_direction};
use crate::network::Network;
use crate::pass::{Pass, Weights};
use crate::rule::{Point, Rule};
use sansprop_kernels::Backend;

/// Whose pass the hidden layers of a student made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hidden {
    /// Its own.
    Own,
    /// The initial network's: the student's hidden layers are those of W⁽⁰⁾.
    Initial,
}

/// What a forward pass is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wanted {
    /// The outputs, and the head's input.
    Output,
    /// These, and every layer's z and inverse deviation.
    Slopes,
    /// What every layer leaves behind.
    Pass,
}

impl Wanted {
    /// A whole pass if somebody looks at one.
    pub(crate) fn pass_if(looked_at: bool) -> Self {
        if looked_at { Self::Pass } else { Self::Output }
    }

    /// What a rule wants of the initial network's pass.
    pub(crate) fn of_initial(rule: &Rule) -> Self {
        match (rule.local, rule.needs_initial_pass()) {
            (Point::Initial, _) => Self::Pass,
            (Point::Current, true) => Self::Slopes,
            (Point::Current, false) => Self::Output,
        }
    }

    fn run<B: Backend>(
        self,
        pass: &mut Pass<B>,
        backend: &B,
        network: &Network,
        weights: &Weights<B>,
        batch: usize,
        input: &B::Buffer,
    ) {
        match self {
            Self::Pass => pass.run(backend, network, weights, batch, input),
            Self::Slopes => pass.run_for_slopes(backend, network, weights, batch, input),
            Self::Output => pass.run_for_output(backend, network, weights, batch, input),
        }
    }
}

/// What holds where [`Hidden::Initial`] is asked for.
const INITIAL: &str = "the initial network's pass is at hand";

/// Who learns: what an update is computed for, beside the minibatch and the passes in the room.
pub(crate) struct Student<'a, B: Backend> {
    pub rule: &'a Rule,
    pub weights: &'a Weights<B>,
    /// W⁽⁰⁾, for rules that need it.
    pub initial_weights: Option<&'a Weights<B>>,
    /// Feedback weights of the rule's own.
    pub feedback: &'a FeedbackState<B>,
    pub hidden: Hidden,
}

/// Working memory for minibatches of up to so many samples.
pub(crate) struct FeedForwardRoom<B: Backend> {
    input: B::Buffer,
    current: Pass<B>,
    initial: Option<Pass<B>>,
    error: B::Buffer,
    scratch: Scratch<B>,
    pub(crate) gradient: Weights<B>,
}

impl<B: Backend> FeedForwardRoom<B> {
    pub(crate) fn new(backend: &B, network: &Network, batch: usize, initial_pass: bool) -> Self {
        let (locations, channels) = network.input_panels();
        Self {
            input: backend.zeros(locations * batch * channels),
            current: Pass::new(backend, network, batch),
            initial: initial_pass.then(|| Pass::new(backend, network, batch)),
            error: backend.zeros(batch * network.spec().classes),
            scratch: Scratch::new(backend, network, batch),
            gradient: Weights::zeros(backend, network),
        }
    }

    pub(crate) fn load(&mut self, backend: &B, input: &[f32]) {
        backend.write_f32(input, &mut self.input);
    }

    /// Runs the initial network on the loaded minibatch.
    pub(crate) fn run_initial(
        &mut self,
        backend: &B,
        network: &Network,
        initial_weights: &Weights<B>,
        batch: usize,
        wanted: Wanted,
    ) {
        if let Some(pass) = &mut self.initial {
            wanted.run(pass, backend, network, initial_weights, batch, &self.input);
        }
    }

    /// Runs weights on the loaded minibatch into a pass of their own.
    pub(crate) fn run_from(
        &self,
        backend: &B,
        network: &Network,
        weights: &Weights<B>,
        batch: usize,
        pass: &mut Pass<B>,
    ) {
        pass.run(backend, network, weights, batch, &self.input);
    }

    /// Makes room for the initial network's pass.
    pub(crate) fn add_initial(&mut self, backend: &B, network: &Network, batch: usize) {
        self.initial
            .get_or_insert_with(|| Pass::new(backend, network, batch));
    }

    /// The initial network's pass, if there is room for one.
    pub(crate) fn initial(&self) -> Option<&Pass<B>> {
        self.initial.as_ref()
    }

    /// The pass of the last evaluation.
    pub(crate) fn current(&self) -> &Pass<B> {
        &self.current
    }

    /// The errors of the last evaluation, `[batch, class]`.
    pub(crate) fn error(&self) -> &B::Buffer {
        &self.error
    }

    /// Replaces the errors, for an update driven by errors from elsewhere.
    pub(crate) fn set_error(&mut self, backend: &B, error: &[f64]) {
        backend.write(error, &mut self.error);
    }

    pub(crate) fn input_mut(&mut self) -> &mut B::Buffer {
        &mut self.input
    }

    /// Outputs, and where their errors go.
    pub(crate) fn outcome(&mut self) -> (&B::Buffer, &mut B::Buffer) {
        (self.current.output(), &mut self.error)
    }

    /// Forward pass on the loaded minibatch.
    pub(crate) fn run(
        &mut self,
        backend: &B,
        network: &Network,
        weights: &Weights<B>,
        batch: usize,
        wanted: Wanted,
    ) {
        let (pass, input) = (&mut self.current, &self.input);
        wanted.run(pass, backend, network, weights, batch, input);
    }

    /// As [`run`](Self::run) for weights that differ from W⁽⁰⁾ in the head only: the hidden layers' pass is the
    /// initial network's.
    pub(crate) fn run_head(
        &mut self,
        backend: &B,
        network: &Network,
        weights: &Weights<B>,
        initial_pass: Option<&Pass<B>>,
        batch: usize,
    ) {
        let hidden = initial_pass.or(self.initial.as_ref()).expect(INITIAL);
        self.current
            .run_head_on(hidden, backend, network, weights, batch);
    }

    /// Loss and error of the outputs at hand.
    pub(crate) fn judge(
        &mut self,
        backend: &B,
        network: &Network,
        labels: &[u32],
        target_shift: f64,
    ) -> Report {
        let report = backend.loss(
            labels,
            network.spec().classes,
            target_shift,
            self.current.output(),
            &mut self.error,
        );
        Report {
            loss: report.loss,
            correct: Some(report.correct),
        }
    }

    /// Computes one trial's update direction from the passes and the error at hand; `initial_pass` takes the
    /// place of the room's own.
    pub(crate) fn learn(
        &mut self,
        backend: &B,
        network: &Network,
        student: &Student<'_, B>,
        initial_pass: Option<&Pass<B>>,
        batch: usize,
    ) {
        let initial = initial_pass.or(self.initial.as_ref());
        let current = match student.hidden {
            Hidden::Own => &self.current,
            Hidden::Initial => initial.expect(INITIAL),
        };
        let inputs = Inputs {
            network,
            batch,
            input: &self.input,
            error: &self.error,
            weights: student.weights,
            current,
            initial_weights: student.initial_weights,
            initial,
            feedback: student.feedback,
        };
        update_direction(
            backend,
            student.rule,
            &inputs,
            &mut self.scratch,
            &mut self.gradient,
        );
    }
}
