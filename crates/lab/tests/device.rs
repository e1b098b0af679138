//! Devices through the binary. What runs on a GPU is compared with the same run on the CPU.
//!
//! Where no GPU is there, the tests that need one say so and count as skipped; `SANSPROP_REQUIRE_GPU=1` makes them
//! fail. Mesa's software driver (Debian: mesa-vulkan-drivers) will do.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

const CONV: &str = "[network]\nwidth = 5\nstrides = [1, 2]\n[train]\nmax_steps = 6\nbatch = 20\n\
                    [data]\ntrain_points = 60\n[run]\nlog_steps = true\n";
const RECURRENT: &str = "[data]\nname = \"add-task\"\nsteps = 8\n[network]\nwidth = 6\nactivation = \"tanh\"\n\
                         [train]\nmax_steps = 4\noptimizer = \"adam\"\n[run]\nlog_steps = true\n";

fn temporary(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("c.toml"), config).expect("a writable folder");
    folder
}

/// Runs and demands an exit code; returns standard output and standard error together.
#[track_caller]
fn expect(folder: &Path, arguments: &[&str], code: i32) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_sansprop"))
        .current_dir(folder)
        .args(arguments)
        .output()
        .expect("the binary starts");
    let text = [stdout, stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(status.code(), Some(code), "{arguments:?}\n{text}");
    text
}

/// Whether there is a device of Vulkan.
fn vulkan() -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let there = expect(folder.path(), &["devices"], 0).contains("vulkan:0");
    if !there {
        assert!(
            std::env::var_os("SANSPROP_REQUIRE_GPU").is_none(),
            "SANSPROP_REQUIRE_GPU is set, and there is no device of Vulkan"
        );
        println!("skipped, 1 test without a GPU");
    }
    there
}

/// The losses of all steps of a run.
fn losses(run: &Path) -> Vec<f64> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    let step = |line: &Value| line["step"].as_u64().and(line["loss"].as_f64());
    lines.filter_map(|line: Value| step(&line)).collect()
}

#[track_caller]
fn close(gpu: &[f64], cpu: &[f64], name: &str) {
    assert!(!cpu.is_empty(), "{name}: no step was logged");
    assert_eq!(gpu.len(), cpu.len(), "{name}");
    for (g, c) in gpu.iter().zip(cpu) {
        assert!((g - c).abs() <= 1e-4 * c.abs(), "{name}: {gpu:?} {cpu:?}");
    }
}

#[test]
fn what_is_there_and_what_is_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = expect(folder.path(), &["devices"], 0);
    assert!(out.contains("│ cpu "), "{out}");
    for api in ["cuda", "vulkan", "metal"] {
        let listed = out.contains(&format!("{api}:0"));
        let reason = out.contains(&format!("{api} is not usable here: "));
        assert!(listed != reason, "{api}: {out}");
    }
}

#[test]
fn devices_that_are_none() {
    let folder = temporary(CONV);
    let train = |option: &str, code| expect(folder.path(), &["train", "c.toml", option], code);
    let out = train("--device=gpu", 2);
    assert!(
        out.contains("write cpu, cuda, hip, vulkan or metal"),
        "{out}"
    );
    let out = train("--set=run.device=vulcan", 2);
    assert!(
        out.contains("run.device") && out.contains("\"vulcan\""),
        "{out}"
    );
    let options = [
        "train",
        "c.toml",
        "--device=vulkan",
        "--set=run.precision=f64",
    ];
    let out = expect(folder.path(), &options, 2);
    assert!(
        out.contains("run.precision = f64")
            && out.contains("computes in f32, tf32, bf16; f32-strict and f64"),
        "{out}"
    );
    if !out.contains("metal:0") && !cfg!(target_vendor = "apple") {
        let out = train("--device=metal", 1);
        assert!(out.contains("part of Apple's systems only"), "{out}");
    }
    if vulkan() {
        let out = train("--device=vulkan:99", 2);
        assert!(out.contains("there is no device vulkan:99"), "{out}");
    }
}

/// Oracle: the CPU. Every rule and norm, losses of every step.
#[test]
fn every_rule_learns_as_on_the_cpu() {
    if !vulkan() {
        return;
    }
    let folder = temporary(CONV);
    for (norm, activation) in [("location", "relu"), ("channel", "tanh"), ("none", "erf")] {
        for rule in [
            "normal",
            "last-layer",
            "fa",
            "dfa",
            "sign-symmetry",
            "align-ada",
            "align-zero",
            "align-prop",
        ] {
            let [cpu, gpu] = ["cpu", "vulkan"].map(|device| {
                let set = |key: &str, value: &str| format!("--set={key}={value}");
                let out = format!("{rule}-{norm}-{device}");
                let (rule, norm) = (set("train.rule", rule), set("network.norm", norm));
                let activation = set("network.activation", activation);
                let device = format!("--device={device}");
                let arguments = [
                    "train",
                    "c.toml",
                    "--out",
                    &out,
                    &rule,
                    &norm,
                    &activation,
                    &device,
                    "--set=train.lr=0.3",
                ];
                expect(folder.path(), &arguments, 0);
                folder.path().join(out)
            });
            close(&losses(&gpu), &losses(&cpu), &format!("{rule} {norm}"));
            let environment = fs::read(gpu.join("env.json")).expect("env.json");
            let environment: Value = serde_json::from_slice(&environment).expect("JSON");
            let device = environment["device"].as_str().expect("a device");
            assert!(device.starts_with("vulkan:0 ("), "{device}");
        }
    }
}

#[test]
fn recurrent_and_dense_networks_learn_as_on_the_cpu() {
    if !vulkan() {
        return;
    }
    let dense = CONV.replace("strides = [1, 2]", "kind = \"dense\"\ndepth = 2");
    for (name, config) in [("recurrent", RECURRENT), ("dense", &dense)] {
        let folder = temporary(config);
        for rule in ["normal", "align-ada", "dfa"] {
            let set = format!("--set=train.rule={rule}");
            let [cpu, gpu] = ["cpu", "vulkan"].map(|device| {
                let option = format!("--device={device}");
                let out = format!("{rule}-{device}");
                let arguments = ["train", "c.toml", "--out", &out, &set, &option];
                expect(folder.path(), &arguments, 0);
                losses(&folder.path().join(out))
            });
            close(&gpu, &cpu, &format!("{name} {rule}"));
        }
    }
}

/// Oracle: the same run in f32 on the CPU, within what operands of so few bits do to a loss.
#[test]
fn rounded_operands_learn_nearly_as_f32() {
    let folder = temporary(CONV);
    let train = |out: &str, options: &[&str], code| {
        let arguments = [&["train", "c.toml", "--out", out], options].concat();
        expect(folder.path(), &arguments, code)
    };
    let out = train("refused", &["--set=run.precision=tf32"], 2);
    assert!(
        out.contains("run.precision = tf32") && out.contains("tf32 is for GPUs"),
        "{out}"
    );
    if !vulkan() {
        return;
    }
    train("f32", &[], 0);
    let expected = losses(&folder.path().join("f32"));
    for (precision, bound) in [("tf32", 2e-3), ("bf16", 2e-2)] {
        let set = format!("--set=run.precision={precision}");
        train(precision, &["--device=vulkan", &set], 0);
        let run = folder.path().join(precision);
        let found = losses(&run);
        assert_eq!(found.len(), expected.len());
        let off = |(f, e): (&f64, &f64)| (f - e).abs() / e;
        let worst = found.iter().zip(&expected).map(off).fold(0.0, f64::max);
        assert!(worst > 0.0 && worst <= bound, "{precision}: {worst}");
        let environment = fs::read(run.join("env.json")).expect("env.json");
        let environment: Value = serde_json::from_slice(&environment).expect("JSON");
        assert_eq!(environment["precision"], precision);
    }
    let options = ["--device=vulkan", "--set=run.precision=f32-strict"];
    let out = train("refused", &options, 2);
    assert!(out.contains("f32-strict and f64 are for the cpu"), "{out}");
}

/// A run goes on on another device as it would have on its own: killed on the GPU, finished on either. Oracle: the
/// undisturbed run on the CPU.
#[test]
fn checkpoints_move_between_devices() {
    if !vulkan() {
        return;
    }
    let config = CONV.replace("max_steps = 6", "epochs = 40\nlr = 0.1");
    let folder = temporary(&(config + "checkpoint_every = 1\n"));
    let path = folder.path();
    let started = ["train", "c.toml", "--out=left", "--device=vulkan"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_sansprop"))
        .current_dir(path)
        .args(started)
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let checkpoint = path.join("left/checkpoint.safetensors");
    while !checkpoint.exists() {
        let ended = child.try_wait().expect("a child");
        assert!(ended.is_none(), "it ended before its first checkpoint");
        sleep(Duration::from_millis(5));
    }
    child.kill().expect("a running child");
    child.wait().expect("a child");
    fs::create_dir(path.join("moved")).expect("a new folder");
    for entry in fs::read_dir(path.join("left")).expect("the run folder") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), path.join("moved").join(entry.file_name())).expect("a copy");
    }
    let resume = |out, device| expect(path, &["train", "c.toml", "--resume", out, device], 0);
    resume("--out=left", "--device=vulkan");
    resume("--out=moved", "--device=cpu");
    expect(path, &["train", "c.toml", "--out=cpu"], 0);
    let expected = losses(&path.join("cpu"));
    assert_eq!(expected.len(), 120);
    close(&losses(&path.join("left")), &expected, "on the GPU");
    close(&losses(&path.join("moved")), &expected, "moved to the CPU");
}

/// Bitwise the same twice, alone and in a sweep, whose four trials are one cohort.
#[test]
fn results_repeat_on_one_device() {
    if !vulkan() {
        return;
    }
    let folder = temporary("");
    let path = folder.path();
    let base = "[data]\ntrain_points = 60\n[train]\nepochs = 1\nbatch = 20\n[network]\nwidth = 4\n";
    fs::write(path.join("c.toml"), base).expect("a writable folder");
    let axes = "[sweep]\nrule = [\"normal\", \"align-zero\"]\nlr = [0.1, 0.3]\n";
    fs::write(path.join("s.toml"), base.to_owned() + axes).expect("a writable folder");
    let weights = |run: &Path| fs::read(run.join("final.safetensors")).expect("final weights");
    let [first, second] = ["first", "second"].map(|out| {
        let options = [
            "--set=train.rule=align-zero",
            "--set=train.lr=0.3",
            "--device=vulkan",
        ];
        let arguments = [&["train", "c.toml", "--out", out], &options[..]].concat();
        expect(path, &arguments, 0);
        weights(&path.join(out))
    });
    assert!(first == second, "a second run differs");
    expect(
        path,
        &["sweep", "s.toml", "--out=grid", "--device=vulkan"],
        0,
    );
    let runs = fs::read_dir(path.join("grid")).expect("the sweep's folder");
    let runs = runs.map(|entry| entry.expect("an entry").path());
    let runs: Vec<_> = runs
        .filter(|run| run.join("final.safetensors").exists())
        .collect();
    assert_eq!(runs.len(), 4);
    let alike = runs.iter().filter(|run| weights(run) == first).count();
    assert_eq!(alike, 1, "one trial of the sweep is the run alone");
}

/// What the device cannot hold is an error that says so, not a crash. Mesa's software driver holds 128 MiB in one
/// piece; other devices hold more, for which this network would have to be too wide to be drawn in a test.
#[test]
fn too_large_for_the_device() {
    if !vulkan() {
        return;
    }
    let folder =
        temporary("[network]\nkind = \"dense\"\nwidth = 6000\ndepth = 2\n[train]\nmax_steps = 1\n");
    if !expect(folder.path(), &["devices"], 0).contains("llvmpipe") {
        println!("skipped, 1 test of Mesa's software driver");
        return;
    }
    let arguments = ["train", "c.toml", "--device=vulkan", "--out=wide"];
    let out = expect(folder.path(), &arguments, 1);
    let needs = "the GPU failed: this needs ";
    assert!(out.contains(needs) && !out.contains("panicked"), "{out}");
}

/// A cohort that the device cannot hold is split until its parts fit.
#[test]
fn a_cohort_too_large_for_the_device_is_split() {
    if !vulkan() {
        return;
    }
    let folder = temporary("");
    let path = folder.path();
    if !expect(path, &["devices"], 0).contains("llvmpipe") {
        println!("skipped, 1 test of Mesa's software driver");
        return;
    }
    // Weights and moments of nine trials are more than its 128 MiB, those of five are not.
    let sweep = "[data]\ntrain_points = 4\n[network]\nkind = \"dense\"\nwidth = 1080\ndepth = 2\n\
                 [train]\nbatch = 2\nmax_steps = 1\noptimizer = \"adam\"\n[sweep]\n\
                 lr = [1e-4, 2e-4, 3e-4, 4e-4, 5e-4, 6e-4, 7e-4, 8e-4, 9e-4]\n";
    fs::write(path.join("s.toml"), sweep).expect("a writable folder");
    let out = expect(
        path,
        &["sweep", "s.toml", "--out=grid", "--device=vulkan"],
        0,
    );
    let split = "9 trials failed together (the GPU failed: this needs ";
    assert!(
        out.contains(split) && out.contains("going on with 5 at a time"),
        "{out}"
    );
    let runs = fs::read_dir(path.join("grid")).expect("the sweep's folder");
    let runs = runs.map(|entry| entry.expect("an entry").path());
    let ended = runs.filter(|run| run.join("final.safetensors").exists());
    assert_eq!(ended.count(), 9);
}

/// `align`, `check` and `bench` take the option too.
#[test]
fn other_commands_on_a_device() {
    if !vulkan() {
        return;
    }
    let folder = temporary(CONV);
    let path = folder.path();
    let out = expect(path, &["check", "c.toml", "--device=vulkan", "--quiet"], 0);
    assert!(
        out.contains("vulkan:0 (") && out.contains("checks hold"),
        "{out}"
    );
    let out = expect(
        path,
        &["align", "c.toml", "--device=vulkan", "--out=aligned"],
        0,
    );
    assert!(out.contains("vulkan:0 ("), "{out}");
    let options = ["--steps=1", "--trials=1", "--rules=normal,dfa", "--json"];
    let arguments = [&["bench", "c.toml", "--device=vulkan"], &options[..]].concat();
    let out = expect(path, &arguments, 0);
    let lines = out.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Value> = lines
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 2, "{out}");
    for line in lines {
        assert!(
            line["device"]
                .as_str()
                .expect("a device")
                .starts_with("vulkan:0 (")
        );
        // Forward and pool, loss, feedback, gradients in parts, updates.
        let launches = line["launches_per_step"].as_u64().expect("a count");
        assert!((10..40).contains(&launches), "{launches}");
        assert!(line["step_ms_median"].as_f64().expect("a time") > 0.0);
    }
}
