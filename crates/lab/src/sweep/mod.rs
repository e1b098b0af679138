//! Sweeps: many trials from one file, trained in cohorts by any number of workers, none of them ever lost.
//!
//! | file in the sweep's folder | content |
//! |---|---|
//! | `ID/` | one trial's run folder |
//! | `locks/ID/` | who trains it, while someone does |
//! | `sweep.json` | the ids of all trials |
//! | `trials.csv`, `trials.parquet` | one row a trial, whatever became of it |
//! | `curves.csv` | one row a trial and epoch |

mod columns;
mod estimate;
pub mod file;
mod manifest;
mod order;
mod results;
pub mod stats;
mod summary;
pub mod trials;
mod work;

pub(crate) use estimate::{Speeds, cohort_flops, describe};
pub(crate) use manifest::Manifest;
pub(crate) use order::{Order, Trained};
pub(crate) use results::{Row, row};
pub(crate) use summary::{summary, troubles};
