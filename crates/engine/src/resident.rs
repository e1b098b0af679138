//! Training without the host: a device takes a window of minibatches by itself.
//!
//! The samples lie on the device; one minibatch's work for all trials is recorded once and started again for every
//! minibatch, and the host looks at the losses when the window is over. Some minibatches that follow each other are
//! recorded together, too, so that the next one's inputs are fetched while trials learn from this one's. Trials have
//! rooms of their own and share inputs, so that kernels of all trials that do not depend on each other run at once;
//! where memory does not hold so many rooms, the trials take turns, window by window. Numbers are bitwise those of
//! trials that step one after the other: each trial's kernels see the same operands, and a trial whose loss was not
//! finite learns no more.

use crate::cohort::{Cohort, Report, Room, Trial};
use crate::images::MinibatchLayout;
use crate::minibatch::Targets;
use crate::model::Model;
use crate::pass::upload;
use crate::protocol::Part;
use sansprop_kernels::{Backend, Replay, Resident, Verdict};
use std::iter;
use std::time::Instant;

/// Most minibatches of a window.
const LONGEST_WINDOW: usize = 64;
/// Seconds that a window should not exceed by much: only between windows can training be stopped and saved.
const WINDOW_SECONDS: f64 = 0.25;

/// Which part of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Train,
    Evaluation,
}

/// A part's samples on the device.
struct Samples<B: Backend> {
    role: Role,
    /// `[sample, location, channel]` or `[sample, step, input]`.
    inputs: B::Buffer,
    /// Labels `[sample]` or values `[sample, step, output]`.
    answers: B::Buffer,
}

/// What a trial leaves on the device for the host to see, and what steers its updates.
struct Trace<B: Backend> {
    reports: B::Buffer,
    gate: B::Buffer,
    /// Adam's rates of the window's minibatches.
    rates: Option<B::Buffer>,
}

/// A minibatch on the device: inputs, and labels or values.
struct Loaded<B: Backend> {
    input: B::Buffer,
    answers: B::Buffer,
}

/// What was recorded.
#[derive(PartialEq, Eq)]
struct Key {
    role: Role,
    /// Samples of a minibatch, and minibatches that are recorded together.
    batch: usize,
    minibatches: usize,
    learning: bool,
    trials: Vec<usize>,
}

/// What a cohort needs to take windows on a device.
pub(crate) struct Windows<B: Backend> {
    /// For trials that run at once.
    rooms: Vec<Room<B>>,
    traces: Vec<Trace<B>>,
    samples: Vec<Samples<B>>,
    /// Inputs and answers of the minibatch, and of the next one.
    loaded: [Loaded<B>; 2],
    recordings: Vec<(Key, Replay)>,
    /// Most minibatches that are recorded together: more than one where memory holds that for all trials.
    together: usize,
    /// Minibatches of the next window.
    length: usize,
}

/// Minibatches that a device is to take.
pub(crate) struct Window<'a> {
    pub(crate) role: Role,
    /// Places of the samples in their part, `[minibatch, sample]`.
    pub(crate) order: &'a [usize],
    /// Samples of each minibatch.
    pub(crate) batch: usize,
    pub(crate) trials: &'a [usize],
    pub(crate) learning: bool,
}

/// Locations (or steps) and channels of one sample's inputs, and the same of its answers.
fn sample_shape(model: &Model) -> [(usize, usize); 2] {
    match model {
        Model::FeedForward(network) => [network.input_panels(), (1, 1)],
        Model::Recurrent(network) => [(network.cell().steps, 1); 2],
    }
}

impl<B: Backend> Cohort<'_, B> {
    /// Makes rooms on a device that can take windows of minibatches by itself; `parts` are those that it will need.
    /// Without effect unless the cohort is [spread](Self::spread), on other machines, where the data do not fit, and
    /// with companions or a diagnosis, which look at every step.
    pub(crate) fn settle_on_device(
        &mut self,
        parts: [(Role, &Part<'_>); 2],
        layout: MinibatchLayout,
    ) {
        if self.windows.is_some() || !self.spread_wanted || !self.steps_unseen() {
            return;
        }
        let backend = self.backend;
        let Some(resident) = backend.resident() else {
            return;
        };
        let [input, answer] = sample_shape(&self.model).map(|(rows, channels)| rows * channels);
        let samples: usize = parts.iter().map(|(_, part)| part.samples.len()).sum();
        let data = (samples * (input + answer)) as u64;
        let used = resident.values_in_use();
        if used + data > resident.most_values() {
            return;
        }
        resident.reserve(used + data);
        let mut windows = Windows {
            rooms: Vec::new(),
            traces: self.trials.iter().map(|t| trace(backend, t)).collect(),
            samples: parts
                .map(|(role, part)| upload_part(backend, role, part, layout))
                .into(),
            loaded: [(); 2].map(|()| Loaded {
                input: backend.zeros(input * self.most),
                answers: backend.zeros(answer * self.most),
            }),
            recordings: Vec::new(),
            together: 1,
            length: 1,
        };
        let before = resident.values_in_use();
        windows.rooms.push(self.own_room(backend));
        let room_values = resident.values_in_use() - before;
        let left = resident.most_values().saturating_sub(before);
        let at_once = |each: u64| usize::try_from(left / each.max(1)).unwrap_or(usize::MAX);
        let mut each = room_values + self.work_values(resident, &mut windows);
        // What stays where it is is there by now: so much goes with each further minibatch that is recorded. Beside the longest
        // recording those of half as many, and so on, are kept.
        let further = self.work_values(resident, &mut windows);
        let together = resident.most_minibatches();
        let with_all = each + 2 * (together as u64 - 1) * further;
        if at_once(with_all) >= self.trials.len() {
            (each, windows.together) = (with_all, together);
        }
        let count = self.trials.len().min(at_once(each)).max(1);
        resident.reserve(before + count as u64 * each);
        windows.rooms.resize_with(count, || self.own_room(backend));
        self.windows = Some(windows);
    }

    /// Most memory that a trial's recorded step holds beside its room, and beside what was held before.
    fn work_values(&mut self, resident: &dyn Resident<B::Buffer>, windows: &mut Windows<B>) -> u64 {
        let window = Window {
            role: Role::Train,
            order: &[],
            batch: self.most,
            trials: &[],
            learning: true,
        };
        let before = resident.values_in_use();
        let trials = 0..self.trials.len();
        let of_trial = |trial| {
            let recorded = self.record(resident, windows, &window, &[trial], 1);
            let held = resident.values_in_use() - before;
            drop(recorded);
            held
        };
        trials.map(of_trial).max().unwrap_or(0)
    }

    /// Minibatches that the next window should have; none where trials step under the host's eyes.
    pub(crate) fn window_length(&self) -> Option<usize> {
        self.windows.as_ref().map(|windows| windows.length)
    }

    /// Takes a window: forward passes, losses and, if learning, updates. Returns each trial's reports, minibatch by
    /// minibatch; after one whose loss is not finite they mean nothing. Steps are not counted here.
    pub(crate) fn take(&mut self, window: &Window<'_>) -> Vec<Vec<Report>> {
        let mut windows = self.windows.take().expect("the cohort settled on a device");
        let backend = self.backend;
        let resident = backend.resident().expect("the cohort settled on a device");
        let begin = Instant::now();
        let places: Vec<u32> = window.order.iter().map(|&i| i as u32).collect();
        resident.set_places(&places);
        let minibatches = window.order.len() / window.batch;
        if window.learning {
            for &trial in window.trials {
                let rates = self.trials[trial].optimizer.rates(minibatches);
                if let (Some(rates), Some(to)) = (rates, &mut windows.traces[trial].rates) {
                    backend.write(&rates, to);
                }
            }
        }
        for trials in window.trials.chunks(windows.rooms.len()) {
            let mut done = 0;
            let halved = |&together: &usize| (together > 1).then_some(together / 2);
            for together in iter::successors(Some(windows.together), halved) {
                if minibatches - done < together {
                    continue;
                }
                let key = Key {
                    role: window.role,
                    batch: window.batch,
                    minibatches: together,
                    learning: window.learning,
                    trials: trials.to_vec(),
                };
                let known = windows
                    .recordings
                    .iter()
                    .position(|(known, _)| *known == key);
                let replay = match known {
                    Some(known) => windows.recordings.swap_remove(known).1,
                    None => self.record(resident, &mut windows, window, trials, together),
                };
                while done + together <= minibatches {
                    replay(done);
                    done += together;
                }
                // Recorded work holds memory: what is kept is that of trials which all run at once.
                if trials.len() == window.trials.len() {
                    windows
                        .recordings
                        .retain(|(known, _)| known.trials == trials);
                    windows.recordings.push((key, replay));
                }
            }
        }
        let reports = window.trials.iter().map(|&trial| {
            let values = backend.read(&windows.traces[trial].reports);
            let report = |pair: &[f64]| Report {
                loss: pair[0],
                correct: self.model.feed_forward().map(|_| pair[1] as usize),
            };
            values
                .chunks_exact(2)
                .take(minibatches)
                .map(report)
                .collect()
        });
        let reports = reports.collect();
        windows.adapt(begin.elapsed().as_secs_f64() / minibatches as f64);
        self.windows = Some(windows);
        reports
    }

    /// Records some minibatches' work for trials that run at once.
    fn record(
        &mut self,
        resident: &dyn Resident<B::Buffer>,
        windows: &mut Windows<B>,
        window: &Window<'_>,
        trials: &[usize],
        minibatches: usize,
    ) -> Replay {
        let (backend, batch) = (self.backend, window.batch);
        let [input, answer] = sample_shape(&self.model);
        self.batch = batch;
        let Windows {
            rooms,
            traces,
            samples,
            loaded,
            ..
        } = windows;
        let samples = samples.iter().find(|samples| samples.role == window.role);
        let samples = samples.expect("both parts are on the device");
        let own = &mut rooms[..trials.len()];
        resident.record(minibatches, &mut |minibatch| {
            // While one minibatch is learned from, the next one is loaded beside it.
            let now = &mut loaded[minibatch % 2];
            resident.gather(
                &samples.answers,
                batch,
                answer.0,
                answer.1,
                &mut now.answers,
            );
            resident.gather(&samples.inputs, batch, input.0, input.1, &mut now.input);
            self.room.exchange_input(&mut now.input);
            self.forget_initial();
            self.run_initial(window.learning);
            self.room.exchange_input(&mut now.input);
            let mut parts = self.parts();
            parts.common.initial_pass = parts.room.initial();
            for (room, &trial) in own.iter_mut().zip(trials) {
                room.exchange_input(&mut now.input);
                let trace = &mut traces[trial];
                let trial = &mut parts.trials[trial];
                room.run(backend, trial, &parts.common, window.learning);
                let verdict = Verdict {
                    reports: &mut trace.reports,
                    gate: &mut trace.gate,
                };
                room.judge_on_device(resident, &now.answers, &parts.common, verdict);
                if window.learning {
                    let rule = trial.spec().rule;
                    room.learn(backend, trial, &rule, &parts.common);
                    let gradient = room.gradient();
                    resident.gated(&trace.gate, trace.rates.as_ref(), &mut || {
                        trial.update(backend, gradient);
                    });
                }
                room.exchange_input(&mut now.input);
            }
        })
    }
}

impl<B: Backend> Windows<B> {
    /// Chooses the next window's length by the seconds that a minibatch took.
    fn adapt(&mut self, seconds: f64) {
        let fits = (WINDOW_SECONDS / seconds.max(1e-9)) as usize;
        self.length = fits.clamp(1, LONGEST_WINDOW).min(2 * self.length);
    }
}

fn trace<B: Backend>(backend: &B, trial: &Trial<B>) -> Trace<B> {
    let mut gate = backend.zeros(1);
    backend.write(&[1.0], &mut gate);
    let rates = trial.optimizer.rates(1);
    Trace {
        reports: backend.zeros(2 * LONGEST_WINDOW),
        gate,
        rates: rates.map(|_| backend.zeros(LONGEST_WINDOW)),
    }
}

fn upload_part<B: Backend>(
    backend: &B,
    role: Role,
    part: &Part<'_>,
    layout: MinibatchLayout,
) -> Samples<B> {
    let (mut inputs, mut answers) = (Vec::new(), Vec::new());
    for sample in 0..part.samples.len() {
        // A minibatch of one is the sample itself, location by location.
        let one = part.minibatch(&[sample], layout);
        inputs.extend(one.input);
        match one.targets {
            Targets::Labels(labels) => answers.extend(labels.iter().map(|&label| label as f32)),
            Targets::Values(values) => answers.extend(values),
        }
    }
    Samples {
        role,
        inputs: upload(backend, &inputs),
        answers: upload(backend, &answers),
    }
}
