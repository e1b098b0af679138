//! The training loop where a device takes windows of minibatches by itself.

use super::{Event, Run};
use crate::checkpoint::{Position, Tally};
use crate::resident::{Role, Window};
use sansprop_kernels::Backend;
use std::ops::ControlFlow;

impl<B: Backend> Run<'_, '_, B> {
    /// As [`learn`](Self::learn) where a device takes windows of minibatches by itself.
    pub(super) fn learn_in_windows(
        &mut self,
        position: &mut Position,
        first_step: usize,
        order: &[usize],
    ) -> ControlFlow<()> {
        let batch = self.schedule.batch;
        let minibatches = order.len() / batch;
        while position.step < minibatches {
            let running = self.running();
            if running.is_empty() {
                break;
            }
            let length = self.cohort.window_length().unwrap_or(1);
            let from = position.step;
            let to = minibatches.min(from + length);
            let reports = self.cohort.take(&Window {
                role: Role::Train,
                order: &order[from * batch..to * batch],
                batch,
                trials: &running,
                learning: true,
            });
            self.tell_shared(&running)?;
            for i in from..to {
                for (&trial, reports) in running.iter().zip(&reports) {
                    if !self.cohort.trials()[trial].running() {
                        continue;
                    }
                    let report = reports[i - from];
                    if report.loss.is_finite() {
                        let steps = self.cohort.trials()[trial].steps();
                        self.cohort.trial_mut(trial).set_steps(steps + 1);
                    }
                    self.stepped(position, trial, (first_step + i) as u64, &report)?;
                }
            }
            position.step = to;
            self.tell(&Event::Resumable(position.clone()))?;
        }
        ControlFlow::Continue(())
    }

    /// As [`evaluate`](Self::evaluate) where a device takes windows of minibatches by itself.
    pub(super) fn evaluate_in_windows(
        &mut self,
        role: Role,
        mut order: &[usize],
        running: &[usize],
        tallies: &mut [Tally],
    ) -> ControlFlow<()> {
        while !order.is_empty() && !running.is_empty() {
            // An incomplete last minibatch is a window of its own.
            let batch = self.schedule.batch.min(order.len());
            let length = self.cohort.window_length().unwrap_or(1);
            let (now, later) = order.split_at(batch * length.min(order.len() / batch));
            order = later;
            let reports = self.cohort.take(&Window {
                role,
                order: now,
                batch,
                trials: running,
                learning: false,
            });
            self.tell_shared(running)?;
            for i in 0..now.len() / batch {
                for (&trial, reports) in running.iter().zip(&reports) {
                    tallies[trial].add(&reports[i], batch);
                    self.tell(&Event::Evaluated { trial })?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// The time since the last event was that of all these trials together.
    fn tell_shared(&mut self, trials: &[usize]) -> ControlFlow<()> {
        let share = 1.0 / trials.len() as f64;
        let shares = trials.iter().map(|&trial| (trial, share)).collect();
        self.tell(&Event::Together { shares })
    }
}
