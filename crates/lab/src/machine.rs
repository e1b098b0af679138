//! From a config's `[run]` section to a backend, and a cohort trained on it with all its files.

use crate::align::{Aligned, Options, Scores};
use crate::cli::Failure;
use crate::config::{Config, Plan, Precision, Run};
use crate::device::Device;
use crate::progress::{Line, Progress, Screen};
use crate::run::{
    Checkpoint, Environment, LayerRecord, Lock, Policy, Recorder, RunError, RunFolder, TrialRecord,
    TrialResult,
};
use sansprop::checkpoint::Position;
use sansprop::cohort::Cohort;
use sansprop::diagnosis::Request;
use sansprop::model::Model;
use sansprop::rule::Rule;
use sansprop::train::train_from;
use sansprop_kernels::{Backend, Ceilings, CpuBackend, GpuBackend, Operands, Reference};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A backend chosen at run time.
pub(crate) enum Machine {
    Cpu(CpuBackend),
    Reference(Reference),
    Gpu(Box<GpuBackend>),
}

impl Machine {
    /// The backend that a config's `[run]` asks for, on so many threads of the CPU (0: one per core).
    pub(crate) fn new(run: &Run, threads: usize) -> Result<Self, Failure> {
        if let Device::Gpu { api, index } = run.device {
            let operands = match run.precision {
                Precision::F32 => Operands::F32,
                Precision::Tf32 => Operands::Tf32,
                Precision::Bf16 => Operands::Bf16,
                other => return Err(not_computed(run, other)),
            };
            let backend = GpuBackend::open(api, index)?.rounding(operands);
            return Ok(Self::Gpu(Box::new(backend)));
        }
        Ok(match run.precision {
            Precision::F32 => Self::Cpu(CpuBackend::new(threads)?),
            Precision::F32Strict => Self::Cpu(CpuBackend::new(threads)?.strict()),
            Precision::Bf16 => Self::Cpu(CpuBackend::new(threads)?.bf16()),
            Precision::F64 => Self::Reference(Reference),
            other @ Precision::Tf32 => return Err(not_computed(run, other)),
        })
    }

    /// Device and precision in words, for the head of a table.
    pub(crate) fn describe(&self) -> String {
        format!("{}, {}", self.device(), self.precision())
    }

    /// What computes, in words.
    pub(crate) fn device(&self) -> String {
        match self {
            Self::Cpu(backend) => backend.device(),
            Self::Reference(backend) => backend.device(),
            Self::Gpu(backend) => backend.device(),
        }
    }

    /// Instruction set of the kernels.
    pub(crate) fn instruction_set(&self) -> String {
        match self {
            Self::Cpu(backend) => backend.instruction_set().to_string(),
            Self::Reference(_) | Self::Gpu(_) => "none".into(),
        }
    }

    /// Threads of the kernels.
    pub(crate) fn threads(&self) -> usize {
        match self {
            Self::Cpu(backend) => backend.threads(),
            Self::Reference(_) | Self::Gpu(_) => 1,
        }
    }

    /// Arithmetic.
    pub(crate) fn precision(&self) -> &'static str {
        match self {
            Self::Cpu(backend) => backend.precision(),
            Self::Reference(backend) => backend.precision(),
            Self::Gpu(backend) => backend.precision(),
        }
    }

    /// Bytes of one number.
    pub(crate) fn value_bytes(&self) -> usize {
        match self {
            Self::Cpu(_) | Self::Gpu(_) => size_of::<f32>(),
            Self::Reference(_) => size_of::<f64>(),
        }
    }

    /// Measures what the machine can do at most, with a triad over so many bytes; none for the reference, whose
    /// arithmetic is not that of the ceilings, and for GPUs, of which none are measured.
    pub(crate) fn ceilings(&self, bytes: usize) -> Option<Ceilings> {
        match self {
            Self::Cpu(backend) => Some(backend.ceilings(bytes)),
            Self::Reference(_) | Self::Gpu(_) => None,
        }
    }

    fn environment(&self, plan: &Plan) -> Environment {
        let model = &plan.model;
        let kernels = match self {
            Self::Cpu(backend) => kernels(backend, model),
            Self::Reference(backend) => kernels(backend, model),
            Self::Gpu(backend) => kernels(&**backend, model),
        };
        Environment::now(
            self.device(),
            self.instruction_set(),
            self.threads(),
            self.precision(),
            kernels,
            model.parameters(),
            plan.data.source(),
        )
    }

    /// Writes each trial's config and environment into its folder.
    fn describe_runs(&self, plan: &Plan, trials: &[Contestant]) -> Result<(), Failure> {
        let environment = self.environment(plan);
        for trial in trials {
            trial.folder.describe(&trial.config, &environment)?;
        }
        Ok(())
    }

    /// Trains one cohort: a trial for each rule, all else as planned; each into its folder.
    pub(crate) fn train(
        &self,
        plan: &Plan,
        trials: &[Contestant],
        screen: &Screen,
        stop: &Arc<AtomicBool>,
    ) -> Result<Vec<TrialResult>, Failure> {
        let trained = self.train_scored(plan, trials, Options::default(), screen, stop)?;
        Ok(trained.into_iter().map(|(result, _)| result).collect())
    }

    /// As [`train`](Self::train), with the alignment scores that were taken: none unless the config asks for them.
    pub(crate) fn train_scored(
        &self,
        plan: &Plan,
        trials: &[Contestant],
        options: Options,
        screen: &Screen,
        stop: &Arc<AtomicBool>,
    ) -> Result<Vec<(TrialResult, Scores)>, Failure> {
        self.describe_runs(plan, trials)?;
        match self {
            Self::Cpu(backend) => train_on(backend, plan, trials, options, screen, stop),
            Self::Reference(backend) => train_on(backend, plan, trials, options, screen, stop),
            Self::Gpu(backend) => train_on(&**backend, plan, trials, options, screen, stop),
        }
    }
}

/// What a config is told that asks a device for a precision of others.
fn not_computed(run: &Run, precision: Precision) -> Failure {
    let precision = precision.name();
    Failure::Usage(format!(
        "run.device = {} does not compute in {precision}",
        run.device
    ))
}

fn kernels<B: Backend>(backend: &B, model: &Model) -> Vec<LayerRecord> {
    let layers = model.layers().into_iter();
    layers
        .map(|(name, layer)| LayerRecord::new(name, backend.kernels(layer)))
        .collect()
}

/// One trial of a cohort: what it is, where it is written, and from where it goes on.
pub(crate) struct Contestant {
    pub(crate) config: Config,
    pub(crate) folder: RunFolder,
    pub(crate) lock: Option<Arc<Lock>>,
    pub(crate) checkpoint: Option<Checkpoint>,
}

impl Contestant {
    /// A trial from its beginning, in a folder of its own.
    pub(crate) fn fresh(config: Config, folder: RunFolder) -> Self {
        Self {
            config,
            folder,
            lock: None,
            checkpoint: None,
        }
    }
}

fn train_on<B: Backend>(
    backend: &B,
    plan: &Plan,
    trials: &[Contestant],
    options: Options,
    screen: &Screen,
    stop: &Arc<AtomicBool>,
) -> Result<Vec<(TrialResult, Scores)>, Failure> {
    let scored = plan.config.run.alignment;
    let companions = scored && !options.integrated;
    let (mut cohort, mut recorder) = open(backend, plan, trials, companions, screen, stop)?;
    let (split, schedule) = (plan.split()?, plan.schedule());
    let start = position(trials);
    if scored {
        let mut aligned = Aligned::new(recorder, plan, trials, options)?;
        train_from(&mut cohort, &split, &schedule, start, &mut aligned);
        return aligned.finish(&mut cohort, &split);
    }
    cohort.spread();
    train_from(&mut cohort, &split, &schedule, start, &mut recorder);
    let results = recorder.finish()?.into_iter();
    Ok(results.map(|result| (result, Scores::default())).collect())
}

/// Where the trials were left.
fn position(trials: &[Contestant]) -> Position {
    let checkpoints: Vec<_> = trials.iter().map(|t| t.checkpoint.as_ref()).collect();
    Checkpoint::position(&checkpoints)
}

/// A cohort at its initial weights, which are saved, or where its trials were left, with companions if these are
/// asked for, and the recorder of its trials.
fn open<'b, B: Backend>(
    backend: &'b B,
    plan: &Plan,
    trials: &[Contestant],
    companions: bool,
    screen: &Screen,
    stop: &Arc<AtomicBool>,
) -> Result<(Cohort<'b, B>, Recorder), Failure> {
    let schedule = plan.schedule();
    let specs: Vec<_> = trials.iter().map(|trial| trial.config.trial()).collect();
    let (seed, shift) = (plan.config.train.seed, plan.config.train.target_shift);
    let model = plan.model.clone();
    let mut cohort = Cohort::new(backend, model, seed, schedule.batch, shift, &specs);
    let run = &plan.config.run;
    let request = Request {
        gradient: run.gradient_angle,
        drift: run.layer_drift,
    };
    if request != Request::default() {
        if plan.model.feed_forward().is_none() {
            return Err(Failure::Usage(
                "run.gradient_angle and run.layer_drift are for convolutional and dense networks"
                    .into(),
            ));
        }
        cohort.request_diagnosis(request);
    }
    let mut records = Vec::new();
    for (i, trial) in trials.iter().enumerate() {
        let (folder, checkpoint) = (&trial.folder, trial.checkpoint.as_ref());
        if companions {
            cohort.add_companion(i);
        }
        folder.save_initial(&cohort.tensors(i), checkpoint.is_some())?;
        if let Some(checkpoint) = checkpoint {
            let restored = cohort.restore(i, &checkpoint.state);
            restored.map_err(|e| RunError::Damaged {
                path: folder.file("checkpoint.safetensors"),
                message: e.to_string(),
            })?;
        }
        records.push(TrialRecord::new(
            &trial.config,
            folder.clone(),
            trial.lock.clone(),
            checkpoint,
        )?);
    }
    let lines = trials
        .iter()
        .map(|trial| Line {
            name: trial.config.label(trials.iter().map(|t| &t.config)),
            done: trial.checkpoint.as_ref().map_or(0, |c| c.state.steps),
        })
        .collect();
    let progress = Progress::new(screen, lines, schedule.epochs, plan.total_steps());
    let (policy, position) = (Policy::of(plan), position(trials));
    let recorder = Recorder::new(records, progress, policy, position, Arc::clone(stop));
    Ok((cohort, recorder))
}

/// What Ctrl-C does to a run that is trained for its own sake.
const SAVING: &str = "stopping after this step and saving; press Ctrl-C again to stop at once";

/// Becomes true at the first Ctrl-C; the second ends the process at once.
pub(crate) fn stop_on_interrupt() -> Result<Arc<AtomicBool>, Failure> {
    stop_on_interrupt_saying(SAVING)
}

/// As [`stop_on_interrupt`], with other words at the first Ctrl-C.
pub(crate) fn stop_on_interrupt_saying(words: &'static str) -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(1);
        }
        eprintln!("{words}");
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
