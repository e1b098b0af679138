//! The lab.
#![forbid(unsafe_code)]

pub mod data;
