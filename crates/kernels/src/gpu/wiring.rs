//! Wirings in a device's memory, uploaded once.

use super::memory::{Device, LinkList};
use crate::{Links, Wiring};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A wiring on a device.
pub(super) struct DeviceWiring {
    /// Destinations' links: starts, then (tap, source).
    pub(super) forward: LinkList,
    /// Sources' links: starts, then (tap, destination).
    pub(super) backward: LinkList,
    /// Taps' links: starts, then (source, destination), by destination.
    pub(super) by_tap: LinkList,
    /// Whether no destination has two links of one tap.
    pub(super) unfolds: bool,
}

/// Starts of each location's links, then (tap, location) of every link.
fn by_location(links: &Links, locations: usize) -> Vec<u32> {
    let mut values = vec![0];
    let mut pairs = Vec::with_capacity(2 * links.len());
    for location in 0..locations {
        for link in links.of(location) {
            pairs.extend([link.tap, link.location]);
        }
        values.push((pairs.len() / 2) as u32);
    }
    values.extend(pairs);
    values
}

fn by_tap(wiring: &Wiring) -> Vec<u32> {
    let mut lists = vec![Vec::new(); wiring.taps()];
    for destination in 0..wiring.destinations() {
        for link in wiring.forward().of(destination) {
            lists[link.tap as usize].extend([link.location, destination as u32]);
        }
    }
    let mut values = vec![0];
    for list in &lists {
        values.push(values[values.len() - 1] + (list.len() / 2) as u32);
    }
    values.extend(lists.into_iter().flatten());
    values
}

type Known = HashMap<usize, (Weak<Wiring>, Arc<DeviceWiring>)>;

/// Wirings seen so far; those that nobody else holds any more are dropped.
#[derive(Default)]
pub(super) struct Wirings(Mutex<Known>);

impl Wirings {
    /// The wiring on a device.
    pub(super) fn get(&self, device: &Arc<Device>, wiring: &Arc<Wiring>) -> Arc<DeviceWiring> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Arc::as_ptr(wiring) as usize;
        if let Some((owner, found)) = known.get(&key)
            && owner.strong_count() > 0
        {
            return Arc::clone(found);
        }
        known.retain(|_, (owner, _)| owner.strong_count() > 0);
        let made = Arc::new(DeviceWiring {
            forward: device.link_list(&by_location(wiring.forward(), wiring.destinations())),
            backward: device.link_list(&by_location(wiring.backward(), wiring.sources())),
            by_tap: device.link_list(&by_tap(wiring)),
            unfolds: (0..wiring.destinations()).all(|location| {
                let links = wiring.forward().of(location);
                links.windows(2).all(|pair| pair[0].tap < pair[1].tap)
            }),
        });
        known.insert(key, (Arc::downgrade(wiring), Arc::clone(&made)));
        made
    }
}
