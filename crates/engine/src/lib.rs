//! sansprop: train wide neural networks without backprop.
//!
//! The engine holds the science: learning [`rule`]s as rows of a table, [`network`]s, their [`init`]ial draws,
//! the [`mod@learn`]ing step, [`optim`]isers, [`cohort`]s of trials in lockstep, and the [`mod@train`]ing loop with its
//! observers, which can be left and taken up again at [`checkpoint`]s; what a step costs ([`cost`]); [`alignment`] scores with their
//! [`companion`]s, and the [`mod@check`]s that prove a network's rules. It opens no file, prints nothing and reads no
//! clock, except to say how trials that run side by side share the time. Everything is generic over [`sansprop_kernels::Backend`], the machine.
#![forbid(unsafe_code)]

pub mod alignment;
pub mod check;
pub mod checkpoint;
pub mod cohort;
pub mod companion;
pub mod cost;
pub mod diagnosis;
pub mod images;
pub mod init;
pub mod lanes;
pub mod learn;
pub mod minibatch;
pub mod model;
pub mod network;
pub mod optim;
pub mod pass;
pub mod protocol;
pub mod recurrent;
mod resident;
pub mod rng;
mod room;
pub mod rule;
pub mod sequences;
pub mod train;
mod update;
