//! Reports: everything that run folders hold, as one page for the browser or as tables for a paper.
//!
//! ```text
//! folders → collect (trials, comparisons, scores, problems) → group (trials that differ in seed only)
//!         → tables (comparison, summary, troubles) → html or text
//!         → figures (groups as JSON) → html
//! ```

mod collect;
mod curves;
mod figures;
mod group;
mod html;
mod page;
mod tables;
mod text;
mod trial;

pub(crate) use collect::{Collection, collect};
pub(crate) use group::Groups;
pub(crate) use page::page;
pub(crate) use tables::{Table, comparison_tables, summary_table};
pub(crate) use text::{latex, markdown};
