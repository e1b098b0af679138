//! The lab of sansprop: configs, data sets, run folders and the command line around the engine.
#![forbid(unsafe_code)]

mod align;
mod bench;
pub mod cli;
mod command;
pub mod config;
pub mod data;
mod device;
mod machine;
mod progress;
mod report;
pub mod reproduce;
pub mod run;
pub mod sweep;
mod table;
