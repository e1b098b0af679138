//! `sansprop bench` through the binary, at tiny size.

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const SMALL: &str = "[network]\nwidth = 3\n[data]\ntrain_points = 300\n";
const RECURRENT: &str =
    "[data]\nname = \"add-task\"\nsteps = 10\n[network]\nwidth = 4\nactivation = \"tanh\"\n";
/// One step of one trial, on one thread.
const BRIEF: [&str; 6] = ["--steps", "1", "--trials", "1", "--threads", "1"];

fn temporary(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("c.toml"), config).expect("a writable folder");
    folder
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sansprop"));
    command.current_dir(folder).arg("bench").args(arguments);
    command
}

/// Runs and demands an exit code; returns standard output and standard error.
#[track_caller]
fn expect(folder: &Path, arguments: &[&str], code: i32) -> (String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command(folder, arguments)
        .output()
        .expect("the binary starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&stdout), text(&stderr));
    assert_eq!(status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
    (out, err)
}

/// The lines of `--json`, each of which must be an object.
#[track_caller]
fn objects(out: &str) -> Vec<Value> {
    let object = |line| serde_json::from_str(line).expect("a JSON object");
    out.lines().map(object).collect()
}

#[test]
fn tables_for_people() {
    let folder = temporary(SMALL);
    let arguments = ["c.toml", "--widths", "3,4", "--steps", "2", "--trials", "2"];
    let (out, _) = expect(folder.path(), &arguments, 0);
    for rule in ["normal", "align-ada", "align-zero", "dfa", "last-layer"] {
        // Two rows of steps, one of epochs.
        assert_eq!(out.matches(&format!("│ {rule} ")).count(), 3, "{out}");
    }
    for part in [
        "digits: 300 training samples, batch 100",
        "GFLOP/s of multiply-adds in registers",
        "GB/s of a triad in memory",
        "extrapolated: median step of a trial × 3 steps",
        "mean ± standard error over 2 trials",
        "width 3",
        "width 4",
        "(1.00)",
        "seeds 99, 100, cpu (",
        "f32",
    ] {
        assert!(out.contains(part), "{part}\n{out}");
    }
}

/// Oracle: what each number follows from is on the same line.
#[test]
fn json_holds_together() {
    let folder = temporary(SMALL);
    let arguments = [
        "c.toml",
        "--json",
        "--rules",
        "dfa,normal",
        "--widths",
        "3,5",
        "--steps",
        "3",
        "--trials",
        "2",
        "--threads",
        "2",
        "--set",
        "train.seed=7",
    ];
    let (out, _) = expect(folder.path(), &arguments, 0);
    let lines = objects(&out);
    let which: Vec<_> = lines
        .iter()
        .map(|line| (line["rule"].as_str(), line["width"].as_u64()))
        .collect();
    let right = [("dfa", 3), ("normal", 3), ("dfa", 5), ("normal", 5)];
    assert_eq!(which, right.map(|(rule, width)| (Some(rule), Some(width))));
    for line in &lines {
        let number = |key: &str| {
            let number = line[key].as_f64();
            number.unwrap_or_else(|| panic!("{key} of {line}"))
        };
        let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{a} {b} {line}");
        assert_eq!(line["status"], "measured");
        assert_eq!(line["seeds"], serde_json::json!([7, 8]));
        assert_eq!(
            (&line["precision"], &line["threads"]),
            (&"f32".into(), &2.into())
        );
        assert_eq!((&line["batch"], &line["steps"]), (&100.into(), &3.into()));
        assert!(
            line["isa"].is_string() && line["device"].is_string(),
            "{line}"
        );
        let (median, least) = (number("step_ms_median"), number("step_ms_min"));
        assert!(0.0 < least && least <= median, "{line}");
        let (gflops, flops) = (number("gflops"), number("flops_per_step"));
        near(gflops, flops / median / 1e6);
        let ceiling = number("compute_ceiling_gflops");
        near(number("share_of_compute_ceiling"), gflops / ceiling);
        let moved = number("bytes_per_step") / median / 1e6;
        let ceiling = number("memory_ceiling_gbs");
        near(number("share_of_memory_ceiling"), moved / ceiling);
        assert_eq!(line["steps_per_epoch"], 3);
        assert!(number("seconds_per_epoch_mean") > 3e-3 * least * 0.999);
        assert!(number("seconds_per_epoch_standard_error") >= 0.0);
        let twin = lines
            .iter()
            .find(|twin| (&twin["rule"], &twin["width"]) == (&"normal".into(), &line["width"]));
        let trials = |line: &Value| -> Vec<f64> {
            let trials = line["step_ms_of_trials"].as_array().expect("trials");
            trials.iter().map(|t| t.as_f64().expect("a time")).collect()
        };
        let (own, normal) = (trials(line), trials(twin.expect("backprop")));
        assert_eq!((own.len(), normal.len()), (2, 2));
        let ratio = (own[0] / normal[0] + own[1] / normal[1]) / 2.0;
        near(number("ratio_to_normal"), ratio);
        if cfg!(target_os = "linux") {
            assert!(number("peak_memory_bytes") > 1e6, "{line}");
        }
    }
}

#[test]
fn recurrent_networks_are_measured() {
    let folder = temporary(RECURRENT);
    let mut arguments = vec!["c.toml", "--json"];
    arguments.extend(BRIEF);
    let (out, _) = expect(folder.path(), &arguments, 0);
    let lines = objects(&out);
    assert_eq!(lines.len(), 5);
    for line in &lines {
        assert_eq!(line["data"], "add-task");
        assert!(line["step_ms_median"].as_f64() > Some(0.0), "{line}");
        // One trial has no spread.
        assert!(line["seconds_per_epoch_standard_error"].is_null(), "{line}");
    }
    let (out, _) = expect(folder.path(), &[&["c.toml"], &BRIEF[..]].concat(), 0);
    assert!(
        out.contains("one trial") && out.contains("seed 99, cpu"),
        "{out}"
    );
}

/// More steps than an epoch has, and arithmetic without ceilings.
#[test]
fn the_reference_has_no_ceilings() {
    let folder = temporary("[network]\nwidth = 2\n[data]\ntrain_points = 20\n");
    let mut arguments = vec!["c.toml", "--rules", "dfa", "--steps", "4", "--trials", "1"];
    arguments.extend(["--set", "run.precision=f64"]);
    let (out, _) = expect(folder.path(), &arguments, 0);
    assert!(out.contains("unknown") && out.contains("f64"), "{out}");
    arguments.push("--json");
    let (out, _) = expect(folder.path(), &arguments, 0);
    let line = &objects(&out)[0];
    assert_eq!(line["steps_per_epoch"], 1);
    assert!(line["gflops"].as_f64() > Some(0.0), "{line}");
    for key in [
        "compute_ceiling_gflops",
        "memory_ceiling_gbs",
        "share_of_compute_ceiling",
        "share_of_memory_ceiling",
        "ratio_to_normal",
    ] {
        assert!(line[key].is_null(), "{key} of {line}");
    }
}

#[test]
fn a_diverging_rate_is_shown_as_such() {
    let folder = temporary(SMALL);
    let steps = [
        "c.toml",
        "--steps",
        "3",
        "--trials",
        "1",
        "--set",
        "train.lr=1e30",
    ];
    let arguments = [&steps[..], &["--rules", "normal"]].concat();
    let (out, err) = expect(folder.path(), &arguments, 1);
    assert!(
        out.contains("diverged: normal at width 3: loss not finite in step"),
        "{out}"
    );
    assert!(
        out.contains("of seed 99; a smaller train.lr may help"),
        "{out}"
    );
    assert!(
        err.contains("error: 1 of 1 measurements failed or diverged"),
        "{err}"
    );
    let (out, _) = expect(folder.path(), &[&arguments[..], &["--json"]].concat(), 1);
    let line = &objects(&out)[0];
    assert_eq!(line["status"], "diverged");
    assert!(
        line["error"]
            .as_str()
            .is_some_and(|e| e.contains("not finite")),
        "{line}"
    );
    assert!(
        line["step_ms_median"].is_null() && line["flops_per_step"].is_u64(),
        "{line}"
    );
}

/// A network that no memory holds: its process fails, the next is measured.
#[cfg(target_os = "linux")]
#[test]
fn what_fails_does_not_stop_the_others() {
    let folder = temporary(SMALL);
    let limited = format!(
        "ulimit -v 3000000; exec {} bench c.toml --json --rules normal --widths 4096,3 --steps 1 --trials 1 --threads 1",
        env!("CARGO_BIN_EXE_sansprop")
    );
    let output = Command::new("sh")
        .current_dir(folder.path())
        .args(["-c", &limited])
        .output()
        .expect("a shell");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = objects(&out);
    assert_eq!(output.status.code(), Some(1), "{out}");
    let statuses: Vec<_> = lines.iter().map(|line| line["status"].as_str()).collect();
    assert_eq!(statuses, [Some("failed"), Some("measured")], "{out}");
    assert!(
        lines[0]["error"].as_str().is_some_and(|e| !e.is_empty()),
        "{out}"
    );
}

#[test]
fn wrong_usage_says_what_would_be_right() {
    let folder = temporary(SMALL);
    let cases: [(&[&str], &str); 9] = [
        (&[], "<CONFIG>"),
        (&["none.toml"], "cannot read the config none.toml"),
        (
            &["c.toml", "--rules", "align-adda"],
            "did you mean `align-ada`?",
        ),
        (&["c.toml", "--wdiths", "3"], "--widths"),
        (
            &["c.toml", "--widths", "0"],
            "`network.width = 0`: must be at least 1",
        ),
        (&["c.toml", "--steps", "0"], "--steps"),
        (&["c.toml", "--trials", "none"], "--trials"),
        (
            &["c.toml", "--threads", "1", "--set", "run.threads=2"],
            "--threads and --set run.threads=2 contradict each other",
        ),
        (
            &["c.toml", "--set", "train.lrr=2"],
            "did you mean `train.lr`?",
        ),
    ];
    for (arguments, what) in cases {
        let (out, err) = expect(folder.path(), arguments, 2);
        assert!(
            out.is_empty() && err.contains(what),
            "{arguments:?}\n{out}\n{err}"
        );
    }
    let missing = [
        "c.toml",
        "--set",
        "data.name=cifar-10",
        "--set",
        "data.path=nowhere",
    ];
    let (out, err) = expect(folder.path(), &missing, 1);
    assert!(out.is_empty() && err.contains("nowhere"), "{err}");
}

/// Starts the binary; the lines of its standard output as they come.
#[cfg(unix)]
fn started(folder: &Path, arguments: &[&str]) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut child = command(folder, arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let stdout = child.stdout.take().expect("a pipe");
    let lines = BufReader::new(stdout).lines();
    (child, lines.map(|line| line.expect("text")))
}

/// As Ctrl-C does.
#[cfg(unix)]
#[track_caller]
fn interrupt(child: &Child) {
    let number = child.id().to_string();
    let killed = Command::new("kill").args(["-INT", &number]).status();
    assert!(killed.expect("kill runs").success());
}

#[cfg(unix)]
#[test]
fn an_interrupt_shows_what_is_measured() {
    let folder = temporary(SMALL);
    // The first width takes seconds, and its times are more than a pipe holds; the second takes minutes.
    let mut arguments = vec!["c.toml", "--json", "--rules", "normal", "--widths", "3,700"];
    arguments.extend(["--steps", "4000", "--trials", "1"]);
    let (child, mut lines) = started(folder.path(), &arguments);
    let first = lines.next().expect("a line");
    assert_eq!(objects(&first)[0]["width"], 3);
    interrupt(&child);
    let since = Instant::now();
    let output = child.wait_with_output().expect("the process ends");
    assert!(since.elapsed() < Duration::from_secs(30), "still waiting");
    assert_eq!(output.status.code(), Some(1));
    assert!(lines.next().is_none(), "nothing of the second width");
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(err.contains("error: interrupted"), "{err}");
}

/// Rules take turns, so after an interrupt each has the trials of the turns that are over.
#[cfg(unix)]
#[test]
fn an_interrupt_between_turns_keeps_the_trials() {
    let folder = temporary(SMALL);
    let mut arguments = vec!["c.toml", "--json", "--rules", "normal,dfa"];
    arguments.extend(["--widths", "3,4", "--steps", "1", "--trials", "25"]);
    let (child, mut lines) = started(folder.path(), &arguments);
    for rule in ["normal", "dfa"] {
        let line = objects(&lines.next().expect("a line"));
        assert_eq!(
            (&line[0]["rule"], &line[0]["width"]),
            (&rule.into(), &3.into())
        );
        assert_eq!(line[0]["seeds"].as_array().map(Vec::len), Some(25));
    }
    std::thread::sleep(Duration::from_millis(300));
    interrupt(&child);
    let output = child.wait_with_output().expect("the process ends");
    assert_eq!(output.status.code(), Some(1));
    // On a very slow machine no trial of the second width is over yet.
    let rest: Vec<Value> = lines.flat_map(|line| objects(&line)).collect();
    let counts = rest.iter().map(|line| {
        assert_eq!(
            (&line["width"], &line["status"]),
            (&4.into(), &"measured".into())
        );
        let count = |key: &str| line[key].as_array().expect("a list").len();
        assert_eq!(count("seeds"), count("step_ms_of_trials"));
        count("seeds")
    });
    let counts: Vec<usize> = counts.collect();
    match counts[..] {
        [] | [1] => {}
        [normal, dfa] => assert!(normal == dfa || normal == dfa + 1, "{counts:?}"),
        _ => panic!("{counts:?}"),
    }
    assert!(counts.iter().all(|&count| count < 25), "{counts:?}");
}
