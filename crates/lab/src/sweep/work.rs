//! A worker: claims trials, trains them in cohorts, and leaves the rest to others.

use super::trials::{DataSets, Trial};
use crate::cli::Failure;
use crate::config::Plan;
use crate::machine::{Contestant, Machine};
use crate::progress::Screen;
use crate::run::{Checkpoint, Heartbeat, Lock, Locks, Outcome, RunError, RunFolder};
use crate::table::percent;
use sansprop::cohort::Status;
use sansprop_kernels::GpuFailure;
use std::any::Any;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// What a worker is to do.
pub(crate) struct Worker<'a> {
    /// All trials of the sweep.
    pub(crate) trials: &'a [Trial],
    /// The worker's own, in cohorts.
    pub(crate) cohorts: &'a [Vec<usize>],
    /// The sweep's folder.
    pub(crate) out: &'a Path,
    /// Cohorts at once.
    pub(crate) jobs: usize,
    /// Whether failed trials are trained again.
    pub(crate) retry: bool,
    pub(crate) screen: &'a Screen,
    pub(crate) stop: &'a Arc<AtomicBool>,
}

/// What the jobs of one worker know together.
#[derive(Default)]
struct Known {
    /// Trials that need no more work of this process.
    settled: HashSet<usize>,
    /// Trials whose cohort failed, with the most that are trained at once in the next: one by one, so that a failure
    /// stays its own, or half as many where a device may have been too small for all.
    company: HashMap<usize, usize>,
    /// Failed trials that were cleared for another try.
    retried: HashSet<usize>,
    /// What went wrong here, by trial.
    failures: BTreeMap<usize, String>,
    sets: DataSets,
}

/// What a job does next.
enum Next {
    Train(Vec<(usize, Contestant)>),
    /// All that is left is in other hands.
    Wait,
    Done,
}

impl Worker<'_> {
    /// Trains until all of the worker's trials are settled or the user stops it; returns what failed here.
    pub(crate) fn run(&self, sets: DataSets) -> Result<BTreeMap<usize, String>, Failure> {
        let locks = Locks::new(self.out.join("locks"), Heartbeat::from_environment());
        let known = Mutex::new(Known {
            sets,
            ..Known::default()
        });
        let pulse = Pulse::default();
        let over = AtomicBool::new(false);
        let results = thread::scope(|scope| {
            let heart = scope.spawn(|| pulse.beat(locks.heartbeat().every, &over));
            let job = || scope.spawn(|| self.job(&locks, &known, &pulse));
            let jobs: Vec<_> = (0..self.jobs).map(|_| job()).collect();
            let ends: Vec<_> = jobs.into_iter().map(|job| job.join()).collect();
            over.store(true, Ordering::Relaxed);
            heart.thread().unpark();
            ends
        });
        // A failed trial may be in training again, under its lock.
        let ended = |id: &str| {
            let outcome = Outcome::read(&self.out.join(id));
            matches!(outcome, Ok(Some(outcome)) if outcome.status != "failed")
        };
        locks.leave(ended);
        for result in results {
            result.map_err(|panic| Failure::Failed(panic_message(&*panic)))??;
        }
        let known = known.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(known.failures)
    }

    fn job(&self, locks: &Locks, known: &Mutex<Known>, pulse: &Pulse) -> Result<(), Failure> {
        let mut waited = false;
        while !self.stop.load(Ordering::Relaxed) {
            // Not in the match itself: what is known would stay locked through the training.
            let next = self.next(locks, &mut open(known), pulse)?;
            match next {
                Next::Train(trials) => {
                    waited = false;
                    self.train(trials, known)?;
                }
                Next::Wait => {
                    if !waited {
                        self.screen
                            .say("waiting for trials that other jobs or workers hold");
                    }
                    waited = true;
                    thread::sleep(locks.heartbeat().every.min(Duration::from_millis(500)));
                }
                Next::Done => break,
            }
        }
        Ok(())
    }

    /// Claims trials of one cohort: first one that nobody works on, else whatever is free.
    fn next(&self, locks: &Locks, known: &mut Known, pulse: &Pulse) -> Result<Next, Failure> {
        let mut pending = false;
        for whole in [true, false] {
            for cohort in self.cohorts {
                let mut claimed = Vec::new();
                for &index in cohort {
                    if known.settled.contains(&index) {
                        continue;
                    }
                    let contestant = self.claim(index, locks, known, pulse)?;
                    if known.settled.contains(&index) {
                        continue;
                    }
                    pending = true;
                    match contestant {
                        Some(contestant) => claimed.push((index, contestant)),
                        // Its first trial is in other hands: probably all are.
                        None if whole && claimed.is_empty() => break,
                        None => {}
                    }
                    let most = claimed.first().map(|(first, _)| known.company.get(first));
                    if most.flatten().is_some_and(|&most| claimed.len() >= most) {
                        break;
                    }
                }
                // Trials left at different places cannot go on in one cohort; the others' locks are released.
                let place = |c: &Contestant| c.checkpoint.as_ref().map(Checkpoint::place);
                if let Some(first) = claimed.first().map(|(_, c)| place(c)) {
                    let company = |index: usize| known.company.get(&index).copied();
                    let most = company(claimed[0].0);
                    claimed.retain(|(i, c)| place(c) == first && company(*i) == most);
                    return Ok(Next::Train(claimed));
                }
            }
        }
        Ok(if pending { Next::Wait } else { Next::Done })
    }

    /// Takes one trial, if it is free; settles it, if there is nothing to do.
    fn claim(
        &self,
        index: usize,
        locks: &Locks,
        known: &mut Known,
        pulse: &Pulse,
    ) -> Result<Option<Contestant>, Failure> {
        let trial = &self.trials[index];
        let path = self.out.join(&trial.id);
        if self.ended(index, &path, known)? {
            self.settle(index, known, "");
            return Ok(None);
        }
        let Some(lock) = locks.take(&trial.id)? else {
            return Ok(None);
        };
        // It may have ended between the look and the lock.
        if self.ended(index, &path, known)? {
            self.settle(index, known, "");
            return Ok(None);
        }
        let prepared = self.prepare(trial, &path);
        let (folder, checkpoint) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                // Nothing is written into a folder that is not what it should be.
                self.fail(index, error.to_string(), known);
                return Ok(None);
            }
        };
        if self.retry {
            known.retried.insert(index);
        }
        let lock = Arc::new(lock);
        pulse.keep(&lock);
        Ok(Some(Contestant {
            config: trial.config.clone(),
            folder,
            lock: Some(lock),
            checkpoint,
        }))
    }

    /// Whether a trial's folder says that it has ended. A failed one has not, if it is to be tried again.
    fn ended(&self, index: usize, path: &Path, known: &Known) -> Result<bool, Failure> {
        let again = self.retry && !known.retried.contains(&index);
        match Outcome::read(path) {
            Ok(None) => Ok(false),
            Ok(Some(outcome)) if outcome.status == "failed" && again => Ok(false),
            Ok(Some(_)) => Ok(!self.edited(index, path)),
            // A damaged file is no end; what to do about it is said when the trial is prepared.
            Err(RunError::Damaged { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an ended trial's config was changed behind its id.
    fn edited(&self, index: usize, path: &Path) -> bool {
        RunFolder::open(path, &self.trials[index].config).is_err()
    }

    fn prepare(
        &self,
        trial: &Trial,
        path: &Path,
    ) -> Result<(RunFolder, Option<Checkpoint>), RunError> {
        let folder = RunFolder::open(path, &trial.config)?;
        // Only a failed trial that is tried again still has an end here, or one whose end cannot be read.
        match Outcome::load(&folder) {
            Ok(None) => {}
            Err(RunError::Damaged { .. }) if self.retry => Outcome::remove(&folder)?,
            Ok(Some(_)) => Outcome::remove(&folder)?,
            Err(error) => return Err(error),
        }
        let checkpoint = Checkpoint::load(&folder)?;
        if checkpoint.is_none() {
            folder.clear()?;
        }
        Ok((folder, checkpoint))
    }

    fn train(&self, trials: Vec<(usize, Contestant)>, known: &Mutex<Known>) -> Result<(), Failure> {
        let (indices, contestants): (Vec<usize>, Vec<Contestant>) = trials.into_iter().unzip();
        let config = &contestants[0].config;
        let data = open(known).sets.of(config)?;
        let plan = Plan::with_data(config.clone(), data)?;
        let threads = threads_of_job(config.run.threads, self.jobs);
        let machine = Machine::new(&config.run, threads)?;
        let train = || machine.train(&plan, &contestants, self.screen, self.stop);
        let (message, company) = match catch_unwind(AssertUnwindSafe(train)) {
            Ok(Ok(results)) => {
                for (&index, result) in indices.iter().zip(&results) {
                    let name = &self.trials[index].id;
                    let news = match result.status {
                        Status::Completed => {
                            let best = match (result.best_accuracy, result.best_loss) {
                                (None, Some((loss, _))) => format!("loss {loss:.5}"),
                                (accuracy, _) => percent(accuracy.map(|(a, _)| a)),
                            };
                            format!("{name}: completed, best {best}")
                        }
                        Status::Diverged { epoch } => {
                            format!("{name}: diverged in epoch {}", epoch + 1)
                        }
                        Status::Interrupted | Status::Running => continue,
                    };
                    self.settle(index, &mut open(known), &news);
                }
                return Ok(());
            }
            // Whoever took a trial over trains it; the others of the cohort go on from their checkpoints.
            Ok(Err(Failure::Run(RunError::TakenOver(path)))) => {
                let path = path.display();
                self.screen
                    .say(&format!("{path}: taken over by another worker"));
                return Ok(());
            }
            Ok(Err(error)) => (error.to_string(), 1),
            Err(panic) => (
                panic_message(&*panic),
                match panic.is::<GpuFailure>() {
                    true => indices.len().div_ceil(2),
                    false => 1,
                },
            ),
        };
        let mut known = open(known);
        if let [index] = indices[..] {
            let held = contestants[0].lock.as_ref().is_some_and(|lock| lock.held());
            if held && let Err(e) = Outcome::failed(message.clone()).save(&contestants[0].folder) {
                self.screen.say(&format!(
                    "the failure of {} cannot be noted: {e}",
                    self.trials[index].id
                ));
            }
            self.fail(index, message, &mut known);
            return Ok(());
        }
        self.screen.say(&format!(
            "{} trials failed together ({message}); going on with {company} at a time",
            indices.len()
        ));
        for &index in &indices {
            // Those that ended before the failure have ended.
            if !self.ended(index, &self.out.join(&self.trials[index].id), &known)? {
                known.company.insert(index, company);
            }
        }
        Ok(())
    }

    fn fail(&self, index: usize, message: String, known: &mut Known) {
        let news = format!("{}: failed: {message}", self.trials[index].id);
        known.failures.insert(index, message);
        self.settle(index, known, &news);
    }

    fn settle(&self, index: usize, known: &mut Known, news: &str) {
        known.settled.insert(index);
        self.screen.overall(known.settled.len() as u64, news);
    }
}

/// Threads of each of several jobs at once, where `run.threads` says so many in all (0: one per core).
pub(crate) fn threads_of_job(threads: usize, jobs: usize) -> usize {
    let all = match threads {
        0 => thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    (all / jobs).max(1)
}

/// What one job knows, the others know, also after a panic.
fn open(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    if let Some(failure) = panic.downcast_ref::<GpuFailure>() {
        return failure.to_string();
    }
    format!("panicked: {}", text.unwrap_or_default())
}

/// Keeps this process's locks alive.
#[derive(Default)]
struct Pulse {
    locks: Mutex<Vec<Weak<Lock>>>,
}

impl Pulse {
    fn keep(&self, lock: &Arc<Lock>) {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.push(Arc::downgrade(lock));
    }

    fn beat(&self, every: Duration, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|lock| lock.upgrade().inspect(|lock| lock.beat()).is_some());
            drop(locks);
            thread::park_timeout(every);
        }
    }
}
