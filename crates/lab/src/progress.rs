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

/// Where all bars of the program are drawn, one below the other.
#[derive(Clone)]
pub struct Screen {
    bars: MultiProgress,
    terminal: bool,
    overall: Option<ProgressBar>,
}

impl Screen {
    /// Standard error.
    pub fn new() -> Self {
        Self {
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            terminal: std::io::stderr().is_terminal(),
            overall: None,
        }
    }

    /// Standard error, with a last bar for a whole sweep of so many trials.
    pub fn of_sweep(trials: u64) -> Self {
        let mut screen = Self::new();
        let style =
            ProgressStyle::with_template("{prefix:.bold} {bar:24.green/dim} {msg} {eta:.dim}");
        let style = style.expect("a valid template").progress_chars("━╸─");
        let bar = screen.bars.add(ProgressBar::new(trials).with_style(style));
        bar.set_prefix("sweep");
        screen.overall = Some(bar);
        screen
    }

    /// A sweep has so many trials behind it; `news` says what happened.
    pub fn overall(&self, done: u64, news: &str) {
        let Some(bar) = &self.overall else {
            return;
        };
        let all = bar.length().unwrap_or(0);
        if self.terminal {
            bar.set_message(format!("{done}/{all} trials"));
            bar.set_position(done);
        } else if !news.is_empty() {
            eprintln!("[{done}/{all}] {news}");
        }
    }

    /// A line of its own.
    pub fn say(&self, line: &str) {
        if self.terminal {
            // A line that cannot be shown is no reason to stop.
            let _ = self.bars.println(line);
        } else {
            eprintln!("{line}");
        }
    }

    /// Removes the sweep's bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.overall {
            bar.finish_and_clear();
        }
    }
}

/// One trial's line.
pub struct Line {
    /// What to call it.
    pub name: String,
    /// Updates that are done already.
    pub done: u64,
}

/// One bar or line a trial.
pub struct Progress {
    names: Vec<String>,
    epochs: usize,
    bars: Option<Vec<ProgressBar>>,
    /// Without a terminal, every so many epochs get a line; in a sweep none does.
    line_every: Option<usize>,
    in_sweep: bool,
}

impl Progress {
    /// Progress of trials of so many epochs and updates in all.
    pub fn new(screen: &Screen, lines: Vec<Line>, epochs: usize, steps: u64) -> Self {
        let style = ProgressStyle::with_template(
            "{prefix:.bold} {bar:24.cyan/dim} {percent:>3}% {msg} {eta:.dim}",
        )
        .expect("a valid template")
        .progress_chars("━╸─");
        let width = lines.iter().map(|line| line.name.len()).max().unwrap_or(0);
        let bars = screen.terminal.then(|| {
            lines
                .iter()
                .map(|Line { name, done }| {
                    let bar = ProgressBar::new(steps).with_style(style.clone());
                    let bar = match &screen.overall {
                        Some(overall) => screen.bars.insert_before(overall, bar),
                        None => screen.bars.add(bar),
                    };
                    bar.set_prefix(format!("{name:width$}"));
                    bar.set_position(*done);
                    // The time left follows from what is done from here on.
                    bar.reset_eta();
                    bar
                })
                .collect()
        });
        let in_sweep = screen.overall.is_some();
        Self {
            line_every: match lines.len() {
                _ if in_sweep => None,
                1 => Some(1),
                _ => Some(epochs.div_ceil(4)),
            },
            names: lines.into_iter().map(|line| line.name).collect(),
            epochs,
            bars,
            in_sweep,
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
            None => {
                let due = |every| epoch.is_multiple_of(every) || epoch == self.epochs;
                if self.line_every.is_some_and(due) {
                    eprintln!("{} {news}", self.names[update.trial]);
                }
            }
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
            // The sweep tells of ends itself, and bars of thousands of trials would fill the screen.
            (Some(bars), _) if self.in_sweep => bars[trial].finish_and_clear(),
            (None, _) if self.in_sweep => {}
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
