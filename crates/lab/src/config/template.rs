//! The commented config that `sansprop config` prints.

use super::schema::Config;
use super::{ConfigError, load};
use sansprop::rule::RULES;

/// Where explanations begin.
const COLUMN: usize = 28;

/// A complete config with every key, its default for the given data set, and what it means.
///
/// # Errors
/// An unknown data set.
pub fn template(data: &str) -> Result<String, ConfigError> {
    let config = load(None, &[format!("data.name={data}")])?;
    let Config {
        data,
        network,
        train,
        run,
    } = &config;
    let rules: Vec<_> = RULES.iter().map(|rule| rule.name).collect();
    let strides = network.strides.as_deref().unwrap_or_default();
    let mut text = String::from(
        "# A complete sansprop config: every key with its default for this data set.\n\
         # Any key may be left out, and any key may be set on the command line: --set train.lr=2\n",
    );
    let mut add = |entry: String, meaning: &str| {
        text += &match meaning {
            "" => format!("{entry}\n"),
            _ => format!("{entry:<COLUMN$} # {meaning}\n"),
        };
    };
    let section = |name: &str| format!("\n[{name}]");
    let names: Vec<_> = crate::data::names().collect();

    add(section("data"), "");
    add(format!("name = {:?}", data.name), &names.join(", "));
    add(
        "# path = \"data\"".into(),
        "folder, archive or file of the set; default: $SANSPROP_DATA, else ./data",
    );
    add(
        format!("train_points = {}", data.train_points),
        "train on the first n samples that are not held out; 0: on all",
    );
    add(
        data.holdout
            .map_or_else(|| "# holdout = 100".into(), |n| format!("holdout = {n}")),
        "so many first training samples are held out and evaluated (own arrays: a tenth)",
    );
    add(
        format!(
            "evaluate = {:?}",
            format!("{:?}", data.evaluate).to_lowercase()
        ),
        "holdout; or test: the set's test images, and nothing is held out",
    );

    if let Some(task) = &data.add_task {
        add(
            format!(
                "variant = {:?}",
                format!("{:?}", task.variant).to_lowercase()
            ),
            "published: lags roll around, with the published slip; causal: lags start from zero",
        );
        add(format!("steps = {}", task.steps), "steps of a sequence");
        add(
            format!("lags = {:?}", task.lags),
            "y = 1/2 + x[t-lags[0]]/2 - x[t-lags[1]]/4",
        );
    } else {
        add(
            "# variant = \"published\"".into(),
            "only for add-task: published, causal",
        );
        add(
            "# steps = 100".into(),
            "only for add-task: steps of a sequence",
        );
        add(
            "# lags = [2, 5]".into(),
            "only for add-task: lags of its two terms",
        );
    }

    add(section("network"), "");
    let kind = format!("{:?}", network.kind).to_lowercase();
    add(
        format!("kind = {kind:?}"),
        "conv: 3x3 convolutions, global average pool, head; dense: fully connected;",
    );
    add(
        String::new(),
        "recurrent: for sequences (add-task, npz, npy)",
    );
    add(
        format!("width = {}", network.width),
        "channels (units) of every hidden layer",
    );
    let comment = if network.strides.is_some() { "" } else { "# " };
    add(
        format!("{comment}strides = {strides:?}"),
        "conv: one layer for each stride (other kinds ignore them)",
    );
    add("# depth = 3".into(), "dense: number of hidden layers");
    add("activation = \"relu\"".into(), "relu, tanh, erf, linear");
    add(
        format!("norm = {:?}", format!("{:?}", network.norm).to_lowercase()),
        "location: per location and channel over the batch (the paper's);",
    );
    add(
        String::new(),
        "channel: per channel over batch and locations; none",
    );
    add(
        "parameterization = \"ntk\"".into(),
        "ntk: weights N(0,1), forward divided by sqrt(fan_in); standard: weights N(0,1/fan_in)",
    );

    add(section("train"), "");
    add(format!("rule = {:?}", train.rule), &rules.join(", "));
    add(
        "optimizer = \"sgd\"".into(),
        "sgd; adam (TensorFlow's form)",
    );
    add(format!("lr = {:?}", train.lr), "learning rate");
    add(
        format!("batch = {}", train.batch),
        "samples per minibatch, in training and evaluation; the default 100 becomes gcd(100, n)",
    );
    add(
        String::new(),
        "where train_points = n > 100 cuts the training set, as published; at most n always",
    );
    add(
        format!("epochs = {}", train.epochs),
        "passes over the training samples",
    );
    add(
        format!("max_steps = {}", train.max_steps),
        "stop after so many updates; 0: no limit",
    );
    add(
        format!("seed = {}", train.seed),
        "NumPy's seed of weights and sample order",
    );
    add(
        format!("target_shift = {:?}", train.target_shift),
        "targets are one-hot minus this",
    );

    add(section("run"), "");
    add(format!("out = {:?}", run.out), "run folders are made here");
    add(
        format!("threads = {}", run.threads),
        "0: one per core; the result does not depend on it",
    );
    add(
        format!("device = \"{}\"", run.device),
        "cpu; cuda, hip, vulkan or metal for a GPU (sansprop devices)",
    );
    add(
        "precision = \"f32\"".into(),
        "f32; f32-strict: plain sums, no transforms; tf32 (GPUs), bf16: rounded operands; f64: the slow reference",
    );
    add(
        format!("log_steps = {}", run.log_steps),
        "write every step's loss to metrics.jsonl",
    );
    add(
        format!("eval_every = {}", run.eval_every),
        "evaluate after every so many epochs, and after the last",
    );
    add(
        format!("gradient_angle = {}", run.gradient_angle),
        "once an epoch, compare each layer's update with the gradient (metrics.jsonl)",
    );
    add(
        format!("layer_drift = {}", run.layer_drift),
        "once an epoch, measure feedback angle, weight change and kernel drift of each layer",
    );
    add(
        format!("tensorboard = {}", run.tensorboard),
        "also write an event file into every run folder, for tensorboard --logdir",
    );
    add(
        format!("alignment = {}", run.alignment),
        "train a companion beside each trial and score alignment (alignment.csv); not for recurrent",
    );
    add(
        format!("alignment_every = {}", run.alignment_every),
        "score after every so many epochs too; 0: at the end only",
    );
    add(
        format!("checkpoint_every = {}", run.checkpoint_every),
        "epochs between checkpoints, from which a killed run is resumed; 0: none for epochs",
    );
    add(
        format!("checkpoint_minutes = {:?}", run.checkpoint_minutes),
        "minutes between checkpoints, also within an epoch; 0: none for time",
    );
    Ok(text)
}
