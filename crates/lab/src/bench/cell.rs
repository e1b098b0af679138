//! The child's side: steps of one trial, timed one by one in the training loop itself.

use super::host::peak_memory;
use crate::cli::Failure;
use crate::config::{Config, Plan};
use crate::machine::Machine;
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
        /// The most memory that a trial's process had resident, data included.
        peak_memory_bytes: Option<u64>,
    },
    /// A loss was not finite.
    Diverged(String),
    /// Something else went wrong.
    Failed(String),
}

impl Outcome {
    /// The outcome of some trials, with that of one more; what went wrong in any goes for all.
    pub(crate) fn with(self, trial: Self) -> Self {
        match (self, trial) {
            (
                Self::Measured {
                    mut seconds,
                    launches,
                    peak_memory_bytes,
                },
                Self::Measured {
                    seconds: more,
                    peak_memory_bytes: peak,
                    ..
                },
            ) => {
                seconds.extend(more);
                Self::Measured {
                    seconds,
                    launches,
                    peak_memory_bytes: peak_memory_bytes.max(peak),
                }
            }
            (Self::Measured { .. }, wrong) | (wrong, _) => wrong,
        }
    }
}

/// The seeds of so many trials: the config's own and those that follow it.
pub(crate) fn seeds(config: &Config, trials: u16) -> impl Iterator<Item = u32> {
    let first = config.train.seed;
    (0..u32::from(trials)).map(move |i| first.wrapping_add(i))
}

/// How much is timed.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// Timed steps.
    pub(crate) steps: u16,
    /// Trials at once.
    pub(crate) cohort: u16,
}

/// Times steps of one trial, after one step that is not timed.
///
/// # Errors
/// A config that cannot run on its data.
pub(crate) fn measure(config: Config, rule: Rule, extent: Extent) -> Result<Outcome, Failure> {
    let machine = Machine::new(&config.run, config.run.threads)?;
    let seed = config.train.seed;
    let plan = Plan::new(config)?;
    let timed = match &machine {
        Machine::Cpu(backend) => timed(backend, &plan, rule, extent),
        Machine::Reference(backend) => timed(backend, &plan, rule, extent),
        Machine::Gpu(backend) => timed(&**backend, &plan, rule, extent),
    }?;
    if let Some(step) = timed.diverged {
        return Ok(Outcome::Diverged(format!(
            "loss not finite in step {} of seed {seed}; a smaller train.lr may help",
            step + 1
        )));
    }
    Ok(Outcome::Measured {
        // The first step touches memory, starts threads and compiles kernels.
        seconds: vec![timed.seconds[1..].to_vec()],
        launches: timed.launches,
        peak_memory_bytes: peak_memory(),
    })
}

fn timed<B: Backend>(
    backend: &B,
    plan: &Plan,
    rule: Rule,
    Extent { steps, cohort }: Extent,
) -> Result<Timed, Failure> {
    let split = plan.split()?;
    let train_config = &plan.config.train;
    let mut watch = Stopwatch {
        backend,
        launched: backend.launches(),
        wanted: usize::from(steps) + 1,
        cohort: usize::from(cohort),
        window: 0,
        since: Instant::now(),
        timed: Timed::default(),
    };
    let schedule = Schedule {
        epochs: watch.wanted.div_ceil(plan.steps_per_epoch()),
        max_steps: Some(watch.wanted as u64),
        // The watch stops the run before the evaluation at its end.
        eval_every: usize::MAX,
        ..plan.schedule()
    };
    let (seed, shift) = (train_config.seed, train_config.target_shift);
    let trials = vec![plan.trial(rule); usize::from(cohort)];
    let model = plan.model.clone();
    let mut company = Cohort::new(backend, model, seed, schedule.batch, shift, &trials);
    // A device trains without the host, as in `train`; a CPU's trial has all threads.
    if cohort > 1 || backend.resident().is_some() {
        company.spread();
    }
    train(&mut company, &split, &schedule, &mut watch);
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

/// Times whole steps, from gathering the minibatch to the update, and stops after enough of them. Where a device takes
/// several minibatches before the host looks, each step's time is its share.
struct Stopwatch<'a, B> {
    backend: &'a B,
    /// Kernels started before the steps at hand.
    launched: Option<u64>,
    wanted: usize,
    /// Trials at once.
    cohort: usize,
    /// Steps since `since`.
    window: usize,
    /// When the steps at hand began.
    since: Instant,
    timed: Timed,
}

impl<B: Backend> Stopwatch<'_, B> {
    fn begin(&mut self) {
        self.since = Instant::now();
        self.launched = self.backend.launches();
        self.window = 0;
    }

    /// The steps since the beginning are over.
    fn lap(&mut self) {
        let seconds = self.since.elapsed().as_secs_f64() / (self.window * self.cohort) as f64;
        self.timed.seconds.extend(vec![seconds; self.window]);
        let launched = self.backend.launches().zip(self.launched);
        self.timed.launches = launched.map(|(now, before)| (now - before) / self.window as u64);
    }
}

impl<B: Backend> Observer<B> for Stopwatch<'_, B> {
    fn observe(&mut self, event: &Event, _: &Cohort<'_, B>) -> ControlFlow<()> {
        match event {
            Event::EpochStarted { .. } => self.begin(),
            Event::Step {
                trial: 0,
                step,
                score,
                ..
            } => {
                self.window += 1;
                if !score.loss.is_finite() {
                    self.timed.diverged = Some(*step);
                    return ControlFlow::Break(());
                }
            }
            Event::Resumable(position) if position.step > 0 => {
                self.lap();
                if self.timed.seconds.len() >= self.wanted {
                    return ControlFlow::Break(());
                }
                self.begin();
            }
            Event::Loaded
            | Event::InitialPass { .. }
            | Event::Together { .. }
            | Event::Step { .. }
            | Event::Resumable(_)
            | Event::Evaluated { .. }
            | Event::EpochEnded { .. }
            | Event::Ended { .. } => {}
        }
        ControlFlow::Continue(())
    }
}
