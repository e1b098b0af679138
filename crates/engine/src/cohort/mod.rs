//! Cohorts: trials in lockstep on one network, seed and data order.
//!
//! Trials of a cohort differ in rule and optimiser. They share each minibatch and, where a rule asks for it,
//! the initial network's forward pass on it, which is computed once for all of them. A trial's numbers are
//! bitwise the same alone and in company: the kernels see the same operands in the same order.

mod trial;

pub use trial::{NamedTensor, Status, Trial, TrialSpec};

use crate::companion::Companion;
use crate::diagnosis::{LayerDiagnosis, Request};
use crate::init::FeedbackDraw;
use crate::lanes::Lanes;
use crate::minibatch::{Minibatch, Targets};
use crate::model::Model;
use crate::pass::Weights;
use crate::recurrent::RecurrentRoom;
use crate::resident::Windows;
use crate::room::{FeedForwardRoom, Wanted};
use crate::rule::{Feedback, Rule};
use crate::update::Common;
use sansprop_kernels::Backend;
use std::mem;

/// Loss and hits of one trial on one minibatch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// The loss: mean over batch and classes, or summed over steps.
    pub loss: f64,
    /// Samples whose largest output stands at their label; none for sequences.
    pub correct: Option<usize>,
}

/// Trials in lockstep. See the module's text.
pub struct Cohort<'b, B: Backend> {
    pub(crate) backend: &'b B,
    pub(crate) model: Model,
    pub(crate) seed: u32,
    pub(crate) trials: Vec<Trial<B>>,
    pub(crate) companions: Vec<Companion<B>>,
    /// W⁽⁰⁾ of the trials that look at it; these all start from the same draw.
    pub(crate) initial_weights: Option<Weights<B>>,
    target_shift: f64,
    /// Most samples of a minibatch.
    pub(crate) most: usize,
    /// Samples of the loaded minibatch.
    pub(crate) batch: usize,
    pub(crate) samples: Vec<usize>,
    targets: Targets,
    pub(crate) room: Room<B>,
    /// Whether the initial network has run on the loaded minibatch.
    initial_ran: bool,
    /// The trials that it last ran for.
    initial_for: Vec<usize>,
    /// Whether trials may step side by side or out of the host's sight.
    pub(crate) spread_wanted: bool,
    /// For a device that takes windows of minibatches by itself.
    pub(crate) windows: Option<Windows<B>>,
    /// Rooms for trials side by side; none where they step one after the other.
    pub(crate) lanes: Option<Lanes<B>>,
    pub(crate) diagnosis_request: Request,
    /// Whether the steps on the loaded minibatch are to be looked at.
    diagnose_here: bool,
    pub(crate) diagnosis: Option<Vec<LayerDiagnosis>>,
}

/// A cohort taken apart, so that trials can change while they look at what is common.
pub(crate) struct Parts<'a, B: Backend> {
    pub(crate) room: &'a mut Room<B>,
    pub(crate) lanes: Option<&'a mut Lanes<B>>,
    pub(crate) trials: &'a mut Vec<Trial<B>>,
    pub(crate) common: Common<'a, B>,
}

/// Whether trials whose hidden layers never change are to use the initial network's pass: where it runs anyway, or
/// where it serves several of them. Such trials start from the draw that W⁽⁰⁾ is.
pub fn shares_hidden_pass(model: &Model, specs: &[TrialSpec]) -> bool {
    let frozen = |spec: &&TrialSpec| spec.rule.feedback == Feedback::Off;
    let frozen = specs.iter().filter(frozen).count();
    let others = specs.iter().any(|spec| spec.rule.needs_initial_pass());
    model.feed_forward().is_some() && (frozen > 1 || frozen == 1 && others)
}

/// Working memory, as the model's kind needs it.
pub(crate) enum Room<B: Backend> {
    FeedForward(Box<FeedForwardRoom<B>>),
    Recurrent(Box<RecurrentRoom<B>>),
}

impl<B: Backend> Room<B> {
    pub(crate) fn new(backend: &B, model: &Model, batch: usize, initial_pass: bool) -> Self {
        match model {
            Model::FeedForward(network) => {
                let room = FeedForwardRoom::new(backend, network, batch, initial_pass);
                Self::FeedForward(Box::new(room))
            }
            Model::Recurrent(network) => {
                let room = RecurrentRoom::new(backend, network, initial_pass);
                Self::Recurrent(Box::new(room))
            }
        }
    }
}

impl<'b, B: Backend> Cohort<'b, B> {
    /// Draws every trial's initial state from `seed` and makes room for minibatches of up to `batch` samples.
    ///
    /// `target_shift` is subtracted from one-hot targets (the paper's: 0.1); sequences ignore it.
    ///
    /// # Panics
    /// If a rule looks at W⁽⁰⁾ and draws feedback weights between the layers' weights: no row of the table does.
    pub fn new(
        backend: &'b B,
        model: impl Into<Model>,
        seed: u32,
        batch: usize,
        target_shift: f64,
        specs: &[TrialSpec],
    ) -> Self {
        let model = model.into();
        // One W⁽⁰⁾ serves all trials that look at it, which holds only if they start from the same draw.
        for TrialSpec { rule, .. } in specs {
            assert!(
                !rule.needs_initial_weights() || FeedbackDraw::of(rule) == FeedbackDraw::None,
                "{rule} looks at W⁽⁰⁾ and draws feedback weights between the layers'"
            );
        }
        let mut trials: Vec<Trial<B>> = specs
            .iter()
            .map(|&spec| Trial::new(backend, &model, seed, spec))
            .collect();
        let needs = |f: fn(&Rule) -> bool| specs.iter().any(|spec| f(&spec.rule));
        let freeze = shares_hidden_pass(&model, specs);
        for trial in &mut trials {
            trial.frozen = freeze && trial.spec().rule.feedback == Feedback::Off;
        }
        let initial_weights = (freeze || needs(Rule::needs_initial_weights)).then(|| {
            let drawn = model.draw(seed, FeedbackDraw::None);
            model.upload(backend, &drawn.weights)
        });
        let initial_pass = freeze || needs(Rule::needs_initial_pass);
        let room = Room::new(backend, &model, batch, initial_pass);
        Self {
            backend,
            most: match &model {
                Model::FeedForward(_) => batch,
                Model::Recurrent(network) => network.batch(),
            },
            model,
            seed,
            trials,
            companions: Vec::new(),
            initial_weights,
            target_shift,
            batch: 0,
            samples: Vec::new(),
            targets: Targets::Labels(Vec::new()),
            room,
            initial_ran: false,
            initial_for: Vec::new(),
            spread_wanted: false,
            windows: None,
            lanes: None,
            diagnosis_request: Request::default(),
            diagnose_here: false,
            diagnosis: None,
        }
    }

    /// The trials, in the order of their specs.
    pub fn trials(&self) -> &[Trial<B>] {
        &self.trials
    }

    /// The network's shape.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The machine.
    pub fn backend(&self) -> &'b B {
        self.backend
    }

    /// Whether any trial still trains.
    pub fn running(&self) -> bool {
        self.trials.iter().any(|t| t.status == Status::Running)
    }

    pub(crate) fn trial_mut(&mut self, trial: usize) -> &mut Trial<B> {
        &mut self.trials[trial]
    }

    pub(crate) fn set_status(&mut self, trial: usize, status: Status) {
        self.trials[trial].status = status;
    }

    /// Says whether the steps that follow are on an epoch's first minibatch.
    pub(crate) fn first_of_epoch(&mut self, first: bool) {
        self.diagnose_here = first && self.diagnosis_request != Request::default();
    }

    /// Loads a minibatch for all trials.
    ///
    /// # Panics
    /// If the minibatch is larger than the cohort has room for.
    pub fn load(&mut self, minibatch: &Minibatch) {
        assert!(
            minibatch.batch <= self.most,
            "a minibatch of {} samples in a cohort with room for {}",
            minibatch.batch,
            self.most
        );
        self.batch = minibatch.batch;
        self.samples.clone_from(&minibatch.samples);
        self.targets.clone_from(&minibatch.targets);
        self.initial_ran = false;
        self.room.load(self.backend, minibatch);
        if let Some(lanes) = &mut self.lanes {
            lanes.load(minibatch);
        }
    }

    /// Runs the initial network on the loaded minibatch, if running trials look at it and can share it; returns
    /// these trials. Trials whose hidden layers never change look at it in training and in evaluation, the align
    /// rules only where they learn.
    pub fn run_initial(&mut self, learning: bool) -> &[usize] {
        let mut wanting = mem::take(&mut self.initial_for);
        wanting.clear();
        let (lends, observed) = (self.lends_hidden(), !self.steps_unseen());
        let wants = |i: usize, t: &Trial<B>| {
            let learns = t.spec().rule.needs_initial_pass() || self.companion_shares_initial(i);
            t.running() && (learning && learns || lends && t.frozen)
        };
        let trials = self.trials.iter().enumerate();
        wanting.extend(trials.filter(|(i, t)| wants(*i, t)).map(|(i, _)| i));
        match (&mut self.room, &self.model, &self.initial_weights) {
            (Room::FeedForward(room), Model::FeedForward(network), Some(weights))
                if !wanting.is_empty() =>
            {
                let wants = |&i: &usize| Wanted::of_initial(&self.trials[i].spec().rule);
                let most = wanting.iter().map(wants).max().filter(|_| learning);
                let wanted = Wanted::pass_if(observed).max(most.unwrap_or(Wanted::Output));
                room.run_initial(self.backend, network, weights, self.batch, wanted);
                self.initial_ran = true;
            }
            _ => wanting.clear(),
        }
        self.initial_for = wanting;
        &self.initial_for
    }

    /// A room for one trial beside others. In a feed-forward cohort the initial network's pass is in the common room; a
    /// recurrent one is each trial's own.
    pub(crate) fn own_room(&self, backend: &B) -> Room<B> {
        let initial = match &self.model {
            Model::FeedForward(_) => false,
            Model::Recurrent(_) => self.initial_weights.is_some(),
        };
        Room::new(backend, &self.model, self.most, initial)
    }

    /// The minibatch is another one: the initial network has not run on it.
    pub(crate) fn forget_initial(&mut self) {
        self.initial_ran = false;
    }

    /// Whether nobody looks at single steps: neither a companion nor a diagnosis.
    pub(crate) fn steps_unseen(&self) -> bool {
        self.companions.is_empty() && self.diagnosis_request == Request::default()
    }

    /// Whether frozen trials may use the initial network's pass: a diagnosis wants every trial's own.
    fn lends_hidden(&self) -> bool {
        self.diagnosis_request == Request::default()
    }

    /// The room and all that trials have in common on the loaded minibatch.
    pub(crate) fn parts(&mut self) -> Parts<'_, B> {
        let lends_hidden = self.initial_ran && self.lends_hidden();
        let observed = !self.steps_unseen();
        Parts {
            room: &mut self.room,
            lanes: self.lanes.as_mut(),
            trials: &mut self.trials,
            common: Common {
                model: &self.model,
                initial_weights: self.initial_weights.as_ref(),
                initial_pass: None,
                targets: &self.targets,
                target_shift: self.target_shift,
                batch: self.batch,
                lends_hidden,
                observed,
            },
        }
    }

    /// One trial's forward pass and loss on the loaded minibatch, without learning.
    ///
    /// # Panics
    /// If the minibatch is not of the model's kind, images with labels or sequences with values.
    pub fn evaluate(&mut self, trial: usize) -> Report {
        self.evaluate_to(trial, false)
    }

    /// The same, to learn from or only to evaluate.
    fn evaluate_to(&mut self, trial: usize, learning: bool) -> Report {
        let backend = self.backend;
        let parts = self.parts();
        parts
            .room
            .evaluate(backend, &parts.trials[trial], &parts.common, learning)
    }

    /// One trial's update on the loaded minibatch; the report is of the loss before it. Where that loss is not
    /// finite the weights stay as they are.
    ///
    /// [`run_initial`](Self::run_initial) must have run on this minibatch.
    pub fn step(&mut self, trial: usize) -> Report {
        let report = self.evaluate_to(trial, true);
        self.diagnosis = None;
        if report.loss.is_finite() {
            self.step_companion(trial);
            if self.diagnose_here {
                self.diagnosis = Some(self.diagnose(trial));
            }
            self.learn(trial);
            let gradient = self.room.gradient();
            self.trials[trial].apply(self.backend, gradient);
        }
        report
    }

    /// Computes one trial's update direction from the passes and the error at hand.
    pub(crate) fn learn(&mut self, trial: usize) {
        let rule = self.trials[trial].spec().rule;
        self.learn_with(trial, &rule);
    }

    /// The same by another rule that needs no more than the trial's own does.
    pub(crate) fn learn_with(&mut self, trial: usize, rule: &Rule) {
        let backend = self.backend;
        let parts = self.parts();
        parts
            .room
            .learn(backend, &parts.trials[trial], rule, &parts.common);
    }

    /// The update direction that one trial's last step used, for the tensors that its rule trains.
    pub fn last_gradient(&self) -> &Weights<B> {
        self.room.gradient()
    }

    /// Everything that makes up a trial's network: weights, biases, and the rule's own feedback weights.
    pub fn tensors(&self, trial: usize) -> Vec<NamedTensor> {
        self.trials[trial].tensors(self.backend, &self.model)
    }
}
