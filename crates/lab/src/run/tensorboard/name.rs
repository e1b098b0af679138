//! How event files are called: `events.out.tfevents.SECOND.HOST`, and `.N` behind it after N resumptions.
//!
//! The number changes because a TensorBoard that looks on holds the file open: it would not notice that another one
//! stands under the same name, but takes up one that is new (with its data server, which it starts where it has one).

use super::super::folder::host_name;
use std::cmp::Reverse;
use std::fmt;

/// How names of event files begin.
const PREFIX: &str = "events.out.tfevents.";

/// The name of a run's event file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// When the run first started, in seconds since 1970.
    pub second: u32,
    host: String,
    resumptions: u32,
}

impl Name {
    /// For a run that starts on this machine.
    pub(super) fn new(second: u32) -> Self {
        Self {
            second,
            host: host_name(),
            resumptions: 0,
        }
    }

    /// The parts of a name; none if it is no event file's, or not one of a run.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(PREFIX)?.split('.');
        let parsed = Self {
            second: parts.next()?.parse().ok()?,
            host: parts.next()?.into(),
            resumptions: parts.next().map_or(Some(0), |n| n.parse().ok())?,
        };
        (parsed.to_string() == text).then_some(parsed)
    }

    /// For the same run, taken up again.
    pub(super) fn resumed(self) -> Self {
        Self {
            resumptions: self.resumptions.saturating_add(1),
            ..self
        }
    }

    /// Sorts the file of the first start and the last resumption first.
    pub(super) fn order(&self) -> (u32, &str, Reverse<u32>) {
        (self.second, &self.host, Reverse(self.resumptions))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:010}.{}", self.second, self.host)?;
        match self.resumptions {
            0 => Ok(()),
            n => write!(f, ".{n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: the names as documented.
    #[test]
    fn names_are_read_as_written() {
        let first = Name::parse("events.out.tfevents.1795560990.vm").expect("a name");
        let second = first.clone().resumed();
        assert_eq!(second.to_string(), "events.out.tfevents.1795560990.vm.1");
        assert_eq!(Name::parse(&second.to_string()), Some(second.clone()));
        assert!(second.order() < first.order());
        assert_eq!(second.second, first.second);
        for other in [
            "metrics.jsonl",
            "events.out.tfevents.",
            "events.out.tfevents.1795560990.vm.12.0",
            "events.out.tfevents.1795560990.vm.0",
            "events.out.tfevents.now.vm",
        ] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }
}
