//! The child's side: steps of one rule at one width, timed one by one in the training loop itself.

use super::host::peak_memory;
use crate::cli::Failure;
use crate::config::{Config, Plan};
use crate::machine::Machine;
use crate::sweep::trials::DataSets;
use sansprop::cohort::Cohort;
use sansprop::rule::Rule;
use sansprop::train::{Event, Observer, Schedule, train};
use sansprop_kernels::Backend;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::time::Instant;

/// What became of one rule at one width.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// All steps were timed.
    Measured {
        /// Seconds of each timed step, for each trial.
        seconds: Vec<Vec<f64>>,
        /// Kernels that a step starts on a device; none where a kernel is a call.
        launches: Option<u64>,
        /// The most memory that the process had resident, data included.
        peak_memory_bytes: Option<u64>,
    },
    /// A loss was not finite.
    Diverged(String),
    /// Something else went wrong.
    Failed(String),
}

/// The seeds of so many trials: the config's own and those that follow it.
pub(crate) fn seeds(config: &Config, trials: u16) -> impl Iterator<Item = u32> {
    let first = config.train.seed;
    (0..u32::from(trials)).map(move |i| first.wrapping_add(i))
}

/// Times `steps` steps of each of so many trials, each after one step that is not timed.
///
/// # Errors
/// A config that cannot run on its data.
pub(crate) fn measure(
    config: &Config,
    rule: Rule,
    steps: u16,
    trials: u16,
) -> Result<Outcome, Failure> {
    let machine = Machine::new(&config.run, config.run.threads)?;
    let mut sets = DataSets::default();
    let mut seconds = Vec::new();
    let mut launches = None;
    for seed in seeds(config, trials) {
        let mut config = config.clone();
        config.train.seed = seed;
        let data = sets.of(&config)?;
        let plan = Plan::with_data(config, data)?;
        let timed = match &machine {
            Machine::Cpu(backend) => timed(backend, &plan, rule, steps),
            Machine::Reference(backend) => timed(backend, &plan, rule, steps),
            Machine::Wgpu(backend) => timed(backend, &plan, rule, steps),
            Machine::Cuda(backend) => timed(backend, &plan, rule, steps),
        }?;
        if let Some(step) = timed.diverged {
            return Ok(Outcome::Diverged(format!(
                "loss not finite in step {} of seed {seed}; a smaller train.lr may help",
                step + 1
            )));
        }
        launches = timed.launches;
        // The first step touches memory and starts threads.
        seconds.push(timed.seconds[1..].to_vec());
    }
    Ok(Outcome::Measured {
        seconds,
        launches,
        peak_memory_bytes: peak_memory(),
    })
}

fn timed<B: Backend>(backend: &B, plan: &Plan, rule: Rule, steps: u16) -> Result<Timed, Failure> {
    let split = plan.split()?;
    let train_config = &plan.config.train;
    let mut watch = Stopwatch {
        backend,
        launched: None,
        wanted: usize::from(steps) + 1,
        since: Instant::now(),
        timed: Timed::default(),
    };
    let schedule = Schedule {
        epochs: watch.wanted.div_ceil(plan.steps_per_epoch()),
        max_steps: None,
        // The watch stops the run before the evaluation at its end.
        eval_every: usize::MAX,
        ..plan.schedule()
    };
    let (seed, shift) = (train_config.seed, train_config.target_shift);
    let trial = [plan.trial(rule)];
    let model = plan.model.clone();
    let mut cohort = Cohort::new(backend, model, seed, schedule.batch, shift, &trial);
    train(&mut cohort, &split, &schedule, &mut watch);
    Ok(watch.timed)
}

/// What a stopwatch saw.
#[derive(Default)]
struct Timed {
    /// Of each step.
    seconds: Vec<f64>,
    /// Kernels that the last step started on a device.
    launches: Option<u64>,
    /// The step, counted from 0, whose loss was not finite.
    diverged: Option<u64>,
}

/// Times whole steps of a single trial, from gathering the minibatch to the update, and stops after enough of them.
struct Stopwatch<'a, B> {
    backend: &'a B,
    /// Kernels started before the step at hand.
    launched: Option<u64>,
    wanted: usize,
    /// When the step at hand began.
    since: Instant,
    timed: Timed,
}

impl<B: Backend> Observer<B> for Stopwatch<'_, B> {
    fn observe(&mut self, event: &Event, _: &Cohort<'_, B>) -> ControlFlow<()> {
        match event {
            Event::EpochStarted { .. } | Event::Resumable(_) => self.since = Instant::now(),
            Event::Step { step, score, .. } => {
                self.timed.seconds.push(self.since.elapsed().as_secs_f64());
                let launched = self.backend.launches();
                let before = self.launched.or(launched);
                self.timed.launches = launched.zip(before).map(|(now, before)| now - before);
                self.launched = launched;
                if !score.loss.is_finite() {
                    self.timed.diverged = Some(*step);
                }
                if self.timed.diverged.is_some() || self.timed.seconds.len() == self.wanted {
                    return ControlFlow::Break(());
                }
            }
            Event::Loaded
            | Event::InitialPass { .. }
            | Event::Together { .. }
            | Event::Evaluated { .. }
            | Event::EpochEnded { .. }
            | Event::Ended { .. } => {}
        }
        ControlFlow::Continue(())
    }
}
