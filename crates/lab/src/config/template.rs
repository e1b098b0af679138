//! The commented config that `sansprop config` prints.

use super::schema::Config;
use super::{ConfigError, load};
use sansprop::rule::RULES;

/// A complete config with every key, its default for the given data set, and what it means.
///
/// # Errors
/// An unknown data set.
pub fn template(data: &str) -> Result<String, ConfigError> {
    let conv = load(None, &[format!("data.name={data}")])?;
    let Config {
        data,
        network,
        train,
        run,
    } = &conv;
    let rules: Vec<_> = RULES.iter().map(|rule| rule.name).collect();
    let strides = network.strides.as_deref().unwrap_or_default();
    let holdout = data.holdout.map_or_else(
        || {
            "# holdout = 100          # first training samples that are held out; default: a tenth"
                .into()
        },
        |n| format!("holdout = {n:<15} # first training samples that are held out and evaluated"),
    );
    Ok(format!(
        r#"# A complete sansprop config: every key with its default for this data set.
# Any key may be left out, and any key may be set on the command line: --set train.lr=2

[data]
name = "{name}"{pad}# digits, cifar-10, kmnist, fashion-mnist, mnist, npz, npy
# path = "data"          # folder, archive or file of the set; default: $SANSPROP_DATA, else ./data
train_points = {points:<10} # train on the first n of the samples that are not held out; 0: on all
{holdout}
evaluate = "holdout"     # "holdout", or "test": the set's official test images (then all others may train)

[network]
kind = "conv"            # "conv": 3x3 convolutions, global average pool, head; "dense": fully connected
width = {width:<16} # channels (units) of every hidden layer
strides = {strides:?}
                         # one convolution for each stride (conv only)
# depth = 3              # hidden layers (dense only)
activation = "relu"      # relu, tanh, erf, linear
norm = "location"        # "location": per location and channel over the batch (the paper's);
                         # "channel": per channel over batch and locations; "none"
parameterization = "ntk" # "ntk": weights N(0,1), forward divided by sqrt(fan_in); "standard"

[train]
rule = "{rule}"       # {rules}
optimizer = "sgd"        # "sgd", "adam" (TensorFlow's form)
lr = {lr:<19?} # learning rate
batch = {batch:<16} # samples per minibatch, in training and evaluation; 100 on a small training set
                         # (train_points) follows the paper: gcd(100, n), or n if n < 100
epochs = {epochs:<15} # passes over the training samples
max_steps = {max_steps:<12} # stop after so many updates; 0: no limit
seed = {seed:<17} # NumPy's seed of weights and sample order
target_shift = {shift:<9?} # targets are one-hot minus this

[run]
out = "{out}"             # run folders are made here
threads = {threads:<14} # 0: one per core; the result does not depend on it
precision = "f32"        # "f32", or "f64": the slow reference
log_steps = {log_steps:<12} # write every step's loss to metrics.jsonl
eval_every = {eval_every:<11} # evaluate after every so many epochs, and after the last
"#,
        name = data.name,
        pad = " ".repeat(17usize.saturating_sub(data.name.len() + 1).max(1)),
        points = data.train_points,
        width = network.width,
        rule = train.rule,
        rules = rules.join(", "),
        lr = train.lr,
        batch = train.batch,
        epochs = train.epochs,
        max_steps = train.max_steps,
        seed = train.seed,
        shift = train.target_shift,
        out = run.out,
        threads = run.threads,
        log_steps = run.log_steps,
        eval_every = run.eval_every,
    ))
}
