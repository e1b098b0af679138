//! Progress on standard error: bars on a terminal, plain lines elsewhere.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use sansprop::cohort::Status;
use sansprop::train::Score;
use std::io::IsTerminal;

/// News of one trial's epoch.
pub struct Update {
    /// Index of the trial.
    pub trial: usize,
    /// Epoch, counted from 0.
    pub epoch: usize,
    /// Mean over the epoch's minibatches.
    pub train: Score,
    /// On the evaluated samples, if they were.
    pub evaluation: Option<Score>,
}

/// One bar or line a trial.
pub struct Progress {
    names: Vec<String>,
    epochs: usize,
    bars: Option<Vec<ProgressBar>>,
    /// Without a terminal, every so many epochs get a line.
    line_every: usize,
    // Dropping it would end the drawing of its bars.
    _screen: MultiProgress,
}

impl Progress {
    /// Progress of trials with these names, each of so many epochs and updates in all.
    pub fn new(names: Vec<String>, epochs: usize, steps: u64) -> Self {
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(
            "{prefix:.bold} {bar:24.cyan/dim} {percent:>3}% {msg} {eta:.dim}",
        )
        .expect("a valid template")
        .progress_chars("━╸─");
        let width = names.iter().map(String::len).max().unwrap_or(0);
        let bars = std::io::stderr().is_terminal().then(|| {
            names
                .iter()
                .map(|name| {
                    let bar = screen.add(ProgressBar::new(steps).with_style(style.clone()));
                    bar.set_prefix(format!("{name:width$}"));
                    bar
                })
                .collect()
        });
        Self {
            line_every: if names.len() == 1 {
                1
            } else {
                epochs.div_ceil(4)
            },
            names,
            epochs,
            bars,
            _screen: screen,
        }
    }

    /// An update was done.
    pub fn step(&mut self, trial: usize) {
        if let Some(bars) = &self.bars {
            bars[trial].inc(1);
        }
    }

    /// An epoch is over.
    pub fn epoch(&mut self, update: &Update) {
        let evaluation = update.evaluation.map_or(String::new(), |e| {
            let accuracy = e
                .accuracy
                .map_or(String::new(), |a| format!(", accuracy {:.2} %", 100.0 * a));
            format!(", evaluated loss {:.5}{accuracy}", e.loss)
        });
        let epoch = update.epoch + 1;
        let news = format!(
            "epoch {epoch}/{}: loss {:.5}{evaluation}",
            self.epochs, update.train.loss
        );
        match &self.bars {
            Some(bars) => bars[update.trial].set_message(news),
            None if epoch.is_multiple_of(self.line_every) || epoch == self.epochs => {
                eprintln!("{} {news}", self.names[update.trial]);
            }
            None => {}
        }
    }

    /// A trial ended.
    pub fn end(&mut self, trial: usize, status: Status) {
        let word = match status {
            Status::Completed | Status::Running => None,
            Status::Diverged { epoch } => Some(format!("diverged in epoch {}", epoch + 1)),
            Status::Interrupted => Some("interrupted".into()),
        };
        match (&self.bars, word) {
            (Some(bars), Some(word)) => bars[trial].abandon_with_message(word),
            (Some(bars), None) => {
                let message = bars[trial].message();
                bars[trial].finish_with_message(message);
            }
            (None, Some(word)) => eprintln!("{} {word}", self.names[trial]),
            (None, None) => {}
        }
    }
}
