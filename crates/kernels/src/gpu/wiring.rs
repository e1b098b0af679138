//! Wirings in a device's memory, uploaded once.

use super::memory::{Device, LinkList};
use super::patches::{NONE, PatchShape, patch_list, ribbon_of, stacks};
use super::tile::Direction;
use super::walks::{WalkList, WalkShape, walk_list};
use crate::{Links, Wiring};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

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
    /// Destinations alone, and in twos.
    forward_bundles: [Bundles; 2],
    /// Sources alone, and in twos.
    backward_bundles: [Bundles; 2],
    /// Those asked for so far, of destinations or sources.
    patches: Mutex<KnownPatches>,
    walks: Mutex<KnownWalks>,
    /// Of stacks of so many panels.
    ribbons: Mutex<HashMap<(Direction, usize), Arc<RibbonTaps>>>,
    device: Weak<Device>,
}

type KnownPatches = HashMap<(Direction, PatchShape), Option<Arc<Patches>>>;

type KnownWalks = HashMap<WalkShape, Option<Arc<Walks>>>;

/// A gradient's walks along stacks ([`walk_list`]).
pub(super) struct Walks {
    pub(super) list: LinkList,
    pub(super) shares: usize,
    pub(super) parts: usize,
    /// Most blocks of a share, most taps and most slots.
    pub(super) sizes: [usize; 3],
}

/// Neighbouring panels that are made together ([`patch_list`]).
pub(super) struct Patches {
    pub(super) list: LinkList,
    pub(super) count: usize,
}

/// Taps of a ribbon ([`ribbon_of`]).
pub(super) struct RibbonTaps {
    pub(super) list: LinkList,
    pub(super) taps: usize,
}

/// Panels that are made together, as they have links of the same taps: their number, starts, panels, then (tap, a location
/// for each panel) of every link.
pub(super) struct Bundles {
    pub(super) list: LinkList,
    pub(super) count: usize,
}

impl DeviceWiring {
    /// Bundles of one panel, or of two.
    pub(super) fn bundles(&self, direction: Direction, panels: usize) -> &Bundles {
        match direction {
            Direction::Forward => &self.forward_bundles[panels - 1],
            Direction::Backward => &self.backward_bundles[panels - 1],
        }
    }

    /// The ribbon of stacks of so many panels; `wiring` is what this one was made of.
    pub(super) fn ribbon(
        &self,
        wiring: &Wiring,
        direction: Direction,
        panels: usize,
    ) -> Arc<RibbonTaps> {
        let mut known = lock(&self.ribbons);
        let make = || {
            let (links, locations) = links_of(wiring, direction);
            let taps = ribbon_of(&stacks(links, locations, panels), panels);
            let values: Vec<u32> = taps.iter().map(|tap| tap.unwrap_or(NONE)).collect();
            Arc::new(RibbonTaps {
                list: self.link_list(&values),
                taps: taps.len(),
            })
        };
        Arc::clone(known.entry((direction, panels)).or_insert_with(make))
    }

    /// Patches of such a shape, if there are any.
    pub(super) fn patches(
        &self,
        wiring: &Wiring,
        direction: Direction,
        shape: PatchShape,
    ) -> Option<Arc<Patches>> {
        let mut known = lock(&self.patches);
        let make = || {
            let (links, locations) = links_of(wiring, direction);
            patch_list(links, locations, shape).map(|made| {
                Arc::new(Patches {
                    list: self.link_list(&made.values),
                    count: made.count,
                })
            })
        };
        known.entry((direction, shape)).or_insert_with(make).clone()
    }

    /// A gradient's walks, if there are any of such a shape.
    pub(super) fn walks(&self, wiring: &Wiring, shape: WalkShape) -> Option<Arc<Walks>> {
        let mut known = lock(&self.walks);
        let make = || {
            let links = links_of(wiring, Direction::Forward);
            let WalkList {
                values,
                shares,
                parts,
                sizes,
            } = walk_list(links, wiring.taps(), shape)?;
            Some(Arc::new(Walks {
                list: self.link_list(&values),
                shares,
                parts,
                sizes,
            }))
        };
        known.entry(shape).or_insert_with(make).clone()
    }

    fn link_list(&self, values: &[u32]) -> LinkList {
        let device = self.device.upgrade();
        device.expect("whoever asks has a device").link_list(values)
    }
}

/// A wiring's links in one of its directions, and the locations that have them.
fn links_of(wiring: &Wiring, direction: Direction) -> (&Links, usize) {
    match direction {
        Direction::Forward => (wiring.forward(), wiring.destinations()),
        Direction::Backward => (wiring.backward(), wiring.sources()),
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locations in bundles of so many, whose links have the same taps. What is left over of such locations is a bundle with
/// fewer, the first one's links in place of those of whom is missing.
fn in_bundles(links: &Links, locations: usize, panels: usize) -> (Vec<u32>, usize) {
    let mut alike: HashMap<Vec<u32>, usize> = HashMap::new();
    let mut bundles: Vec<Vec<usize>> = Vec::new();
    for location in 0..locations {
        let taps = links.of(location).iter().map(|link| link.tap).collect();
        match alike.get(&taps) {
            Some(&bundle) if bundles[bundle].len() < panels => bundles[bundle].push(location),
            _ => {
                alike.insert(taps, bundles.len());
                bundles.push(vec![location]);
            }
        }
    }
    let mut starts = vec![0];
    let mut members = Vec::with_capacity(bundles.len() * panels);
    let mut entries = Vec::new();
    for bundle in &bundles {
        let member = |n: usize| bundle.get(n).copied();
        members.extend((0..panels).map(|n| member(n).map_or(NONE, |at| at as u32)));
        for (number, link) in links.of(bundle[0]).iter().enumerate() {
            entries.push(link.tap);
            let of = |n| links.of(member(n).unwrap_or(bundle[0]))[number].location;
            entries.extend((0..panels).map(of));
        }
        starts.push((entries.len() / (1 + panels)) as u32);
    }
    let count = bundles.len();
    let mut values = vec![count as u32];
    values.extend(starts);
    values.extend(members);
    values.extend(entries);
    (values, count)
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
        let mut known = lock(&self.0);
        let key = Arc::as_ptr(wiring) as usize;
        if let Some((owner, found)) = known.get(&key)
            && owner.strong_count() > 0
        {
            return Arc::clone(found);
        }
        known.retain(|_, (owner, _)| owner.strong_count() > 0);
        let bundles = |links: &Links, locations: usize| {
            [1, 2].map(|panels| {
                let (values, count) = in_bundles(links, locations, panels);
                let list = device.link_list(&values);
                Bundles { list, count }
            })
        };
        let made = Arc::new(DeviceWiring {
            forward: device.link_list(&by_location(wiring.forward(), wiring.destinations())),
            backward: device.link_list(&by_location(wiring.backward(), wiring.sources())),
            by_tap: device.link_list(&by_tap(wiring)),
            unfolds: (0..wiring.destinations()).all(|location| {
                let links = wiring.forward().of(location);
                links.windows(2).all(|pair| pair[0].tap < pair[1].tap)
            }),
            forward_bundles: bundles(wiring.forward(), wiring.destinations()),
            backward_bundles: bundles(wiring.backward(), wiring.sources()),
            patches: Mutex::default(),
            ribbons: Mutex::default(),
            walks: Mutex::default(),
            device: Arc::downgrade(device),
        });
        known.insert(key, (Arc::downgrade(wiring), Arc::clone(&made)));
        made
    }
}
