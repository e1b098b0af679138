//! From a config's `[run]` section to a backend, and a cohort trained on it with all its files.

use crate::cli::Failure;
use crate::config::{Plan, Precision};
use crate::progress::Progress;
use crate::run::{Environment, Recorder, RunFolder, TrialRecord, TrialResult};
use sansprop::cohort::Cohort;
use sansprop::rule::Rule;
use sansprop::train::train;
use sansprop_kernels::{Backend, CpuBackend, Reference};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A backend chosen at run time.
pub(crate) enum Machine {
    Cpu(CpuBackend),
    Reference(Reference),
}

impl Machine {
    /// The backend for a precision and a number of threads (0: one per core).
    pub(crate) fn new(precision: Precision, threads: usize) -> Result<Self, Failure> {
        Ok(match precision {
            Precision::F32 => Self::Cpu(CpuBackend::new(threads)?),
            Precision::F64 => Self::Reference(Reference),
        })
    }

    /// Device and precision in words, for the head of a table.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Cpu(backend) => format!("{}, {}", backend.device(), backend.precision()),
            Self::Reference(backend) => format!("{}, {}", backend.device(), backend.precision()),
        }
    }

    fn environment(&self, plan: &Plan) -> Environment {
        let parameters = plan.model.parameters();
        let source = plan.data.source();
        match self {
            Self::Cpu(b) => Environment::now(
                b.device(),
                b.instruction_set().to_string(),
                b.threads(),
                b.precision(),
                parameters,
                source,
            ),
            Self::Reference(b) => Environment::now(
                b.device(),
                "none".into(),
                1,
                b.precision(),
                parameters,
                source,
            ),
        }
    }

    /// Trains one cohort: a trial for each rule, all else as planned; each into its folder.
    pub(crate) fn train(
        &self,
        plan: &Plan,
        trials: &[(Rule, RunFolder)],
        stop: &Arc<AtomicBool>,
    ) -> Result<Vec<TrialResult>, Failure> {
        let environment = self.environment(plan);
        for (rule, folder) in trials {
            folder.describe(&plan.trial_config(*rule), &environment)?;
        }
        match self {
            Self::Cpu(backend) => train_on(backend, plan, trials, stop),
            Self::Reference(backend) => train_on(backend, plan, trials, stop),
        }
    }
}

fn train_on<B: Backend>(
    backend: &B,
    plan: &Plan,
    trials: &[(Rule, RunFolder)],
    stop: &Arc<AtomicBool>,
) -> Result<Vec<TrialResult>, Failure> {
    let split = plan.split()?;
    let schedule = plan.schedule();
    let specs: Vec<_> = trials.iter().map(|(rule, _)| plan.trial(*rule)).collect();
    let (seed, shift) = (plan.config.train.seed, plan.config.train.target_shift);
    let model = plan.model.clone();
    let mut cohort = Cohort::new(backend, model, seed, schedule.batch, shift, &specs);
    let mut records = Vec::new();
    for (i, (rule, folder)) in trials.iter().enumerate() {
        folder.save("initial.safetensors", &cohort.tensors(i), 0)?;
        records.push(TrialRecord::new(*rule, folder.clone())?);
    }
    let width = plan.config.network.width;
    let names = trials
        .iter()
        .map(|(rule, _)| format!("{rule} w{width}"))
        .collect();
    let progress = Progress::new(names, schedule.epochs, plan.total_steps());
    let log_steps = plan.config.run.log_steps;
    let chance = plan.chance_losses();
    let mut recorder = Recorder::new(records, progress, log_steps, chance, Arc::clone(stop));
    train(&mut cohort, &split, &schedule, &mut recorder);
    Ok(recorder.finish()?)
}

/// Becomes true at the first Ctrl-C; the second ends the process at once.
pub(crate) fn stop_on_interrupt() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(1);
        }
        eprintln!("stopping after this step and saving; press Ctrl-C again to stop at once");
    })
    .map_err(|e| Failure::Failed(format!("cannot catch Ctrl-C: {e}")))?;
    Ok(stop)
}

/// The folder of one trial below `out`.
pub(crate) fn run_folder(
    plan: &Plan,
    rule: Rule,
    out: &Path,
    replace: bool,
) -> Result<RunFolder, Failure> {
    let path = out.join(plan.trial_config(rule).run_name());
    Ok(RunFolder::create(&path, replace)?)
}
