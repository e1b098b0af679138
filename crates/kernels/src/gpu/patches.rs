//! Neighbouring panels of a wiring that are made together, and what of its weights they need.
//!
//! A *stack* is some panels whose channels, one panel's after the other's, are the rows of one instruction. A source is
//! multiplied once for a whole stack, by the weights of the tap that it has for each panel, or zeros: its *pattern*. Patterns
//! stand in a *ribbon*, a list of taps, wherever their taps follow each other in it. Some stacks that share sources are a
//! *patch*, the work of a work-group.

use crate::Links;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What stands for a panel, tap or pattern that is not there.
pub(super) const NONE: u32 = u32::MAX;

/// The tap of a source for each panel of a stack.
pub(super) type Pattern = Vec<Option<u32>>;

/// Panels that share sources, in the order of their locations.
pub(super) struct Stack {
    pub(super) panels: Vec<usize>,
    /// Sources, ascending, with their patterns. A source that a panel has twice stands here twice.
    pub(super) sources: Vec<(u32, Pattern)>,
}

/// Locations in stacks of up to so many: a stack goes on as long as the next location shares a source with one of it. Where
/// each location has one link, that of the same tap, all do.
pub(super) fn stacks(links: &Links, locations: usize, most: usize) -> Vec<Stack> {
    let alike = (0..locations).all(|at| matches!(links.of(at), [one] if one.tap == 0));
    let shares = |panels: &[usize], location: usize| {
        let reads = |source| {
            let of_panel = |&at: &usize| links.of(at).iter().any(|link| link.location == source);
            panels.iter().any(of_panel)
        };
        alike || links.of(location).iter().any(|link| reads(link.location))
    };
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for location in 0..locations {
        match groups.last_mut() {
            Some(last) if last.len() < most && shares(last, location) => last.push(location),
            _ => groups.push(vec![location]),
        }
    }
    let stack = |panels: Vec<usize>| {
        let mut sources: BTreeMap<u32, Vec<Pattern>> = BTreeMap::new();
        for (slot, &panel) in panels.iter().enumerate() {
            for link in links.of(panel) {
                let patterns = sources.entry(link.location).or_default();
                let free = patterns.iter_mut().find(|pattern| pattern[slot].is_none());
                match free {
                    Some(pattern) => pattern[slot] = Some(link.tap),
                    None => {
                        let mut pattern = vec![None; most];
                        pattern[slot] = Some(link.tap);
                        patterns.push(pattern);
                    }
                }
            }
        }
        let each = |(source, patterns): (u32, Vec<Pattern>)| {
            patterns.into_iter().map(move |pattern| (source, pattern))
        };
        let sources = sources.into_iter().flat_map(each).collect();
        Stack { panels, sources }
    };
    groups.into_iter().map(stack).collect()
}

/// All patterns of stacks, each once.
pub(super) fn patterns(stacks: &[Stack]) -> Vec<Pattern> {
    let all = stacks.iter().flat_map(|stack| &stack.sources);
    let mut patterns: Vec<Pattern> = all.map(|(_, pattern)| pattern.clone()).collect();
    patterns.sort_unstable();
    patterns.dedup();
    patterns
}

/// The *ribbon* of stacks of so many panels: a list of taps in which each of their patterns stands somewhere, and that of
/// none. The next one is always that which begins with most of what stands at the end.
pub(super) fn ribbon_of(stacks: &[Stack], panels: usize) -> Vec<Option<u32>> {
    let mut left = patterns(stacks);
    left.push(vec![None; panels]);
    let mut ribbon: Vec<Option<u32>> = Vec::new();
    let overlap = |ribbon: &[Option<u32>], pattern: &Pattern| {
        let most = pattern.len().min(ribbon.len());
        let at_end = |&count: &usize| ribbon.ends_with(&pattern[..count]);
        (0..=most).rev().find(at_end).unwrap_or(0)
    };
    loop {
        left.retain(|pattern| place_in(&ribbon, pattern).is_none());
        let best = (0..left.len()).max_by_key(|&at| (overlap(&ribbon, &left[at]), Reverse(at)));
        let Some(best) = best else { return ribbon };
        let pattern = left.remove(best);
        ribbon.extend(&pattern[overlap(&ribbon, &pattern)..]);
    }
}

/// Where a pattern stands in a ribbon.
fn place_in(ribbon: &[Option<u32>], pattern: &Pattern) -> Option<usize> {
    ribbon.windows(pattern.len()).position(|at| at == pattern)
}

/// Stacks in patches of up to so many, by their numbers: each is joined by that one which shares most sources with it.
fn in_patches(stacks: &[Stack], most: usize) -> Vec<Vec<usize>> {
    let sources = |at: usize| stacks[at].sources.iter().map(|&(source, _)| source);
    let mut readers: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for at in 0..stacks.len() {
        for source in sources(at) {
            let of_source = readers.entry(source).or_default();
            if of_source.last() != Some(&at) {
                of_source.push(at);
            }
        }
    }
    let mut taken = vec![false; stacks.len()];
    let mut patches: Vec<Vec<usize>> = Vec::new();
    for first in 0..stacks.len() {
        if std::mem::replace(&mut taken[first], true) {
            continue;
        }
        let mut patch = vec![first];
        while patch.len() < most {
            let mut read: Vec<u32> = patch.iter().flat_map(|&at| sources(at)).collect();
            read.sort_unstable();
            read.dedup();
            let mut shared: BTreeMap<usize, usize> = BTreeMap::new();
            for reader in read.iter().flat_map(|source| &readers[source]) {
                if !taken[*reader] {
                    *shared.entry(*reader).or_default() += 1;
                }
            }
            let next = shared
                .iter()
                .max_by_key(|&(&at, &count)| (count, stacks.len() - at));
            // Where none shares any, the next one will do.
            let next = next.map(|(&at, _)| at);
            let Some(next) = next.or_else(|| taken.iter().position(|taken| !taken)) else {
                break;
            };
            taken[next] = true;
            patch.push(next);
        }
        patches.push(patch);
    }
    patches
}

/// How patches are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PatchShape {
    /// Panels of a stack, and channels of a panel.
    pub(super) panels: usize,
    pub(super) channels: usize,
    /// Stacks of a patch.
    pub(super) stacks: usize,
    /// Sources that are there at a time.
    pub(super) stages: usize,
    /// Sources that a stack is multiplied by in one chunk.
    pub(super) together: usize,
}

/// Patches as a kernel reads them: their number, where the record of each begins, and records.
///
/// A record is its numbers of sources and chunks, the panels of its stacks, sources in the order in which they are fetched,
/// and chunks: how many sources may have been fetched when the chunk before it is multiplied, and what each stack is
/// multiplied by, the number of a source in the last eight bits, and above them where the rows of its pattern begin.
pub(super) struct PatchList {
    pub(super) values: Vec<u32>,
    pub(super) count: usize,
}

/// Of each chunk of numbered things that are fetched in order, the first one that it or a later chunk needs.
pub(super) fn first_needed<'a>(chunks: impl DoubleEndedIterator<Item = &'a [usize]>) -> Vec<usize> {
    let later = |least: &mut usize, chunk: &[usize]| {
        *least = chunk
            .iter()
            .fold(*least, |least, &number| least.min(number));
        Some(*least)
    };
    let mut needed: Vec<usize> = chunks.rev().scan(usize::MAX, later).collect();
    needed.reverse();
    needed
}

/// A source of a patch with the pattern that it has for each stack, if it has one.
type Fetched = (u32, Vec<Option<Pattern>>);

/// The sources of a patch, ascending. A source that a stack has twice stands here twice.
fn ascending(stacks: &[&Stack]) -> Vec<Fetched> {
    let mut all: Vec<Fetched> = Vec::new();
    for (number, stack) in stacks.iter().enumerate() {
        for (source, pattern) in &stack.sources {
            let free = |entry: &&mut Fetched| entry.0 == *source && entry.1[number].is_none();
            match all.iter_mut().find(free) {
                Some(entry) => entry.1[number] = Some(pattern.clone()),
                None => {
                    let mut patterns = vec![None; stacks.len()];
                    patterns[number] = Some(pattern.clone());
                    all.push((*source, patterns));
                }
            }
        }
    }
    all.sort_by_key(|entry| entry.0);
    all
}

/// The same so that next always comes one that most of the stacks have that are behind, and few others.
fn in_turn(mut left: Vec<Fetched>, stacks: &[&Stack]) -> Vec<Fetched> {
    let mut wanted: Vec<usize> = stacks.iter().map(|stack| stack.sources.len()).collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        let most = wanted.iter().max().copied().unwrap_or(0);
        let score = |entry: &Fetched| {
            let with = || (0..stacks.len()).filter(|&stack| entry.1[stack].is_some());
            let behind = with().filter(|&stack| wanted[stack] == most).count();
            (behind, Reverse(with().count()))
        };
        let best = (0..left.len()).max_by_key(|&at| (score(&left[at]), Reverse(at)));
        let entry = left.remove(best.expect("some are left"));
        for (wanted, pattern) in wanted.iter_mut().zip(&entry.1) {
            *wanted -= usize::from(pattern.is_some());
        }
        order.push(entry);
    }
    order
}

/// What the stacks of a patch are multiplied by, chunk after chunk, as the record says it, if sources that are fetched in
/// this order come and go in time. `row` says where a pattern's rows begin.
fn chunks_of(
    order: &[Fetched],
    stacks: &[&Stack],
    shape: PatchShape,
    row: impl Fn(&Pattern) -> u32,
) -> Option<Vec<Vec<u32>>> {
    let nothing = row(&vec![None; shape.panels]);
    let longest = stacks.iter().map(|stack| stack.sources.len()).max();
    let count = longest.unwrap_or(0).div_ceil(shape.together);
    let own: Vec<Vec<(usize, u32)>> = (0..shape.stacks)
        .map(|stack| {
            let with = |(number, entry): (usize, &Fetched)| {
                let pattern = entry.1.get(stack)?.as_ref()?;
                Some((number, row(pattern)))
            };
            order.iter().enumerate().filter_map(with).collect()
        })
        .collect();
    let chunk = |chunk: usize| -> Vec<(usize, u32)> {
        let of_stack = |own: &Vec<(usize, u32)>| -> Vec<Option<(usize, u32)>> {
            // Whoever has few begins late: his sources were fetched when all others had as few left.
            let late = count * shape.together - own.len();
            let of_chunk = (0..shape.together).map(|n| chunk * shape.together + n);
            let own_of = |n: usize| own.get(n.checked_sub(late)?).copied();
            of_chunk.map(own_of).collect()
        };
        let entries: Vec<_> = own.iter().flat_map(of_stack).collect();
        // Whoever has nothing multiplies what is there by zeros.
        let there = entries.iter().flatten().map(|&(number, _)| number).min();
        let idle = (there.expect("the longest stack has some"), nothing);
        entries
            .into_iter()
            .map(|entry| entry.unwrap_or(idle))
            .collect()
    };
    let chunks: Vec<Vec<(usize, u32)>> = (0..count).map(chunk).collect();
    let numbers = |chunk: &Vec<(usize, u32)>| chunk.iter().map(|&(number, _)| number).collect();
    let numbers: Vec<Vec<usize>> = chunks.iter().map(numbers).collect();
    // While a chunk is multiplied, what only those before it needed is gone.
    let limits: Vec<usize> = first_needed(numbers.iter().map(Vec::as_slice))
        .into_iter()
        .map(|first| (first + shape.stages).min(order.len()))
        .collect();
    let there = |chunk: usize| match chunk {
        0 => shape.stages,
        _ => limits[chunk - 1],
    };
    let in_time = |chunk: usize| numbers[chunk].iter().all(|&number| number < there(chunk));
    if order.len() > 1 << u8::BITS || !(0..count).all(in_time) {
        return None;
    }
    let words = |(limit, chunk): (&usize, &Vec<(usize, u32)>)| {
        let entries = chunk
            .iter()
            .map(|&(number, row)| row << u8::BITS | number as u32);
        [*limit as u32].into_iter().chain(entries).collect()
    };
    Some(limits.iter().zip(&chunks).map(words).collect())
}

/// Patches of such a shape, if their sources come and go in time.
pub(super) fn patch_list(links: &Links, locations: usize, shape: PatchShape) -> Option<PatchList> {
    let stacks = stacks(links, locations, shape.panels);
    let ribbon = ribbon_of(&stacks, shape.panels);
    let row = |pattern: &Pattern| -> u32 {
        let place = place_in(&ribbon, pattern).expect("every pattern stands there");
        (place * shape.channels) as u32
    };
    let patches = in_patches(&stacks, shape.stacks);
    let mut records = Vec::new();
    let mut starts = Vec::new();
    for patch in &patches {
        starts.push(records.len());
        let of_patch: Vec<&Stack> = patch.iter().map(|&at| &stacks[at]).collect();
        let all = ascending(&of_patch);
        // In rows of panels the one order needs fewer sources at a time, in columns the other.
        let orders = [in_turn(all.clone(), &of_patch), all];
        let (order, chunks) = orders.into_iter().find_map(|order| {
            let chunks = chunks_of(&order, &of_patch, shape, row)?;
            Some((order, chunks))
        })?;
        records.extend([order.len() as u32, chunks.len() as u32]);
        for number in 0..shape.stacks {
            let panel = |slot| {
                of_patch
                    .get(number)
                    .and_then(|stack| stack.panels.get(slot))
            };
            records.extend((0..shape.panels).map(|slot| panel(slot).map_or(NONE, |&at| at as u32)));
        }
        records.extend(order.iter().map(|entry| entry.0));
        records.extend(chunks.into_iter().flatten());
    }
    let first = 1 + patches.len();
    let mut values = vec![patches.len() as u32];
    values.extend(starts.into_iter().map(|start| (first + start) as u32));
    values.extend(records);
    Some(PatchList {
        values,
        count: patches.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::cuda;
    use super::super::operands::Operands;
    use super::*;
    use crate::Wiring;

    fn wirings() -> Vec<Wiring> {
        let conv = Wiring::conv3x3;
        let odd = [conv(5, 7, 1), conv(9, 8, 2), conv(1, 20, 1)];
        let others = [Wiring::sequence(17, 19, 2), Wiring::sequence(20, 20, 0)];
        odd.into_iter().chain(others).collect()
    }

    /// (location, tap, source) of every link, sorted.
    fn all_links(links: &Links, locations: usize) -> Vec<[u32; 3]> {
        let of = |at: usize| {
            let each = move |link: &crate::Link| [at as u32, link.tap, link.location];
            links.of(at).iter().map(each)
        };
        let mut all: Vec<[u32; 3]> = (0..locations).flat_map(of).collect();
        all.sort_unstable();
        all
    }

    /// What a kernel makes of a list: links of all panels, if every source has been fetched when it is multiplied and is
    /// still there.
    fn walked(list: &PatchList, ribbon: &[Option<u32>], shape: PatchShape) -> Vec<[u32; 3]> {
        let words = &list.values;
        let mut links = Vec::new();
        for patch in 0..words[0] as usize {
            let record = &words[words[1 + patch] as usize..];
            let (sources, chunks) = (record[0] as usize, record[1] as usize);
            let panels = &record[2..][..shape.stacks * shape.panels];
            let order = &record[2 + panels.len()..][..sources];
            let mut chunk = &record[2 + panels.len() + sources..];
            let mut fetched = shape.stages.min(sources);
            for _ in 0..chunks {
                for (at, entry) in chunk[1..][..shape.stacks * shape.together]
                    .iter()
                    .enumerate()
                {
                    let number = (entry % 256) as usize;
                    // While this is multiplied, as many more are fetched as the chunk says.
                    assert!(number < fetched && number + shape.stages >= chunk[0] as usize);
                    let row = (entry >> 8) as usize;
                    assert_eq!(row % shape.channels, 0);
                    let taps = &ribbon[row / shape.channels..][..shape.panels];
                    let stack = &panels[at / shape.together * shape.panels..][..shape.panels];
                    for (&tap, &panel) in taps.iter().zip(stack) {
                        links.extend(tap.map(|tap| [panel, tap, order[number]]));
                    }
                }
                // What is asked for now lies in place of what the chunks before this one needed.
                fetched = fetched.max(chunk[0] as usize);
                chunk = &chunk[1 + shape.stacks * shape.together..];
            }
        }
        links.sort_unstable();
        links
    }

    #[test]
    fn patches_have_every_link_once_and_in_time() {
        for wiring in wirings() {
            let forward = (wiring.forward(), wiring.destinations());
            let backward = (wiring.backward(), wiring.sources());
            for (links, locations) in [forward, backward] {
                for (panels, stacks, together) in
                    [(1, 1, 1), (1, 4, 1), (2, 4, 1), (4, 2, 2), (8, 1, 4)]
                {
                    let shape = PatchShape {
                        panels,
                        channels: 64 / panels,
                        stacks,
                        stages: 16,
                        together,
                    };
                    let list = patch_list(links, locations, shape);
                    let list = list.unwrap_or_else(|| panic!("{locations} locations, {shape:?}"));
                    let ribbon = ribbon_of(&super::stacks(links, locations, panels), panels);
                    assert_eq!(walked(&list, &ribbon, shape), all_links(links, locations));
                }
            }
        }
    }

    #[test]
    fn ribbons_are_short() {
        let wiring = Wiring::conv3x3(32, 32, 1);
        let taps = |panels| ribbon_of(&stacks(wiring.forward(), 1024, panels), panels).len();
        // Rows of three taps between as many gaps as a pattern may begin or end with; alone, one gap that stands for none.
        assert_eq!([1, 2, 4, 8].map(taps), [10, 14, 22, 38]);
    }

    #[test]
    fn sources_must_come_in_time() {
        let wiring = Wiring::conv3x3(8, 8, 1);
        let shape = PatchShape {
            panels: 1,
            channels: 64,
            stacks: 4,
            stages: 2,
            together: 1,
        };
        assert!(patch_list(wiring.forward(), 64, shape).is_none());
    }

    /// The largest patches that there is room for have stages enough, too.
    #[test]
    fn large_patches_of_large_layers_are_made() {
        for (side, stride) in [(32, 1), (32, 2), (16, 1), (16, 2), (8, 1)] {
            let wiring = Wiring::conv3x3(side, side, stride);
            let forward = (wiring.forward(), wiring.destinations());
            let backward = (wiring.backward(), wiring.sources());
            for (links, locations) in [forward, backward] {
                for channels in [8, 16, 32, 64] {
                    for (operands, lands) in [
                        (Operands::F32, false),
                        (Operands::F32, true),
                        (Operands::Bf16, false),
                        (Operands::Bf16, true),
                    ] {
                        let panels = 64 / channels;
                        let taps = ribbon_of(&stacks(links, locations, panels), panels).len();
                        let sides = [100, channels, channels];
                        let choices = cuda::patches(locations, sides, taps, operands, lands);
                        let mut sizes: Vec<[usize; 2]> = choices
                            .iter()
                            .map(|choice| [choice.groups, choice.together])
                            .collect();
                        sizes.dedup();
                        let made = choices.iter().find(|choice| {
                            patch_list(links, locations, choice.shape(channels)).is_some()
                        });
                        let made = made.and_then(|made| {
                            let size = [made.groups, made.together];
                            sizes.iter().position(|&known| known == size)
                        });
                        // Two parts of 64 channels leave no room: they lie in larger blocks.
                        let most = usize::from(lands) + 1;
                        match (channels, operands) {
                            (64, Operands::F32) => {}
                            _ => assert!(made.is_some_and(|made| made < most)),
                        }
                    }
                }
            }
        }
    }
}
