//! The paper's tables and figures, measured.

mod comparison;

pub use comparison::{Cell, Comparison, Quantity};
