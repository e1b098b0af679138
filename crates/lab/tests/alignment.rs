//! Alignment scores of trials that any command trains, through the binary. Oracles: `sansprop align` on one trial
//! alone, an undisturbed run, counts by hand, and the names that runs had before they could be scored.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Two rules, of which one starts from a draw of its own, and two learning rates in each of four cohorts.
const SWEEP: &str = r#"
[data]
train_points = 200
[train]
epochs = 5
[run]
alignment = true
alignment_every = 2
[sweep]
rule = ["normal", "fa"]
width = [4, 8]
lr = [1, 5]
seed = [1, 2]
"#;

/// What a scored trial leaves, all of it the same whatever happened on the way.
const FILES: [&str; 3] = [
    "alignment.csv",
    "companion.safetensors",
    "final.safetensors",
];

fn sansprop(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sansprop"));
    command.current_dir(folder).args(arguments);
    command.env("SANSPROP_LOCK_EXPIRY", "0.5");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs and demands an exit code; returns standard output and standard error.
#[track_caller]
fn expect(folder: &Path, arguments: &[&str], code: i32) -> String {
    let output: Output = sansprop(folder, arguments)
        .output()
        .expect("the binary starts");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{text}");
    text
}

/// Runs for so long and kills what then still runs; says whether there was something to kill.
fn killed_after(folder: &Path, arguments: &[&str], time: Duration) -> bool {
    let mut command = sansprop(folder, arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the binary starts");
    std::thread::sleep(time);
    let running = child.try_wait().expect("a process").is_none();
    // It may end by itself at this moment.
    let _ = child.kill();
    let status = child.wait().expect("the process ends");
    running && status.code().is_none()
}

fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("a writable folder");
    }
    folder
}

fn read(path: PathBuf) -> Vec<u8> {
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The names of a sweep's run folders.
fn trials(out: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(out).expect("a sweep's folder").flatten();
    let trials = entries.filter(|e| e.path().join("config.toml").exists());
    trials
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect()
}

#[track_caller]
fn same(found: &Path, oracle: &Path) {
    for name in FILES {
        let place = found.join(name).display().to_string();
        assert!(
            read(found.join(name)) == read(oracle.join(name)),
            "{place} differs"
        );
    }
}

/// Epoch, step, layer, score, permuted score.
type Row = (usize, u64, usize, f64, f64);

fn rows(run: &Path) -> Vec<Row> {
    let mut reader = csv::Reader::from_path(run.join("alignment.csv")).expect("alignment.csv");
    let head: Vec<String> = reader
        .headers()
        .expect("a head")
        .iter()
        .map(Into::into)
        .collect();
    assert_eq!(head, ["epoch", "step", "layer", "score", "score_permuted"]);
    let rows = reader.deserialize();
    rows.map(|row| row.expect("a row")).collect()
}

/// Oracle: `sansprop align` on each trial's own config, one trial alone in its cohort.
#[test]
fn a_sweep_scores_every_trial_as_align_does() {
    let folder = folder_with(&[("s.toml", SWEEP)]);
    let here = folder.path();
    expect(here, &["sweep", "s.toml", "--jobs", "2"], 0);
    let out = here.join("runs/s");
    let trials = trials(&out);
    assert_eq!(trials.len(), 16);
    for trial in &trials {
        let config = format!("runs/s/{trial}/config.toml");
        let alone = format!("alone/{trial}");
        expect(here, &["align", &config, "--out", &alone], 0);
        same(&out.join(trial), &here.join(&alone));
        let text = |folder: &Path| read(folder.join("config.toml"));
        assert!(
            text(&out.join(trial)) == text(&here.join(&alone)),
            "{trial}"
        );
    }
    let first = rows(&out.join(trials.first().expect("trials")));
    let keys: Vec<_> = first.iter().map(|r| (r.0, r.1, r.2)).collect();
    let of = |epoch: usize| (1..=3).map(move |layer| (epoch, 2 * (epoch as u64 + 1), layer));
    assert_eq!(keys, [1, 3, 4].into_iter().flat_map(of).collect::<Vec<_>>());
    assert!(
        first
            .iter()
            .all(|r| r.3 > 0.0 && r.3 <= 1.0 + 1e-6 && r.4.is_finite())
    );

    // Scored or not, what a trial learns is the same: oracle, the run without a companion.
    let trial = trials.first().expect("trials");
    let config = format!("runs/s/{trial}/config.toml");
    let unscored = ["--set", "run.alignment=false", "--out", "unscored"];
    expect(here, &[&["train", &config], &unscored[..]].concat(), 0);
    let last = |run: PathBuf| read(run.join("final.safetensors"));
    assert!(last(out.join(trial)) == last(here.join("unscored")));
    assert!(!here.join("unscored/alignment.csv").exists());
    // A run that replaces a scored one leaves none of its scores.
    expect(
        here,
        &[&["train", &config], &unscored[..2], &["--out", "one"]].concat(),
        0,
    );
    expect(
        here,
        &["train", &config, "--out", "one", "--force", "--resume"],
        2,
    );
    expect(here, &["train", &config, "--out", "one", "--force"], 0);
    same(&here.join("one"), &out.join(trial));
    let again = ["--out", "one", "--force"];
    expect(
        here,
        &[&["train", &config], &unscored[..2], &again].concat(),
        0,
    );
    assert!(!here.join("one/alignment.csv").exists());
    assert!(!here.join("one/companion.safetensors").exists());
}

/// Oracle: `sansprop align` on the config of one of the trials.
#[test]
fn compare_scores_its_trials() {
    let folder = folder_with(&[]);
    let here = folder.path();
    let common = [
        "--set",
        "run.alignment=true",
        "--set",
        "data.train_points=200",
    ];
    let own = [
        "compare",
        "--widths",
        "4",
        "--rules",
        "dfa,align-zero",
        "--epochs",
        "2",
    ];
    expect(here, &[&own[..], &common].concat(), 0);
    let runs = trials(&here.join("runs"));
    assert_eq!(runs.len(), 2);
    for run in &runs {
        let run = here.join("runs").join(run);
        let config = run.join("config.toml").display().to_string();
        expect(here, &["align", &config, "--out", "alone", "--force"], 0);
        same(&run, &here.join("alone"));
    }
    // align-zero is its own companion: all layers align perfectly.
    let zero = runs.iter().find(|r| r.contains("align-zero"));
    let zero = rows(&here.join("runs").join(zero.expect("a run")));
    assert_eq!(zero.len(), 3);
    assert!(
        zero.iter().all(|row| (row.3 - 1.0).abs() < 1e-6),
        "{zero:?}"
    );
}

/// Milliseconds up to `most`, the same in every run of the tests.
fn pseudo_random(state: &mut u64, most: u64) -> Duration {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    Duration::from_millis((*state >> 33) % most)
}

#[test]
fn a_killed_sweep_ends_with_the_scores_of_an_undisturbed_one() {
    let sweep = SWEEP
        .replace("epochs = 5", "epochs = 50\noptimizer = \"adam\"")
        .replace("lr = [1, 5]", "lr = [0.01, 0.003]")
        .replace(
            "[run]",
            "[run]\ncheckpoint_every = 7\ncheckpoint_minutes = 0.01",
        )
        .replace("alignment_every = 2", "alignment_every = 1");
    let folder = folder_with(&[("s.toml", &sweep)]);
    let here = folder.path();
    expect(here, &["sweep", "s.toml", "--out", "oracle"], 0);
    let arguments = ["sweep", "s.toml", "--out", "killed", "--jobs", "2"];
    let mut state = 3;
    let mut kills = 0;
    for _ in 0..8 {
        let time = Duration::from_millis(150) + pseudo_random(&mut state, 500);
        kills += usize::from(killed_after(here, &arguments, time));
    }
    assert!(kills >= 3, "only {kills} kills hit an unfinished sweep");
    expect(here, &arguments, 0);
    let (killed, oracle) = (here.join("killed"), here.join("oracle"));
    assert_eq!(trials(&killed), trials(&oracle));
    for trial in trials(&oracle) {
        assert_eq!(rows(&oracle.join(&trial)).len(), 3 * 50);
        same(&killed.join(&trial), &oracle.join(&trial));
    }
}

#[test]
fn a_killed_align_is_resumed() {
    let config = "[network]\nwidth = 6\n[train]\nepochs = 200\noptimizer = \"adam\"\nlr = 0.01\n\
        [data]\ntrain_points = 200\n[run]\ncheckpoint_every = 2\ncheckpoint_minutes = 0.0002\n";
    let folder = folder_with(&[("c.toml", config)]);
    let here = folder.path();
    let asked = ["align", "c.toml", "--every", "3", "--probes", "2"];
    let asked = [&asked[..], &["--probe-batch", "3"]].concat();
    let whole = expect(here, &[&asked[..], &["--out", "whole"]].concat(), 0);
    let resumed = [&asked[..], &["--out", "parts", "--resume"]].concat();
    // Killed soon after each of the first checkpoints that it leaves.
    let mut state = 5;
    let mut kills = 0;
    let waiting = Instant::now();
    while kills < 5 && waiting.elapsed() < Duration::from_secs(60) {
        let time = Duration::from_millis(40) + pseudo_random(&mut state, 60);
        if !killed_after(here, &resumed, time) {
            break;
        }
        kills += usize::from(here.join("parts/checkpoint.safetensors").exists());
    }
    assert!(kills >= 3, "only {kills} kills hit a run with a checkpoint");
    // Ctrl-C: a checkpoint, and no score where it stopped.
    let mut child = sansprop(here, &resumed).spawn().expect("the binary starts");
    std::thread::sleep(Duration::from_millis(50));
    let mut interrupt = Command::new("kill");
    interrupt.args(["-INT", &child.id().to_string()]);
    assert!(interrupt.status().is_ok_and(|status| status.success()));
    child.wait().expect("the process ends");
    let text = expect(here, &resumed, 0);
    same(&here.join("parts"), &here.join("whole"));
    let probes = |run: &str| read(here.join(run).join("alignment_probes.csv"));
    assert!(probes("parts") == probes("whole"));
    // The table that is printed holds all scores, those of before the kills too.
    let table = |text: &str| {
        let lines = text.lines().filter(|line| line.starts_with("│"));
        let scored = lines.filter(|line| !line.contains("normal"));
        scored.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(table(&text), table(&whole));
    assert!(expect(here, &resumed, 0).contains("completed already"));
    expect(here, &[&resumed[..], &["--integrated"]].concat(), 2);
}

/// A checkpoint whose scores are gone cannot give an undisturbed run's file: said, with what to do.
#[test]
fn scores_that_are_missing_are_named() {
    let config = "[network]\nwidth = 4\n[train]\nepochs = 4000\n[data]\ntrain_points = 200\n\
        [run]\nalignment = true\nalignment_every = 1\ncheckpoint_every = 1\n";
    let folder = folder_with(&[("c.toml", config)]);
    let here = folder.path();
    let arguments = ["train", "c.toml", "--out", "run", "--resume"];
    let waiting = Instant::now();
    while !here.join("run/checkpoint.safetensors").exists() {
        assert!(waiting.elapsed() < Duration::from_secs(60), "no checkpoint");
        assert!(killed_after(here, &arguments, Duration::from_millis(200)));
    }
    fs::remove_file(here.join("run/alignment.csv")).expect("a file");
    let said = expect(here, &arguments, 1);
    assert!(
        said.contains("alignment.csv") && said.contains("delete it"),
        "{said}"
    );
}

/// Oracle: metrics.jsonl, which says which epochs ended with finite losses.
#[test]
fn a_diverged_trial_keeps_the_scores_of_its_finite_epochs() {
    let config = "[network]\nkind = \"dense\"\nwidth = 4\nnorm = \"none\"\nparameterization = \"standard\"\n\
        [train]\nepochs = 60\nlr = 30\nrule = \"fa\"\n[data]\ntrain_points = 200\n\
        [run]\nalignment = true\nalignment_every = 1\n";
    let folder = folder_with(&[("c.toml", config)]);
    let here = folder.path();
    let said = expect(here, &["train", "c.toml", "--out", "run"], 1);
    assert!(said.contains("diverged"), "{said}");
    let metrics = String::from_utf8(read(here.join("run/metrics.jsonl"))).expect("text");
    let ended = metrics
        .lines()
        .filter(|l| l.contains("\"event\":\"epoch\"") && !l.contains("null"));
    let ended = ended.count();
    let rows = rows(&here.join("run"));
    let keys: Vec<_> = rows.iter().map(|r| (r.0, r.2)).collect();
    let expected = (0..ended).flat_map(|epoch| (1..=3).map(move |layer| (epoch, layer)));
    assert!(ended > 3, "{ended} epochs");
    assert_eq!(keys, expected.collect::<Vec<_>>());
    assert!(
        rows.iter().all(|r| r.3.is_finite() && r.4.is_finite()),
        "{rows:?}"
    );
    assert!(!here.join("run/companion.safetensors").exists());

    // From the first step on there is nothing to score, and a file that says so.
    let at_once = ["--set", "train.lr=1e30", "--out", "none"];
    expect(here, &[&["train", "c.toml"], &at_once[..]].concat(), 1);
    let text = read(here.join("none/alignment.csv"));
    assert_eq!(text, b"epoch,step,layer,score,score_permuted\n");
}

#[test]
fn recurrent_networks_are_refused() {
    let config = "[network]\nkind = \"recurrent\"\nwidth = 4\n[train]\nepochs = 1\n";
    let scored = "[network]\nkind = \"recurrent\"\n[run]\nalignment = true\n[sweep]\nwidth = [4]\n";
    let folder = folder_with(&[("c.toml", config), ("s.toml", scored)]);
    let here = folder.path();
    let set = ["train", "c.toml", "--set", "run.alignment=true"];
    for arguments in [&set[..], &["align", "c.toml"], &["sweep", "s.toml"]] {
        let said = expect(here, arguments, 2);
        assert!(
            said.contains("run.alignment")
                && said.contains("alignment is scored for convolutional and dense networks"),
            "{said}"
        );
    }
    assert!(!here.join("runs").exists());
}

/// Names of trials as `--dry-run` lists them.
fn names(folder: &Path, run: &str) -> Vec<String> {
    let axes = "[sweep]\nrule = [\"normal\", \"align-ada\"]\n";
    fs::write(folder.join("n.toml"), format!("{run}{axes}")).expect("a writable folder");
    let text = expect(folder, &["sweep", "n.toml", "--dry-run"], 0);
    let lines = text.lines().filter(|line| line.starts_with("  digits-"));
    let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
    lines.filter_map(first).collect()
}

/// Oracle: the names that these trials had before there were the keys.
#[test]
fn names_change_only_where_alignment_is_scored() {
    let folder = folder_with(&[]);
    let here = folder.path();
    let before = [
        "digits-conv-w32-normal-45ddbf0a566d",
        "digits-conv-w32-align-ada-ed03056b3064",
    ];
    assert_eq!(names(here, ""), before);
    let off = "[run]\nalignment = false\nalignment_every = 3\n";
    assert_eq!(names(here, off), before);
    let on = names(here, "[run]\nalignment = true\n");
    let often = names(here, "[run]\nalignment = true\nalignment_every = 3\n");
    let all: BTreeSet<_> = on.iter().chain(&often).cloned().collect();
    assert_eq!(all.len(), 4);
    assert!(before.iter().all(|name| !all.contains(*name)));
}

/// Oracle: passes counted by hand, over 1500 samples in training and 297 in evaluation: three of backprop, two of
/// `dfa`; a companion adds three, of which cohorts share one where the rule starts from the align rules' draw.
#[test]
fn a_companion_is_part_of_the_expected_cost() {
    let folder = folder_with(&[]);
    let here = folder.path();
    let flops = |run: &str, rules: &str| -> f64 {
        let text =
            format!("[train]\nepochs = 1\n[network]\nwidth = 4\n{run}[sweep]\nrule = [{rules}]\n");
        fs::write(here.join("c.toml"), text).expect("a writable folder");
        let text = expect(here, &["sweep", "c.toml", "--dry-run"], 0);
        let number = text
            .split(" FLOPs, about")
            .next()
            .and_then(|t| t.split_whitespace().last());
        number.and_then(|n| n.parse().ok()).expect("a number")
    };
    let on = "[run]\nalignment = true\n";
    let cases = [
        ("\"normal\"", 3, 6, 1),
        ("\"dfa\"", 2, 5, 1),
        ("\"normal\", \"sign-symmetry\"", 6, 11, 2),
    ];
    for (rules, without, with, trials) in cases {
        let count = |passes: usize| (1500 * passes + 297 * trials) as f64;
        let ratio = flops(on, rules) / flops("", rules);
        let expected = count(with) / count(without);
        assert!(
            (ratio / expected - 1.0).abs() < 0.01,
            "{rules}: {ratio} {expected}"
        );
    }
}
