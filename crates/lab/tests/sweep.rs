//! Sweeps through the binary: killed, shared, edited, damaged, on full disks. The oracle is an undisturbed sweep.
#![cfg(unix)]

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// Widths 4 to 32, all rules, two learning rates, two seeds.
const SIXTY: &str = r#"
[data]
train_points = 200
[train]
epochs = 6
[run]
log_steps = true
checkpoint_every = 2
checkpoint_minutes = 0.0003
[sweep]
rule = ["normal", "last-layer", "fa", "dfa", "sign-symmetry", "align-ada", "align-zero", "align-prop"]
width = [4, 32]
lr = [1, 5]
seed = 1
select = { over = "lr", best = "eval_accuracy" }
[[sweep.also]]
rule = ["normal", "fa", "dfa", "sign-symmetry", "align-ada", "align-zero", "align-prop"]
width = [4, 7]
seed = 2
"#;

const SMALL: &str = r#"
[data]
train_points = 100
[train]
epochs = 2
[sweep]
rule = ["normal", "align-ada"]
width = [4, 5]
seed = [1, 2]
"#;

fn sansprop(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sansprop"));
    command.current_dir(folder).args(arguments);
    command.env("SANSPROP_LOCK_EXPIRY", "0.5");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let output = sansprop(folder, arguments).output();
    output.expect("the binary starts")
}

#[track_caller]
fn expect(folder: &Path, arguments: &[&str], code: i32) -> String {
    let output = run(folder, arguments);
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{text}");
    text
}

fn start(folder: &Path, arguments: &[&str]) -> Child {
    let mut command = sansprop(folder, arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the binary starts")
}

fn kill(mut child: Child) {
    // It may have ended by itself.
    let _ = child.kill();
    child.wait().expect("the process ends");
}

/// What Ctrl-C does.
fn interrupt(child: &Child) {
    let signal = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(signal.expect("kill starts").success());
}

fn folder_with(sweep: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("s.toml"), sweep).expect("a writable folder");
    folder
}

fn trials(out: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(out).expect("a sweep's folder");
    let paths = entries.map(|e| e.expect("a readable folder").path());
    let mut trials: Vec<_> = paths.filter(|p| p.join("config.toml").exists()).collect();
    trials.sort();
    trials
}

/// Everything that a sweep's folder says, without seconds.
fn results(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for trial in trials(out) {
        let id = trial
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        for name in ["initial.safetensors", "final.safetensors", "config.toml"] {
            let bytes = fs::read(trial.join(name)).unwrap_or_else(|e| panic!("{id}/{name}: {e}"));
            all.insert(format!("{id}/{name}"), bytes);
        }
        for name in ["metrics.jsonl", "result.json"] {
            let text =
                fs::read_to_string(trial.join(name)).unwrap_or_else(|e| panic!("{id}/{name}: {e}"));
            let values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
            let clean = values.map(|value| {
                let mut value = value.unwrap_or_else(|e| panic!("{id}/{name} is torn: {e}"));
                value.as_object_mut().expect("an object").remove("seconds");
                value.to_string()
            });
            let lines: Vec<String> = clean.collect();
            all.insert(format!("{id}/{name}"), lines.join("\n").into_bytes());
        }
        assert!(!trial.join("checkpoint.safetensors").exists(), "{id}");
        let left = fs::read_dir(&trial).expect("a folder");
        let partial = |e: &fs::DirEntry| e.file_name().to_string_lossy().ends_with(".partial");
        assert!(!left.flatten().any(|e| partial(&e)), "{id}: partial files");
    }
    let curves = fs::read(out.join("curves.csv")).expect("curves");
    all.insert("curves.csv".into(), curves);
    let mut table = csv::Reader::from_path(out.join("trials.csv")).expect("a table");
    let head = table.headers().expect("a head").clone();
    for row in table.records() {
        let row = row.expect("a row");
        let cells = head
            .iter()
            .zip(row.iter())
            .filter(|(name, _)| *name != "seconds");
        let cells: Vec<_> = cells.map(|(_, cell)| cell.to_owned()).collect();
        all.insert(
            format!("trials.csv {}", &row[0]),
            cells.join(",").into_bytes(),
        );
    }
    all
}

#[track_caller]
fn same(found: &BTreeMap<String, Vec<u8>>, oracle: &BTreeMap<String, Vec<u8>>) {
    let names = |m: &BTreeMap<String, Vec<u8>>| m.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(oracle));
    for (name, bytes) in oracle {
        assert!(found[name] == *bytes, "{name} differs");
    }
}

/// Milliseconds between 0 and `most`, the same in every run of the tests.
fn pseudo_random(state: &mut u64, most: u64) -> Duration {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    Duration::from_millis((*state >> 33) % most)
}

#[test]
fn killed_twenty_times_and_shared_by_many_it_is_the_same_sweep() {
    let folder = folder_with(SIXTY);
    let here = folder.path();
    let text = expect(here, &["sweep", "s.toml", "--out", "oracle"], 0);
    assert!(text.contains("60 trials"), "{text}");
    let oracle = results(&here.join("oracle"));
    assert_eq!(trials(&here.join("oracle")).len(), 60);

    let arguments = ["sweep", "s.toml", "--out", "killed", "--jobs", "2"];
    let mut state = 1;
    let mut unfinished = 0;
    for _ in 0..20 {
        let child = start(here, &arguments);
        std::thread::sleep(Duration::from_millis(30) + pseudo_random(&mut state, 200));
        kill(child);
        let done = here.join("killed").join("trials.csv").exists();
        unfinished += usize::from(!done);
    }
    assert!(
        unfinished >= 5,
        "only {unfinished} kills hit an unfinished sweep"
    );
    expect(here, &arguments, 0);
    same(&results(&here.join("killed")), &oracle);

    // Four workers, one of them killed; then two, the first of them.
    for (out, workers) in [("two", 2), ("four", 4)] {
        let arguments = ["sweep", "s.toml", "--out", out];
        let mut children: Vec<Child> = (0..workers).map(|_| start(here, &arguments)).collect();
        std::thread::sleep(Duration::from_millis(300));
        let status = expect(here, &["status", out], 0);
        assert!(status.contains("60 trials"), "{status}");
        kill(children.remove(0));
        for mut child in children {
            let status = child.wait().expect("the process ends");
            assert_eq!(status.code(), Some(0), "{out}");
        }
        same(&results(&here.join(out)), &oracle);
        // The killed one may have completed trials and not let go of them yet; the others sweep up.
        assert_eq!(locks(&here.join(out)), [""; 0], "{out}");
    }
}

/// The locks that are left; the killed worker's probe of the clock is none.
fn locks(out: &Path) -> Vec<String> {
    // Who leaves last removes the folder, if nothing is in it.
    let entries = fs::read_dir(out.join("locks")).into_iter().flatten();
    let names = entries.flatten().map(|entry| entry.file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| !name.contains('.')).collect()
}

/// A trial that diverges at once, in a cohort that goes on; another worker ends meanwhile, and sweeps up its lock.
#[test]
fn the_lock_of_an_ended_trial_is_not_missed() {
    let sweep = "[data]\ntrain_points = 200\n[train]\nepochs = 20000\n[run]\ncheckpoint_every = 0\n\
        checkpoint_minutes = 0\n[sweep]\nwidth = 8\nlr = [1, 1e30]\n";
    let folder = folder_with(sweep);
    let here = folder.path();
    let mut both = sansprop(here, &["sweep", "s.toml", "--out", "all"]);
    let both = both.spawn().expect("the binary starts");
    let out = here.join("all");
    let ended = |path: &PathBuf| path.join("result.json").exists();
    let waiting = std::time::Instant::now();
    while !out.exists() || !trials(&out).iter().any(ended) {
        assert!(waiting.elapsed() < Duration::from_secs(30), "no end");
        std::thread::sleep(Duration::from_millis(2));
    }
    fs::write(here.join("s.toml"), sweep.replace("[1, 1e30]", "1e30")).expect("a writable folder");
    expect(here, &["sweep", "s.toml", "--out", "all"], 0);
    assert_eq!(locks(&out).len(), 1, "the other trial's");
    // Some heartbeats, which see that the lock is gone.
    std::thread::sleep(Duration::from_millis(300));
    interrupt(&both);
    let output = both.wait_with_output().expect("the process ends");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("interrupted; 1 trials are left"), "{text}");
    assert!(!text.contains("taken over"), "{text}");
    assert_eq!(locks(&out), [""; 0]);
}

#[test]
fn an_edited_file_trains_only_what_is_new_and_company_changes_nothing() {
    let folder = folder_with(SMALL);
    let here = folder.path();
    expect(here, &["sweep", "s.toml"], 0);
    let before = results(&here.join("runs/s"));
    let edited = SMALL.replace("\"normal\", ", "\"normal\", \"fa\", ");
    fs::write(here.join("s.toml"), edited).expect("a writable folder");
    let text = expect(here, &["sweep", "s.toml"], 0);
    assert_eq!(text.matches(": completed").count(), 4, "{text}");
    // A trial of its own cohort, against one in a cohort of three.
    let alone = SMALL
        .replace("\"normal\", ", "")
        .replace("[4, 5]", "5")
        .replace("[1, 2]", "2");
    fs::write(here.join("alone.toml"), alone).expect("a writable folder");
    expect(here, &["sweep", "alone.toml"], 0);
    let after = results(&here.join("runs/s"));
    let alone = results(&here.join("runs/alone"));
    let weights = |m: &BTreeMap<String, Vec<u8>>| -> BTreeMap<String, Vec<u8>> {
        let own = m.iter().filter(|(name, _)| name.contains('/'));
        own.map(|(name, bytes)| (name.clone(), bytes.clone()))
            .collect()
    };
    for (name, bytes) in weights(&before).into_iter().chain(weights(&alone)) {
        assert!(after[&name] == bytes, "{name} differs");
    }
    let dry = expect(here, &["sweep", "s.toml", "--dry-run"], 0);
    assert!(
        dry.contains("12 trials") && dry.contains("4 cohorts") && dry.contains("FLOPs"),
        "{dry}"
    );
    let parquet = fs::read(here.join("runs/s/trials.parquet")).expect("a table");
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
}

#[test]
fn what_is_wrong_is_named_and_mended() {
    let folder = folder_with(SMALL);
    let here = folder.path();
    let out = here.join("runs/s");
    expect(here, &["sweep", "s.toml"], 0);
    let oracle = results(&out);
    let all = trials(&out);

    // A trial that cannot write fails, stays in the table, and is tried again when asked.
    let broken = &all[0];
    fs::remove_file(broken.join("result.json")).expect("a file");
    fs::remove_file(broken.join("env.json")).expect("a file");
    fs::create_dir(broken.join("env.json")).expect("a folder");
    let text = expect(here, &["sweep", "s.toml"], 1);
    assert!(
        text.contains("env.json") && text.contains("1 trials failed"),
        "{text}"
    );
    let table = fs::read_to_string(out.join("trials.csv")).expect("a table");
    assert_eq!(table.matches(",failed,").count(), 1, "{table}");
    fs::remove_dir_all(broken.join("env.json")).expect("a folder");
    expect(here, &["sweep", "s.toml"], 1);
    expect(here, &["sweep", "s.toml", "--retry"], 0);
    same(&results(&out), &oracle);

    // A damaged checkpoint is named, set aside, and its trial trained anew.
    let damaged = &all[1];
    fs::remove_file(damaged.join("result.json")).expect("a file");
    fs::write(damaged.join("checkpoint.safetensors"), "no tensors").expect("a writable folder");
    let text = expect(here, &["sweep", "s.toml"], 0);
    assert!(text.contains("checkpoint.safetensors is damaged"), "{text}");
    assert!(damaged.join("checkpoint.safetensors.corrupt").exists());
    fs::remove_file(damaged.join("checkpoint.safetensors.corrupt")).expect("a file");
    same(&results(&out), &oracle);

    // A config that is not that of its folder's name.
    let config = all[2].join("config.toml");
    let text = fs::read_to_string(&config).expect("a config");
    fs::write(&config, text.replace("lr = 5.0", "lr = 4.0")).expect("a writable folder");
    let said = expect(here, &["sweep", "s.toml"], 1);
    assert!(said.contains("`train.lr` differs"), "{said}");
    fs::write(&config, text).expect("a writable folder");
    expect(here, &["sweep", "s.toml"], 0);
    same(&results(&out), &oracle);

    // Two parts make the whole.
    for part in ["1/2", "2/2"] {
        expect(
            here,
            &["sweep", "s.toml", "--out", "parts", "--shard", part],
            0,
        );
    }
    same(&results(&here.join("parts")), &oracle);
    expect(here, &["sweep", "s.toml", "--shard", "3/2"], 2);
    fs::write(here.join("bad.toml"), "[sweep]\nrul = [\"fa\"]\n").expect("a writable folder");
    let said = expect(here, &["sweep", "bad.toml"], 2);
    assert!(said.contains("did you mean `rule`"), "{said}");
}

/// A folder that nobody, not even the superuser, can write; a disk that is full.
#[test]
fn disks_that_refuse() {
    let folder = folder_with(SMALL);
    let here = folder.path();
    let out = here.join("full");
    fs::create_dir(&out).expect("a writable folder");
    let mount = |options: &str| {
        let mut command = Command::new("mount");
        command
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&out);
        command.stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !mount("size=64k") {
        eprintln!("skipped: no right to mount a small disk");
        return;
    }
    let full = run(here, &["sweep", "s.toml", "--out", "full"]);
    let _ = mount("remount,size=20m");
    let resumed = run(here, &["sweep", "s.toml", "--out", "full", "--retry"]);
    let rows = fs::read_to_string(out.join("trials.csv"));
    let _ = mount("remount,ro");
    let refused = run(here, &["sweep", "s.toml", "--out", "full"]);
    let unmounted = Command::new("umount").arg(&out).status();
    assert!(unmounted.is_ok_and(|s| s.success()));
    let text = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(full.status.code(), Some(1), "{}", text(&full));
    assert!(text(&full).contains("cannot write"), "{}", text(&full));
    assert_eq!(resumed.status.code(), Some(0), "{}", text(&resumed));
    assert_eq!(rows.expect("a table").matches(",completed,").count(), 8);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(
        text(&refused).contains("cannot write"),
        "{}",
        text(&refused)
    );
}

#[test]
fn a_killed_run_is_resumed() {
    let folder = folder_with("");
    let here = folder.path();
    let config = "[network]\nwidth = 6\n[train]\nepochs = 60\noptimizer = \"adam\"\nlr = 0.01\n\
        [data]\ntrain_points = 200\n[run]\ncheckpoint_every = 1\n";
    fs::write(here.join("c.toml"), config).expect("a writable folder");
    expect(here, &["train", "c.toml", "--out", "a/whole"], 0);
    let child = start(here, &["train", "c.toml", "--out", "b/whole"]);
    let waiting = std::time::Instant::now();
    while !here.join("b/whole/checkpoint.safetensors").exists() {
        assert!(waiting.elapsed() < Duration::from_secs(30), "no checkpoint");
        std::thread::sleep(Duration::from_millis(2));
    }
    kill(child);
    expect(
        here,
        &["train", "c.toml", "--out", "b/whole", "--resume"],
        0,
    );
    let read = |path: &str| fs::read(here.join(path)).expect("a file");
    assert!(read("a/whole/final.safetensors") == read("b/whole/final.safetensors"));
    let text = expect(
        here,
        &["train", "c.toml", "--out", "b/whole", "--resume"],
        0,
    );
    assert!(text.contains("completed already"), "{text}");
}

/// Ctrl-C ends a sweep of recurrent networks with checkpoints, and the same command goes on from them.
#[test]
fn stopped_by_ctrl_c_it_goes_on() {
    let folder = folder_with(
        "[data]\nname = \"add-task\"\n[train]\nepochs = 40\n[sweep]\nwidth = 8\n\
         rule = [\"normal\", \"last-layer\", \"align-zero\"]\n",
    );
    let here = folder.path();
    expect(here, &["sweep", "s.toml", "--out", "oracle"], 0);
    let mut child = sansprop(here, &["sweep", "s.toml"]);
    let child = child.spawn().expect("the binary starts");
    let begun = || {
        let any = |out: fs::ReadDir| {
            let metrics = out.flatten().map(|e| e.path().join("metrics.jsonl"));
            metrics
                .filter_map(|path| fs::metadata(path).ok())
                .any(|m| m.len() > 0)
        };
        fs::read_dir(here.join("runs/s")).is_ok_and(any)
    };
    let waiting = std::time::Instant::now();
    while !begun() {
        assert!(waiting.elapsed() < Duration::from_secs(30), "no epoch");
        std::thread::sleep(Duration::from_millis(2));
    }
    interrupt(&child);
    let output = child.wait_with_output().expect("the process ends");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(1), "{out}\n{err}");
    assert!(err.contains("interrupted; 3 trials are left"), "{err}");
    assert!(out.contains("1 interrupted"), "{out}");
    for trial in trials(&here.join("runs/s")) {
        assert!(trial.join("checkpoint.safetensors").exists(), "{trial:?}");
    }
    expect(here, &["sweep", "s.toml"], 0);
    same(
        &results(&here.join("runs/s")),
        &results(&here.join("oracle")),
    );
}
