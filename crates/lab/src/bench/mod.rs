//! What training steps cost: each trial of a rule at a width in a process of its own, beside what the machine can do at
//! most.
//!
//! The parent measures the machine's ceilings and counts operations and bytes; a child times the steps of one trial
//! and says how much memory it took. Rules take turns, trial by trial, so that a change of the machine's pace meets
//! them all. Child and parent are the same program.

mod cell;
mod child;
mod host;
mod record;
mod tables;

pub(crate) use cell::{Extent, Outcome, measure, seeds};
pub(crate) use child::measure_in_child;
pub(crate) use host::triad_bytes;
pub(crate) use record::{Cell, Setting, lines};
pub(crate) use tables::tables;
