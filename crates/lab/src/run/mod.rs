//! Run folders: what a trial leaves on disk.
//!
//! | file | content |
//! |---|---|
//! | `config.toml` | the resolved config |
//! | `env.json` | program version, device, instruction set, threads, precision, start time |
//! | `metrics.jsonl` | one JSON object a line: steps (with `log_steps`), epochs, the end |
//! | `initial.safetensors`, `final.safetensors` | weights, biases, feedback weights, and the step in the metadata |

mod clock;
mod folder;
mod metrics;
mod recorder;

pub use clock::Clock;
pub use folder::{Environment, RunError, RunFolder, write_whole};
pub use metrics::{EndLine, EpochLine, MetricsFile, StepLine};
pub use recorder::{Recorder, TrialRecord, TrialResult, status_name};
