//! Run folders: what a trial leaves on disk.
//!
//! | file | content |
//! |---|---|
//! | `config.toml` | the resolved config |
//! | `env.json` | program version, device, instruction set, threads, precision, kernels of each layer, start time |
//! | `metrics.jsonl` | one JSON object a line: steps (with `log_steps`), epochs, the end |
//! | `events.out.tfevents.*` | with `run.tensorboard`: the same numbers, as TensorBoard reads them |
//! | `checkpoint.safetensors` | while the trial is unfinished: where it can be taken up again |
//! | `result.json` | how the trial ended; written last |
//! | `alignment.csv`, `companion.safetensors` | with `alignment`: scores of every layer, and W* at the end |
//! | `initial.safetensors`, `final.safetensors` | weights, biases, feedback weights, and the step in the metadata |

mod checkpoint;
mod clock;
mod curve;
mod folder;
mod lock;
mod metrics;
mod outcome;
mod recorder;
mod tensorboard;

pub use checkpoint::Checkpoint;
pub use clock::Clock;
pub use curve::{Curve, CurvePoint};
pub use folder::{
    Environment, LayerRecord, RunError, RunFolder, process_name, read_json, write_whole,
};
pub use lock::{Heartbeat, Holder, Lock, Locks};
pub use metrics::{EndLine, EpochLine, LayerLine, Line, MetricsFile, StepLine};
pub use outcome::Outcome;
pub use recorder::{Policy, Recorder, TrialRecord, TrialResult, status_name};
pub use tensorboard::EventFile;
