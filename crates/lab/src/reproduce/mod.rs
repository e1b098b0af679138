//! The paper's tables and figures, measured: from `experiments/*.toml`, which say which trials make which table, to
//! the paper's numbers beside ours.

mod comparison;
mod cost;
mod experiment;
mod measure;
mod paper;

pub use comparison::{Cell, Comparison, Quantity};
pub(crate) use cost::Estimator;
pub(crate) use experiment::Experiment;
pub(crate) use measure::{belongs, compare};
