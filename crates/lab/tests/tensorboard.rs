//! Event files through the binary. The oracles are `metrics.jsonl`, the real TensorBoard, and undisturbed runs.
//!
//! `SANSPROP_TEST_PYTHON` names a Python that has the packages of `requirements.txt` (default: `python3`); with
//! `SANSPROP_REQUIRE_TENSORBOARD=1` a test fails where it lacks them, which otherwise is skipped.
#![cfg(unix)]

use prost::Message;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SMALL: &str =
    "[network]\nwidth = 4\n[train]\nepochs = 3\n[run]\nlog_steps = true\ntensorboard = true\n";

/// Points of each curve: step, and the bits of the value.
type Curves = BTreeMap<String, Vec<(i64, u32)>>;

fn sansprop(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sansprop"));
    command.current_dir(folder).args(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[track_caller]
fn expect(folder: &Path, arguments: &[&str], code: i32) -> String {
    let output = sansprop(folder, arguments).stderr(Stdio::piped()).output();
    let output = output.expect("the binary starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{text}");
    text
}

fn folder_with(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("c.toml"), config).expect("a writable folder");
    folder
}

/// All event files of a run.
fn event_files(run: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(run).expect("a run folder");
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    paths
        .filter(|path| path.to_string_lossy().contains("tfevents"))
        .collect()
}

/// The one event file of a run.
#[track_caller]
fn event_file(run: &Path) -> PathBuf {
    let mut files = event_files(run);
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

/// CRC-32C bit by bit, from its polynomial.
fn crc32c(bytes: &[u8]) -> u32 {
    let shift = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
    let crc = bytes
        .iter()
        .fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), shift));
    !crc
}

/// The messages of an event file, whose checksums must hold.
#[track_caller]
fn messages(path: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).expect("an event file");
    let mut rest = bytes.as_slice();
    let mut take = |n: usize| {
        let (first, others) = rest.split_at_checked(n)?;
        rest = others;
        Some(first.to_vec())
    };
    let masked = |bytes: &[u8]| {
        let crc = crc32c(bytes);
        // Rotated by 15 bits to the right, which is 17 to the left.
        crc.rotate_left(17)
            .wrapping_add(0xa282_ead8)
            .to_le_bytes()
            .to_vec()
    };
    let mut messages = Vec::new();
    while let Some(length) = take(8) {
        assert_eq!(take(4), Some(masked(&length)), "checksum of a length");
        let n = u64::from_le_bytes(length.try_into().expect("8 bytes"));
        let message = take(usize::try_from(n).expect("a length")).expect("a whole message");
        assert_eq!(take(4), Some(masked(&message)), "checksum of a message");
        messages.push(message);
    }
    messages
}

/// `tensorflow.Event`, as far as scalars need it.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

/// `tensorflow.Summary.Value`.
#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// The curves in a run's event file; times must rise, and the first message must be the version.
#[track_caller]
fn curves(run: &Path) -> Curves {
    let messages = messages(&event_file(run));
    let events = messages
        .iter()
        .map(|message| Event::decode(message.as_slice()).expect("an event"));
    let events: Vec<Event> = events.collect();
    assert_eq!(events[0].file_version.as_deref(), Some("brain.Event:2"));
    let rise = events.is_sorted_by(|a, b| a.wall_time <= b.wall_time);
    assert!(rise, "times fall in {}", run.display());
    let mut curves = Curves::new();
    for event in events {
        for value in event.summary.into_iter().flat_map(|s| s.value) {
            if let Some(number) = value.simple_value {
                let curve = curves.entry(value.tag).or_default();
                curve.push((event.step, number.to_bits()));
            }
        }
    }
    curves
}

/// The curves that `metrics.jsonl` has.
fn expected(run: &Path) -> Curves {
    let text = fs::read_to_string(run.join("metrics.jsonl")).expect("a metrics file");
    let mut curves = Curves::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("a JSON object");
        let whole = |key: &str| line[key].as_i64().expect("a whole number");
        let event = line["event"].as_str().expect("a name");
        let (step, keys): (i64, &[(&str, &str)]) = match event {
            "step" => (
                whole("step"),
                &[("loss", "step/loss"), ("accuracy", "step/accuracy")],
            ),
            "epoch" => (
                whole("epoch") + 1,
                &[
                    ("train_loss", "train/loss"),
                    ("train_accuracy", "train/accuracy"),
                    ("eval_loss", "eval/loss"),
                    ("eval_accuracy", "eval/accuracy"),
                    ("seconds", "seconds_per_epoch"),
                ],
            ),
            "layer" => (
                whole("epoch") + 1,
                &[
                    ("gradient_cosine", "gradient_cosine"),
                    ("gradient_norm_ratio", "gradient_norm_ratio"),
                    ("feedback_cosine", "feedback_cosine"),
                    ("weight_change", "weight_change"),
                    ("kernel_drift", "kernel_drift"),
                ],
            ),
            _ => continue,
        };
        for (key, tag) in keys {
            let tag = match event {
                "layer" => format!("layer {}/{tag}", whole("layer")),
                _ => (*tag).to_owned(),
            };
            if let Some(value) = line[key].as_f64() {
                let point = (step, (value as f32).to_bits());
                curves.entry(tag).or_default().push(point);
            }
        }
    }
    curves
}

/// What the real TensorBoard reads; none where it is not installed and need not be.
fn read_by_tensorboard(run: &Path) -> Option<Value> {
    let python = std::env::var("SANSPROP_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut import = Command::new(&python);
    import.args(["-c", "import tensorboard"]);
    let there = import.stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        let required = std::env::var("SANSPROP_REQUIRE_TENSORBOARD").is_ok_and(|v| v == "1");
        assert!(!required, "{python} has no tensorboard");
        eprintln!("skipped: {python} has no tensorboard");
        return None;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tensorboard_events.py");
    let output = Command::new(&python).arg(script).arg(run).output();
    let output = output.expect("Python starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    Some(serde_json::from_slice(&output.stdout).expect("JSON"))
}

fn curves_of_json(found: &Value) -> Curves {
    let point = |point: &Value| {
        let value: f32 = point[1]
            .as_str()
            .expect("a text")
            .parse()
            .expect("a number");
        (point[0].as_i64().expect("a step"), value.to_bits())
    };
    let curves = found["scalars"].as_object().expect("curves");
    curves
        .iter()
        .map(|(tag, points)| {
            let points = points.as_array().expect("points");
            (tag.clone(), points.iter().map(point).collect())
        })
        .collect()
}

/// Oracle: metrics.jsonl, number by number, read by the real TensorBoard and by this file's own reader.
#[test]
fn tensorboard_shows_what_metrics_say() {
    let folder = folder_with(SMALL);
    let arguments = [
        "train",
        "c.toml",
        "--out",
        "run",
        "--gradient-angle",
        "--layer-drift",
    ];
    expect(folder.path(), &arguments, 0);
    let run = folder.path().join("run");
    let oracle = expected(&run);
    assert_eq!(oracle.len(), 2 + 5 + 4 * 5, "{:?}", oracle.keys());
    assert_eq!(oracle["step/loss"].len(), 3 * 15);
    assert_eq!(oracle["layer 4/kernel_drift"].len(), 3);
    let steps: Vec<i64> = oracle["eval/accuracy"].iter().map(|p| p.0).collect();
    assert_eq!(steps, [1, 2, 3]);
    assert_eq!(curves(&run), oracle);
    let Some(found) = read_by_tensorboard(&run) else {
        return;
    };
    assert_eq!(found["version"], 2.0);
    assert_eq!(curves_of_json(&found), oracle);
    assert_eq!(found["plugins"], serde_json::json!({"config": "text"}));
    let config = fs::read_to_string(run.join("config.toml")).expect("a config");
    let text = found["texts"]["config"].as_str().expect("a text");
    let code: Vec<&str> = text.lines().map(|line| &line[4..]).collect();
    assert_eq!(code, config.lines().collect::<Vec<_>>());
}

/// Oracle: RFC 3720, appendix B.4.
#[test]
fn checksums_are_those_of_the_rfc() {
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    let rising: Vec<u8> = (0..32).collect();
    assert_eq!(crc32c(&rising), 0x46dd_794e);
}

/// Waits until the child has made a file with at least so many lines.
#[track_caller]
fn wait_for(path: &Path, lines: usize) {
    let started = Instant::now();
    let found = || fs::read(path).map_or(0, |b| b.iter().filter(|&&b| b == b'\n').count());
    while found() < lines {
        assert!(started.elapsed() < Duration::from_secs(60), "too slow");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn kill(mut child: Child) {
    // It may have ended by itself.
    let _ = child.kill();
    child.wait().expect("the process ends");
}

/// Oracle: an undisturbed run, point by point, but for seconds.
#[test]
fn a_killed_run_has_the_points_of_an_undisturbed_one() {
    let config = "[network]\nwidth = 6\n[train]\nepochs = 300\n[data]\ntrain_points = 200\n\
        [run]\nlog_steps = true\ngradient_angle = true\ntensorboard = true\ncheckpoint_every = 5\n";
    let folder = folder_with(config);
    let here = folder.path();
    expect(here, &["train", "c.toml", "--out", "whole"], 0);
    let run = here.join("killed");
    let arguments = ["train", "c.toml", "--out", "killed"];
    let child = sansprop(here, &arguments).spawn();
    // With steps and layers, an epoch has 2 + 4 + 1 lines: the kill is behind the checkpoint of epoch 5.
    wait_for(&run.join("metrics.jsonl"), 8 * 7);
    kill(child.expect("the binary starts"));
    assert!(run.join("checkpoint.safetensors").exists());
    assert!(!run.join("result.json").exists(), "killed too late");
    let file = event_file(&run);
    let mut torn = fs::read(&file).expect("an event file");
    torn.truncate(torn.len() - 5);
    fs::write(&file, torn).expect("a writable file");
    // A second file, as a worker that lost the run might have left it.
    fs::copy(&file, run.join("events.out.tfevents.4000000000.other")).expect("a writable folder");
    let resume = ["train", "c.toml", "--out", "killed", "--resume"];
    expect(here, &resume, 0);
    let resumed = format!("{}.1", file.display());
    assert_eq!(event_file(&run).display().to_string(), resumed);
    let found = curves(&run);
    assert_eq!(found, expected(&run));
    let without_seconds = |mut curves: Curves| {
        curves.remove("seconds_per_epoch");
        curves
    };
    let whole = curves(&here.join("whole"));
    assert_eq!(whole["train/loss"].len(), 300);
    assert_eq!(without_seconds(found), without_seconds(whole));
}

/// Oracle: metrics.jsonl, right after the interrupt, and after a resumption that first asks for an event file.
#[test]
fn an_interrupted_run_has_all_its_points() {
    let folder = folder_with(SMALL);
    let run = folder.path().join("run");
    let endless = ["--set", "train.epochs=1000000"];
    let interrupted = |options: &[&str], lines: usize| {
        let mut arguments = vec!["train", "c.toml", "--out", "run"];
        arguments.extend(endless);
        arguments.extend(options);
        let mut child = sansprop(folder.path(), &arguments)
            .spawn()
            .expect("the binary starts");
        wait_for(&run.join("metrics.jsonl"), lines);
        let id = child.id().to_string();
        let killed = Command::new("kill").args(["-INT", &id]).status();
        assert!(killed.expect("kill runs").success());
        child.wait().expect("the process ends");
        let text = fs::read_to_string(run.join("metrics.jsonl")).expect("a metrics file");
        text.lines().count()
    };
    let lines = interrupted(&[], 50);
    assert_eq!(curves(&run), expected(&run));
    // Without the key there is no file that would say less than the run has done.
    let lines = interrupted(&["--resume", "--set", "run.tensorboard=false"], lines + 50);
    assert_eq!(event_files(&run), [] as [PathBuf; 0]);
    interrupted(&["--resume"], lines + 50);
    assert_eq!(curves(&run), expected(&run));
}

/// Oracle: NaN at the epoch that diverged, whether or not it has a line.
#[test]
fn a_diverged_loss_is_not_a_number() {
    let folder = folder_with(SMALL);
    let arguments = ["train", "c.toml", "--out", "run", "--set", "train.lr=1e30"];
    expect(folder.path(), &arguments, 1);
    let run = folder.path().join("run");
    let found = curves(&run);
    let nan = |points: &[(i64, u32)]| {
        let (step, bits) = *points.last().expect("points");
        assert!(f32::from_bits(bits).is_nan(), "{points:?}");
        step
    };
    assert_eq!(nan(&found["train/loss"]), 1);
    assert_eq!(found["train/loss"].len(), 1);
    let last = found["step/loss"].len() as i64 - 1;
    assert_eq!(nan(&found["step/loss"]), last);
    if let Some(read) = read_by_tensorboard(&run) {
        assert_eq!(curves_of_json(&read), found);
    }
}

/// Oracle: metrics.jsonl of each trial; the name of a run, which is a hash of what may change its result.
#[test]
fn every_trial_has_one_file_and_keeps_its_name() {
    let folder = folder_with(SMALL);
    let here = folder.path();
    let compare = |tensorboard: &str| {
        let set = format!("run.tensorboard={tensorboard}");
        let arguments = [
            "compare",
            "--widths",
            "3",
            "--epochs",
            "1",
            "--rules",
            "normal,fa",
            "--set",
            &set,
        ];
        expect(here, &arguments, 0);
        let entries = fs::read_dir(here.join("runs")).expect("runs");
        let paths = entries.map(|entry| entry.expect("a readable folder").path());
        let mut runs: Vec<PathBuf> = paths.filter(|path| path.is_dir()).collect();
        runs.sort();
        runs
    };
    let runs = compare("true");
    assert_eq!(runs.len(), 2, "{runs:?}");
    for run in &runs {
        assert_eq!(curves(run), expected(run));
    }
    assert_eq!(compare("false"), runs);
    for run in &runs {
        assert_eq!(event_files(run), [] as [PathBuf; 0], "an earlier run's");
    }
    let sweep = "[train]\nepochs = 1\n[run]\ntensorboard = true\n[network]\nwidth = 3\n[sweep]\nrule = [\"fa\", \"dfa\"]\n";
    fs::write(here.join("s.toml"), sweep).expect("a writable folder");
    expect(here, &["sweep", "s.toml", "--out", "swept"], 0);
    let mut trials = 0;
    for entry in fs::read_dir(here.join("swept")).expect("a sweep's folder") {
        let run = entry.expect("a readable folder").path();
        if run.join("metrics.jsonl").exists() {
            assert_eq!(curves(&run), expected(&run));
            trials += 1;
        }
    }
    assert_eq!(trials, 2);
    fs::write(
        here.join("axis.toml"),
        "[sweep]\ntensorboard = [true, false]\n",
    )
    .expect("a writable folder");
    let said = expect(here, &["sweep", "axis.toml"], 2);
    assert!(said.contains("changes no result"), "{said}");
}

/// Oracle: the file is named that grows over the limit: with a long config, the event file.
#[test]
fn a_file_that_cannot_be_written_is_named() {
    let long = format!("{SMALL}out = \"{}\"\n", "x".repeat(3000));
    let folder = folder_with(&long);
    // 8 blocks of 512 bytes; a write beyond them fails as on a full disk.
    let limited = "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", limited, env!("CARGO_BIN_EXE_sansprop")]);
    command.args(["train", "c.toml", "--out", "run"]);
    let output = command.current_dir(folder.path()).output();
    let output = output.expect("a shell");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let file = event_file(&folder.path().join("run"));
    let name = file.file_name().expect("a name").to_string_lossy();
    assert!(said.contains("cannot write"), "{said}");
    assert!(said.contains(&*name), "{said}");
}
