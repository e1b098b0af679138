//! One file a command.

pub(crate) mod align;
pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod compare;
pub(crate) mod config;
pub(crate) mod data;
pub(crate) mod devices;
pub(crate) mod report;
pub(crate) mod reproduce;
pub(crate) mod status;
pub(crate) mod sweep;
pub(crate) mod train;
