//! Stacks in the order in which a weight gradient takes them, and what of their sources stays with a work-group.
//!
//! The sources of a stack are taken in *blocks* of neighbouring ones, whose channels are the rows of one instruction. Stacks
//! follow each other so that most blocks are the next one's, too, if with other patterns.

use super::patches::{NONE, Pattern, Stack, first_needed, patterns, stacks};
use crate::Links;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

/// How a gradient's walks are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct WalkShape {
    /// Panels of a stack, and sources of a block.
    pub(super) panels: usize,
    pub(super) sources: usize,
    /// Items, which are blocks or deltas, that are there at a time, and most blocks of a share.
    pub(super) stages: usize,
    pub(super) blocks: usize,
    /// Deltas and blocks of a walk, at most.
    pub(super) long: usize,
    /// Zeros that stand for eight channels of a panel, two to a word.
    pub(super) zeros: usize,
}

/// A gradient's walks as a kernel reads them: where zeros begin, shares, of each share and part where its record begins and
/// how many items and chunks that has, records, and zeros.
///
/// Each source of a block has a *slot* for each panel that it has a tap for: there its products go, and the slots of a tap
/// follow each other. A share is its number of taps, the taps, the first slot of each and how many slots there are, and of
/// each source of a block and panel the slot. A record is items in the order in which they are fetched, whether it is deltas
/// and the panel of each eight channels; and for each stack a chunk: how many items may have been fetched while it is
/// multiplied, or afterwards, and the numbers of its deltas and blocks.
pub(super) struct WalkList {
    pub(super) values: Vec<u32>,
    /// Shares, and walks that the stacks are cut into.
    pub(super) shares: usize,
    pub(super) parts: usize,
    /// Most blocks of a share, most taps and most slots.
    pub(super) sizes: [usize; 3],
}

/// Words of a share of so many taps, of blocks with so many pairs of a source and a panel.
pub(super) fn share_words(taps: usize, pairs: usize) -> usize {
    2 + 2 * taps + pairs
}

/// Words that say where a record begins and what it has.
const START_WORDS: usize = 3;

/// What is added to the number of items where they may be fetched only when the chunk has been multiplied.
const AFTERWARDS: u32 = 1 << 31;
/// Eight channels of an item, and words of one.
const EIGHTHS: usize = 8;
const ITEM_WORDS: usize = 1 + EIGHTHS;

/// Patterns whose sources are fetched together.
type Block = Vec<Option<Pattern>>;

/// All patterns of stacks in blocks of so many: those that follow each other in the stack that has most, neighbours of
/// neighbouring sources.
fn blocks_of(stacks: &[Stack], most: usize) -> Vec<Block> {
    let richest = stacks.iter().max_by_key(|stack| stack.sources.len());
    let sources = richest.map_or(&[][..], |stack| &stack.sources[..]);
    let mut blocks: Vec<Block> = Vec::new();
    for run in sources.chunk_by(|one, next| one.0 + 1 == next.0) {
        let pattern = |entry: &(u32, Pattern)| Some(entry.1.clone());
        blocks.extend(
            run.chunks(most)
                .map(|chunk| chunk.iter().map(pattern).collect()),
        );
    }
    let known: Vec<Pattern> = sources.iter().map(|entry| entry.1.clone()).collect();
    let others = patterns(stacks)
        .into_iter()
        .filter(|pattern| !known.contains(pattern));
    let others: Vec<Option<Pattern>> = others.map(Some).collect();
    blocks.extend(others.chunks(most).map(<[_]>::to_vec));
    for block in &mut blocks {
        block.resize(most, None);
    }
    blocks
}

/// The taps of blocks, ascending.
fn taps_of(blocks: &[Block]) -> Vec<u32> {
    let patterns = blocks.iter().flatten().flatten();
    let mut taps: Vec<u32> = patterns.flatten().flatten().copied().collect();
    taps.sort_unstable();
    taps.dedup();
    taps
}

/// Blocks in so many shares, of which no two have a tap in common; none if their taps do not allow it.
fn shares_of(blocks: &[Block], count: usize) -> Option<Vec<Vec<Block>>> {
    // Blocks that have taps in common, directly or through others.
    let mut families: Vec<Vec<Block>> = Vec::new();
    for block in blocks {
        let taps = taps_of(std::slice::from_ref(block));
        let kin = |family: &Vec<Block>| taps_of(family).iter().any(|tap| taps.contains(tap));
        let (related, mut others): (Vec<_>, Vec<_>) = families.into_iter().partition(kin);
        let mut family: Vec<Block> = related.into_iter().flatten().collect();
        family.push(block.clone());
        others.push(family);
        families = others;
    }
    families.sort_by_key(|family| Reverse(family.len()));
    if families.len() < count {
        return None;
    }
    let mut shares: Vec<Vec<Block>> = vec![Vec::new(); count];
    for family in families {
        let least = shares.iter_mut().min_by_key(|share| share.len());
        least?.extend(family);
    }
    Some(shares)
}

/// The sources of a block for a stack.
fn sources_of(block: &Block, stack: &Stack) -> Vec<u32> {
    let source = |pattern: &Option<Pattern>| {
        let of = |entry: &&(u32, Pattern)| Some(&entry.1) == pattern.as_ref();
        stack.sources.iter().find(of).map_or(NONE, |entry| entry.0)
    };
    block.iter().map(source).collect()
}

/// Stacks, by their numbers, each followed by that one which shares most blocks with it.
fn in_order(stacks: &[Stack], blocks: &[Block]) -> Vec<usize> {
    let contents: Vec<Vec<Vec<u32>>> = stacks
        .iter()
        .map(|stack| {
            blocks
                .iter()
                .map(|block| sources_of(block, stack))
                .collect()
        })
        .collect();
    let mut readers: HashMap<&Vec<u32>, Vec<usize>> = HashMap::new();
    for (at, of_stack) in contents.iter().enumerate() {
        for sources in of_stack
            .iter()
            .filter(|sources| sources.iter().any(|&s| s != NONE))
        {
            readers.entry(sources).or_default().push(at);
        }
    }
    let mut taken = vec![false; stacks.len()];
    let mut order = Vec::with_capacity(stacks.len());
    for first in 0..stacks.len() {
        let mut next = Some(first).filter(|&at| !taken[at]);
        while let Some(at) = next {
            taken[at] = true;
            order.push(at);
            let mut shared: BTreeMap<usize, usize> = BTreeMap::new();
            let of_stack = contents[at]
                .iter()
                .filter_map(|sources| readers.get(sources));
            for &reader in of_stack.flatten().filter(|&&reader| !taken[reader]) {
                *shared.entry(reader).or_default() += 1;
            }
            let best = shared
                .iter()
                .max_by_key(|&(&at, &count)| (count, Reverse(at)));
            next = best.map(|(&at, _)| at);
        }
    }
    order
}

/// Adds an item to those that are fetched; returns its number.
fn fetch(items: &mut Vec<u32>, is_delta: bool, panels: &[u32]) -> usize {
    let (number, of_one) = (items.len() / ITEM_WORDS, EIGHTHS / panels.len());
    items.push(u32::from(is_delta));
    items.extend((0..EIGHTHS).map(|eighth| panels[eighth / of_one]));
    number
}

/// The record of a walk.
struct Record {
    items: Vec<u32>,
    chunks: Vec<u32>,
}

/// The record of a walk along stacks: none if it takes more stages.
fn walk(stacks: &[&Stack], blocks: &[Block], shape: WalkShape) -> Option<Record> {
    if blocks.len() >= shape.stages {
        return None;
    }
    let mut items: Vec<u32> = Vec::new();
    let mut known: HashMap<Vec<u32>, usize> = HashMap::new();
    let mut chunks: Vec<Vec<usize>> = Vec::new();
    for stack in stacks {
        let wanted: Vec<Vec<u32>> = blocks
            .iter()
            .map(|block| sources_of(block, stack))
            .collect();
        let next = items.len() / ITEM_WORDS;
        // What was fetched before stays where the next stack's new items fit, too, or else where this one's do.
        let items_with = |room_for: usize| {
            let mut new = 1;
            loop {
                let fits = |sources: &Vec<u32>| {
                    let after = next + room_for * new;
                    known
                        .get(sources)
                        .is_some_and(|&number| number + shape.stages >= after)
                };
                let stays: Vec<bool> = wanted.iter().map(fits).collect();
                let now = 1 + stays.iter().filter(|stays| !**stays).count();
                if now == new {
                    return (new, stays);
                }
                new = now;
            }
        };
        let mut chosen = items_with(2);
        if 2 * chosen.0 > shape.stages {
            chosen = items_with(1);
        }
        let (_, stays) = chosen;
        let panel = |slot: usize| stack.panels.get(slot).map_or(NONE, |&at| at as u32);
        let panels: Vec<u32> = (0..shape.panels).map(panel).collect();
        let mut chunk = vec![fetch(&mut items, true, &panels)];
        for (sources, stays) in wanted.into_iter().zip(stays) {
            let number = match stays {
                true => known[&sources],
                false => fetch(&mut items, false, &sources),
            };
            known.insert(sources, number);
            chunk.push(number);
        }
        chunks.push(chunk);
    }
    let all = items.len() / ITEM_WORDS;
    let first_needed = first_needed(chunks.iter().map(Vec::as_slice));
    let limit = |chunk: usize| -> u32 {
        let while_it_is_multiplied = first_needed[chunk] + shape.stages;
        let wanted = chunks.get(chunk + 1).and_then(|next| next.iter().max());
        match wanted.is_some_and(|&number| number >= while_it_is_multiplied) {
            true => AFTERWARDS | (first_needed[chunk + 1] + shape.stages).min(all) as u32,
            false => while_it_is_multiplied.min(all) as u32,
        }
    };
    let mut words = Vec::new();
    for (number, chunk) in chunks.iter().enumerate() {
        words.push(limit(number));
        words.extend(chunk.iter().map(|&number| number as u32));
        // Blocks that other shares have and this one lacks are its last one.
        let last = chunk[chunk.len() - 1] as u32;
        words.extend((blocks.len()..shape.blocks).map(|_| last));
    }
    Some(Record {
        items,
        chunks: words,
    })
}

/// Walks of a wiring in which no location has two links of one tap, in as few shares as there is room for.
pub(super) fn walk_list(
    (links, locations): (&Links, usize),
    taps: usize,
    shape: WalkShape,
) -> Option<WalkList> {
    let stacks = stacks(links, locations, shape.panels);
    let blocks = blocks_of(&stacks, shape.sources);
    let order = in_order(&stacks, &blocks);
    (1..=blocks.len()).find_map(|count| {
        let shares = shares_of(&blocks, count)?;
        let most = shares.iter().map(Vec::len).max()?;
        if most > shape.blocks {
            return None;
        }
        let shape = WalkShape {
            blocks: most,
            ..shape
        };
        let parts = (locations.div_ceil(shape.panels) * (1 + most)).div_ceil(shape.long);
        in_shares(&stacks, &order, (&shares, parts), taps, shape)
    })
}

/// The list of such shares.
fn in_shares(
    stacks: &[Stack],
    order: &[usize],
    (shares, parts): (&[Vec<Block>], usize),
    taps: usize,
    shape: WalkShape,
) -> Option<WalkList> {
    let mut taps_of: Vec<Vec<u32>> = shares.iter().map(|share| taps_of(share)).collect();
    // Taps that nothing has: their sums are somebody's, too.
    let missing = |tap: &u32| !taps_of.iter().any(|of_share| of_share.contains(tap));
    let missing: Vec<u32> = (0..taps as u32).filter(missing).collect();
    let first = taps_of.first_mut()?;
    first.extend(missing);
    first.sort_unstable();
    let most_taps = taps_of.iter().map(Vec::len).max()?;
    let mut values = vec![0];
    let mut slots = 0;
    for (share, of_share) in shares.iter().zip(&taps_of) {
        let pairs = pairs_of(share, shape.panels);
        let first_slots: Vec<u32> = (0..=most_taps)
            .scan(0, |next, number| {
                let first = *next;
                let tap = of_share.get(number);
                *next += pairs
                    .iter()
                    .filter(|pair| pair.is_some_and(|own| tap == Some(&own)))
                    .count() as u32;
                Some(first)
            })
            .collect();
        slots = slots.max(first_slots[most_taps] as usize);
        let mut next = first_slots.clone();
        let mut slot_of = |pair: &Option<u32>| {
            let tap = of_share.binary_search(pair.as_ref()?).ok()?;
            next[tap] += 1;
            Some(next[tap] - 1)
        };
        values.push(of_share.len() as u32);
        values.extend((0..most_taps).map(|number| of_share.get(number).copied().unwrap_or(NONE)));
        values.extend(&first_slots);
        values.extend(pairs.iter().map(|pair| slot_of(pair).unwrap_or(NONE)));
        let beyond = (shape.blocks - share.len()) * shape.sources * shape.panels;
        values.extend(vec![NONE; beyond]);
    }
    let starts = values.len();
    values.resize(starts + START_WORDS * shares.len() * parts, 0);
    for (number, share) in shares.iter().enumerate() {
        for part in 0..parts {
            let [first, last] = [part, part + 1].map(|n| order.len() * n / parts);
            let of_part: Vec<&Stack> = order[first..last].iter().map(|&at| &stacks[at]).collect();
            let Record { items, chunks } = walk(&of_part, share, shape)?;
            let start = starts + START_WORDS * (number * parts + part);
            let sizes = [values.len(), items.len() / ITEM_WORDS, of_part.len()];
            values[start..][..START_WORDS].copy_from_slice(&sizes.map(|size| size as u32));
            values.extend(items);
            values.extend(chunks);
        }
    }
    // Copies take 16 bytes at a time.
    values.resize(values.len().next_multiple_of(4), 0);
    values[0] = values.len() as u32;
    values.resize(values.len() + shape.zeros, 0);
    Some(WalkList {
        values,
        shares: shares.len(),
        parts,
        sizes: [shape.blocks, most_taps, slots],
    })
}

/// The tap of each source of a share's blocks for each panel of a stack.
fn pairs_of(share: &[Block], panels: usize) -> Vec<Option<u32>> {
    let nothing = vec![None; panels];
    let patterns = share.iter().flatten();
    patterns
        .flat_map(|pattern| pattern.as_ref().unwrap_or(&nothing).clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Wiring;

    fn wirings() -> Vec<Wiring> {
        let conv = Wiring::conv3x3;
        let odd = [conv(5, 7, 1), conv(9, 8, 2), conv(1, 20, 1), conv(8, 8, 1)];
        let others = [Wiring::sequence(17, 19, 2), Wiring::sequence(20, 20, 0)];
        odd.into_iter().chain(others).collect()
    }

    /// (destination, tap, source) of every link, sorted.
    fn all_links(wiring: &Wiring) -> Vec<[u32; 3]> {
        let of = |at: usize| {
            let each = move |link: &crate::Link| [at as u32, link.tap, link.location];
            wiring.forward().of(at).iter().map(each)
        };
        let mut all: Vec<[u32; 3]> = (0..wiring.destinations()).flat_map(of).collect();
        all.sort_unstable();
        all
    }

    /// The links whose products a kernel adds, if every item has been fetched when it is multiplied and is still there.
    fn walked(list: &WalkList, shape: WalkShape, taps: usize) -> Vec<[u32; 3]> {
        let (words, [blocks, most_taps, most_slots]) = (&list.values, list.sizes);
        let share_words = share_words(most_taps, blocks * shape.sources * shape.panels);
        let starts = &words[1 + list.shares * share_words..];
        let zeros = words[0] as usize;
        assert!(zeros.is_multiple_of(4) && words[zeros..] == vec![0; shape.zeros]);
        let (mut links, mut taken) = (Vec::new(), Vec::new());
        for share in 0..list.shares {
            let of_share = &words[1 + share * share_words..][..share_words];
            let own = &of_share[1..][..of_share[0] as usize];
            taken.extend(own.iter().copied());
            let first_slots = &of_share[1 + most_taps..][..=most_taps];
            assert!(first_slots.is_sorted() && first_slots[most_taps] as usize <= most_slots);
            let tap_of = |slot: u32| own[first_slots.partition_point(|&first| first <= slot) - 1];
            let slots = &of_share[2 + 2 * most_taps..];
            // Each slot is written once.
            let mut written: Vec<u32> = slots.iter().copied().filter(|&s| s != NONE).collect();
            written.sort_unstable();
            assert_eq!(written, (0..first_slots[most_taps]).collect::<Vec<_>>());
            for part in 0..list.parts {
                let start = &starts[START_WORDS * (share * list.parts + part)..][..START_WORDS];
                let [at, items, chunks] = [0, 1, 2].map(|n| start[n] as usize);
                let record = &words[at..];
                let item = |number: u32| &record[number as usize * 9..][..9];
                let mut fetched = shape.stages.min(items);
                for chunk in record[items * 9..].chunks(2 + blocks).take(chunks) {
                    let limit = (chunk[0] % AFTERWARDS) as usize;
                    let meanwhile = if chunk[0] >= AFTERWARDS {
                        fetched
                    } else {
                        limit
                    };
                    let there = |&number: &u32| {
                        let number = number as usize;
                        number < fetched && number + shape.stages >= fetched.max(meanwhile)
                    };
                    assert!(chunk[1..].iter().all(there));
                    fetched = fetched.max(limit);
                    assert!(fetched <= items);
                    let panels = item(chunk[1]);
                    assert_eq!(panels[0], 1);
                    for (place, &slot) in slots.iter().enumerate() {
                        let (source, panel) = (place / shape.panels, place % shape.panels);
                        let block = item(chunk[2 + source / shape.sources]);
                        assert_eq!(block[0], 0);
                        let source = block[1 + source % shape.sources * (8 / shape.sources)];
                        let panel = panels[1 + panel * (8 / shape.panels)];
                        if slot != NONE && source != NONE && panel != NONE {
                            links.push([panel, tap_of(slot), source]);
                        }
                    }
                }
            }
        }
        taken.sort_unstable();
        assert_eq!(taken, (0..taps as u32).collect::<Vec<_>>());
        links.sort_unstable();
        links
    }

    #[test]
    fn walks_have_every_link_once_and_in_time() {
        let mut most_walks = 0;
        for wiring in wirings() {
            for (panels, sources) in [(1, 1), (2, 2), (4, 4), (8, 8), (8, 2), (2, 4)] {
                for (stages, long) in [(13, 10), (11, usize::MAX)] {
                    let shape = WalkShape {
                        panels,
                        sources,
                        stages,
                        blocks: 9,
                        long,
                        zeros: 8,
                    };
                    let links = (wiring.forward(), wiring.destinations());
                    let Some(list) = walk_list(links, wiring.taps(), shape) else {
                        // Many panels of a stack have more sources than there are sums for.
                        assert!(panels > sources);
                        continue;
                    };
                    most_walks = most_walks.max(list.parts);
                    assert_eq!(walked(&list, shape, wiring.taps()), all_links(&wiring));
                }
            }
        }
        assert!(most_walks >= 3, "{most_walks} walks");
    }

    /// Down the columns of a grid, three rows of blocks are there, and one more comes with each stack.
    #[test]
    fn most_blocks_stay() {
        let wiring = Wiring::conv3x3(32, 32, 1);
        for (panels, stages, of_a_row) in [(1, 15, 3), (2, 11, 2), (4, 11, 2), (8, 11, 2)] {
            let shape = WalkShape {
                panels,
                sources: panels,
                stages,
                blocks: 9,
                long: usize::MAX,
                zeros: 0,
            };
            let list = walk_list((wiring.forward(), 1024), 9, shape).expect("stages enough");
            assert_eq!((list.shares, list.sizes[0]), (1, 3 * of_a_row));
            let start = 1 + share_words(9, 3 * of_a_row * panels * panels);
            let [items, stacks] = [1, 2].map(|n| list.values[start + n] as usize);
            assert_eq!(stacks, 1024 / panels);
            // At the end of a column a walk goes on in the next one.
            assert!(
                items < stacks * (1 + of_a_row) * 11 / 10,
                "{items} items of {stacks} stacks"
            );
        }
    }
}
