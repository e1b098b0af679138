//! The parent's side: a process for each trial, so that its peak memory is its own and nothing that happens to it happens
//! to the others.

use super::cell::{Extent, Outcome};
use crate::cli::Failure;
use crate::config::Config;
use sansprop::rule::Rule;
use std::io::{Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

/// How often the child is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Measures one trial of one rule in a child process; none if the user stops it.
///
/// # Errors
/// The child cannot be started or waited for. What goes wrong in it is an [`Outcome`].
pub(crate) fn measure_in_child(
    config: &Config,
    rule: Rule,
    extent: Extent,
    stop: &AtomicBool,
) -> Result<Option<Outcome>, Failure> {
    let failure = |what: &str, e: std::io::Error| {
        Failure::Failed(format!("cannot {what} a process for {rule}: {e}"))
    };
    let program = std::env::current_exe().map_err(|e| failure("find the program of", e))?;
    let mut child = Command::new(program)
        .args(["bench", "--cell", rule.name])
        .args(["--steps", &extent.steps.to_string()])
        .args(["--cohort", &extent.cohort.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failure("start", e))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that is gone already says why when it is waited for.
        let _ = stdin.write_all(config.to_toml().as_bytes());
    }
    // A pipe holds little: without a reader the child would wait for one.
    let (out, complaints) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| failure("wait for", e))? {
            break status;
        }
        if stop.load(Ordering::Relaxed) {
            // It may have ended by itself; either way it is waited for.
            let _ = child.kill();
            child.wait().map_err(|e| failure("wait for", e))?;
            return Ok(None);
        }
        sleep(LOOK);
    };
    if stop.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let (out, complaints) = (text(out), text(complaints));
    if !status.success() {
        return Ok(Some(Outcome::Failed(complaint(&complaints, status))));
    }
    let outcome = serde_json::from_str(&out)
        .unwrap_or_else(|e| Outcome::Failed(format!("the process answered {out:?}: {e}")));
    Ok(Some(outcome))
}

/// Reads a pipe to its end, beside everything else.
fn reader(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error still says something.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
        bytes
    })
}

fn text(reader: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}

/// What a child that failed says of it, else how it ended.
fn complaint(text: &str, status: ExitStatus) -> String {
    let own = text.lines().find_map(|line| line.strip_prefix("error: "));
    let line = own.or_else(|| text.lines().rfind(|line| !line.trim().is_empty()));
    line.map_or_else(|| format!("the process ended with {status}"), str::to_owned)
}
