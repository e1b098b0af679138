//! How CUDA's work-groups share a product or a gradient: their sides, warps and number.

use super::super::operands::Operands;
use super::super::units::{Patch, Stacks, Wide};

/// Work-groups that a weight gradient is cut into at least, where there are links enough: a large GPU's
/// multiprocessors twice.
pub(in crate::gpu) const GRADIENT_GROUPS: usize = 264;
/// The same of a bias gradient: few, as their parts are added by few.
pub(in crate::gpu) const BIAS_GROUPS: usize = 132;
/// Work-groups below which a product's are made narrower: about a large GPU's multiprocessors.
const FEW_GROUPS: usize = 128;
/// Channels of a block, of panels of many channels and of few.
pub(in crate::gpu) const BLOCK: usize = 64;
pub(in crate::gpu) const EIGHT: usize = 8;
/// Rows of an instruction of groups of warps: the channels of a stack of panels.
pub(in crate::gpu) const STACKED: usize = 64;
/// Bytes of shared memory that stages of a multiprocessor's work-groups may take: `ROOM_OF_STAGES` in `source/wide.cuh`.
const ROOM_OF_STAGES: usize = 225 << 10;
/// Terms that an instruction sums over.
const TERMS: usize = 16;
/// Samples that products of groups of warps make a multiple of.
pub(in crate::gpu) const SAMPLES: usize = 8;
/// Multiprocessors of a large GPU, on which groups of warps work.
const MULTIPROCESSORS: usize = 132;
/// Most channels of what warps make alone.
const MOST_ALONE: usize = 32;
/// Warps of a product from which on they are given more work each.
const MANY_WARPS: usize = 1024;
/// Warps of a work-group, but for those that are alone.
pub(in crate::gpu) const WARPS: usize = 8;

/// Columns of a product's work-groups: as many as the matrix has, up to 128, but few enough that all multiprocessors
/// have work. Sums do not depend on it, but the means of norms may in their last bits, so that it is the layer's alone.
pub(in crate::gpu) fn columns_of_a_group(panels: usize, columns: usize, exact: bool) -> usize {
    // Three parts of 128 columns would not fit into every device's shared memory.
    let most = if exact { 64 } else { 128 };
    let mut width = columns.next_power_of_two().clamp(8, most);
    while width > 16 && panels * columns.div_ceil(width) < FEW_GROUPS {
        width /= 2;
    }
    width
}

/// Channels of the blocks in which panels of so many lie: of few, where `neighbours` are made together.
pub(in crate::gpu) fn block_of(channels: usize, neighbours: bool) -> Option<usize> {
    match channels {
        8 | 16 | 32 if neighbours => Some(EIGHT),
        _ => channels.is_multiple_of(BLOCK).then_some(BLOCK),
    }
}

/// The next number of channels of panels that lie in blocks of eight.
pub(in crate::gpu) fn widened(channels: usize) -> Option<usize> {
    [8, 16, 32].into_iter().find(|&wide| wide >= channels)
}

/// Whether panels of so many columns that lie in blocks of eight channels are made together: of fewer, a warp makes one in
/// less time.
pub(in crate::gpu) fn in_company(columns: usize) -> bool {
    columns == 32
}

/// The work-groups of a product of so many panels, of so many rows, channels of the sources and columns, that makes
/// neighbouring panels together, with so many taps in the ribbon of its weights, and lands at z or not: those that there is
/// room for, the best first.
pub(in crate::gpu) fn patches(
    panels: usize,
    [rows, channels, columns]: [usize; 3],
    taps: usize,
    operands: Operands,
    lands: bool,
) -> Vec<Patch> {
    /// Bytes of a value of a part, and of what counts the arrivals of a stage.
    const VALUE: usize = size_of::<u16>();
    const ARRIVAL: usize = 8;
    /// Work-groups below which a patch is made smaller.
    const ENOUGH: usize = 120;
    /// Terms that a stack is multiplied by in one chunk at least, and how many times as many where groups of warps have company
    /// and where they are alone: every chunk is waited for.
    const LEAST_TERMS: usize = 32;
    const IN_COMPANY: [usize; 2] = [2, 1];
    const ALONE: [usize; 3] = [4, 2, 1];
    /// Most sources at a time: a warp's threads fetch them at once.
    const MOST_SOURCES: usize = 32;
    /// Fewest of them that bring the next ones in time.
    const FEW_SOURCES: usize = 10;
    /// Bytes of a multiprocessor's shared memory, those that each work-group there takes beside its own, and those that count
    /// the arrivals of a group's tiles of z.
    const OF_A_MULTIPROCESSOR: usize = 228 << 10;
    const BESIDE: usize = 1024 + 16;
    const OF_A_GROUP: usize = 4 * ARRIVAL;
    let parts = operands.parts();
    let rows = rows.next_multiple_of(SAMPLES);
    let ribbon = taps * columns;
    let stacks = panels.div_ceil(STACKED / columns);
    let least = (LEAST_TERMS / channels).max(1);
    // As `PatchProduct` in `source/patch.cuh` lays them out.
    let stages = |groups: usize, together: usize| {
        let weights = parts * channels.max(TERMS) * ribbon;
        // z has tiles of its own, which are fetched early; of results, tiles lie where operands lay.
        let tiles = usize::from(lands) * parts * groups * STACKED * rows;
        let stage = VALUE * parts * rows * channels + ARRIVAL;
        let taken = BESIDE + groups * OF_A_GROUP + VALUE * (weights + tiles);
        let room = (OF_A_MULTIPROCESSOR / together).saturating_sub(taken);
        (room / stage).min(MOST_SOURCES)
    };
    let patch = |groups, together, times: usize| Patch {
        groups,
        channels,
        ribbon,
        stages: stages(groups, together),
        sources: times * least,
        lands,
        together,
    };
    let large = [4, 2]
        .into_iter()
        .filter(|groups| stacks / groups >= ENOUGH)
        .flat_map(|groups| IN_COMPANY.map(|times| patch(groups, 1, times)))
        .filter(|patch| patch.stages >= (2 * patch.sources).max(4 * least));
    // Where several share a multiprocessor, one fetches while another multiplies.
    let most_together = stacks.div_ceil(MULTIPROCESSORS).clamp(1, 4);
    let small = (1..=most_together)
        .rev()
        .flat_map(|together| ALONE.map(|times| patch(1, together, times)))
        .filter(|patch| patch.stages >= (2 * patch.sources).max(FEW_SOURCES));
    let smallest = Some(patch(1, 1, 1)).filter(|patch| patch.stages >= 2 * least);
    large.chain(small).chain(smallest).collect()
}

/// The work-groups of a product of so many panels, of so many rows and columns, by groups of warps: large ones read little
/// for what they multiply, but there are to be enough of them.
pub(in crate::gpu) fn wide_product(
    panels: usize,
    rows: usize,
    columns: usize,
    operands: Operands,
) -> Wide {
    let blocks = columns / BLOCK;
    // Two panels beside each other must not have more sums than there are registers.
    let two = 2 * rows.next_multiple_of(SAMPLES) <= 208;
    let wide = |groups, deep, panels, together| Wide {
        groups,
        deep,
        panels,
        together,
    };
    let fits = |wide: &Wide| {
        let groups = panels.div_ceil(wide.panels) * (blocks / wide.blocks());
        blocks.is_multiple_of(wide.blocks()) && groups + 8 >= MULTIPROCESSORS
    };
    // Of two parts, more panels or channels would leave room for two stages only.
    let (choices, least) = match operands {
        Operands::Bf16 if two => (vec![wide(2, 2, 2, 1), wide(2, 1, 1, 2)], wide(1, 1, 1, 3)),
        Operands::Bf16 => (vec![wide(2, 1, 1, 2)], wide(1, 1, 1, 3)),
        _ => (vec![wide(2, 1, 1, 1)], wide(1, 1, 1, 2)),
    };
    choices.into_iter().find(fits).unwrap_or(least)
}

/// The work-groups of a gradient of so many inputs and outputs by groups of warps, their outputs, and the tiles in which
/// they read a panel of so many rows.
pub(in crate::gpu) fn wide_gradient(
    [inputs, outputs]: [usize; 2],
    rows: usize,
    operands: Operands,
) -> (Wide, usize, usize) {
    let groups = if inputs.is_multiple_of(2 * BLOCK) {
        2
    } else {
        1
    };
    let side = [4 * BLOCK, 2 * BLOCK, BLOCK];
    let outputs = side.into_iter().find(|&side| outputs.is_multiple_of(side));
    let outputs = outputs.expect("a multiple of a block");
    let parts = operands.parts();
    let blocks = parts * (groups + outputs / BLOCK);
    let wide = Wide {
        groups,
        deep: 1,
        panels: 1,
        // As many as there are registers and shared memory for.
        together: match (groups * outputs, blocks) {
            (..=128, ..=4) => 3,
            (..=256, ..=6) => 2,
            _ => 1,
        },
    };
    // Halves of panels where there is room for four stages of them, else whole ones if there is room for two.
    let stages = |samples: usize| {
        let bytes = blocks * BLOCK * size_of::<u16>() * samples.next_multiple_of(TERMS);
        ROOM_OF_STAGES / wide.together / bytes
    };
    let whole = rows <= BLOCK || (stages(rows.div_ceil(2)) < 4 && stages(rows) >= 2);
    (wide, outputs, if whole { 1 } else { 2 })
}

/// Parts that a gradient by groups of warps is cut into, of so many work-groups for each part and so many links: those
/// whose last work-groups are done first. A work-group's start and end take as long as some links, and to add another part
/// takes as long as some more.
pub(in crate::gpu) fn parts_of_wide_gradient(
    wide: Wide,
    groups: usize,
    links: usize,
    values: usize,
) -> usize {
    const START: f64 = 6.0;
    const VALUES_ADDED: f64 = 6e5;
    // Gradients of several layers mostly run together, so that few links a part gain nothing.
    const LEAST: usize = 24;
    let at_once = MULTIPROCESSORS * wide.together;
    let links_long = |parts: usize| {
        let rounds = (groups * parts).div_ceil(at_once) * wide.together;
        let of_a_part = links as f64 / parts as f64;
        rounds as f64 * (of_a_part + START) + (parts * values) as f64 / VALUES_ADDED
    };
    (1..=(links / LEAST).clamp(1, at_once))
        .min_by(|&a, &b| links_long(a).total_cmp(&links_long(b)))
        .unwrap_or(1)
}

/// Bytes of shared memory of a work-group of a gradient over stacks: what its share is, and stages or sums.
const ROOM_OF_A_SHARE: usize = 2816;
const ROOM_OF_STACKS: usize = (227 << 10) - ROOM_OF_A_SHARE;

/// Most blocks of sources of a work-group of a gradient over stacks: there are registers for their sums.
pub(in crate::gpu) const MOST_BLOCKS: usize = 9;

/// In how many tiles of samples a gradient over stacks takes panels of so many rows, and how many blocks there are in shared
/// memory at a time.
pub(in crate::gpu) fn stages_of_stacks(rows: usize, operands: Operands) -> [usize; 2] {
    /// Bytes of what counts the arrivals of a stage.
    const ARRIVAL: usize = 8;
    // Of two parts, whole panels would leave room for the blocks of one stack only.
    let parts = operands.parts();
    let halves = parts.min(rows);
    let samples = rows.div_ceil(halves).next_multiple_of(TERMS);
    let stage = parts * size_of::<u16>() * STACKED * samples + ARRIVAL;
    [halves, ROOM_OF_STACKS / stage]
}

/// Whether a share of so many words, and its sums, so many values, have room in shared memory.
pub(in crate::gpu) fn share_fits(words: usize, values: usize) -> bool {
    words * size_of::<u32>() <= ROOM_OF_A_SHARE && values * size_of::<f32>() <= ROOM_OF_STACKS
}

/// The work-groups of a gradient over stacks, of shares of so many blocks, taps and slots.
pub(in crate::gpu) fn stacks(
    rows: usize,
    [blocks, taps, slots]: [usize; 3],
    operands: Operands,
) -> Stacks {
    let [groups, deep] = match blocks {
        ..=4 => [blocks, 1],
        5 | 6 => [3, 2],
        7 | 8 => [4, 2],
        _ => [3, blocks.div_ceil(3)],
    };
    let [halves, stages] = stages_of_stacks(rows, operands);
    Stacks {
        groups,
        deep,
        halves,
        stages,
        blocks,
        taps,
        slots,
    }
}

/// Deltas and blocks of a walk of such a gradient: many, since a work-group takes some 12 µs to begin and to end, in which it
/// could multiply seven stacks of six blocks (on an H200). The walks of all layers of a network of 32 channels have room on a
/// large GPU at once.
pub(in crate::gpu) const LONG_WALK: usize = 84;

/// Columns of a panel that a warp makes, and warps of a work-group, if products of so many channels and columns are made by
/// warps alone: narrow ones, few to a work-group, where there are few panels.
pub(in crate::gpu) fn columns_and_warps(
    panels: usize,
    channels: usize,
    columns: usize,
) -> Option<[usize; 2]> {
    if !matches!(channels, 8 | 16 | 32) || columns > MOST_ALONE || !columns.is_multiple_of(8) {
        return None;
    }
    let wide = half_or_whole(columns);
    let wide = match panels * (columns / wide) {
        ..MANY_WARPS => 8,
        _ => wide,
    };
    let warps = panels * (columns / wide);
    let together = warps.div_ceil(FEW_GROUPS).next_power_of_two().min(WARPS);
    Some([wide, together])
}

/// Inputs and outputs of the work-groups of a weight gradient of so many taps whose warps hold all of these, if it is
/// made so.
pub(in crate::gpu) fn sides_of_all_taps(channels: [usize; 2], taps: usize) -> Option<[usize; 2]> {
    let few = channels.iter().all(|&c| c <= MOST_ALONE) && matches!(taps, 1 | 9);
    few.then(|| channels.map(half_or_whole))
}

/// Rows of an instruction, or half of them where the channels, a multiple of eight, are no multiple of those.
fn half_or_whole(channels: usize) -> usize {
    if channels.is_multiple_of(16) { 16 } else { 8 }
}

/// Values of a sum of so many parts that a work-group adds: few where there are many parts, so that more threads share
/// them.
pub(in crate::gpu) fn values_added_by_a_group(parts: usize) -> usize {
    match parts {
        ..=16 => 256,
        17..128 => 32,
        _ => 8,
    }
}

/// Inputs and outputs of a weight gradient's work-groups.
pub(in crate::gpu) fn sides_of_a_gradient(inputs: usize, outputs: usize) -> [usize; 2] {
    let side = |channels: usize, least| channels.next_power_of_two().clamp(least, 128);
    match [side(inputs, 16), side(outputs, 8)] {
        // Its eight warps, each with samples of its own, would stage more than every device has room for.
        [64, outputs @ ..=32] => [32, outputs],
        sides => sides,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fill_the_multiprocessors_once_or_more() {
        let (wide, _, _) = wide_gradient([256, 256], 100, Operands::Bf16);
        // Nine taps of two tiles: 126 work-groups for 132 multiprocessors.
        assert_eq!(parts_of_wide_gradient(wide, 18, 1024, 9 << 16), 7);
        assert_eq!(parts_of_wide_gradient(wide, 18, 20, 9 << 16), 1);
    }

    #[test]
    fn work_groups_are_as_wide_as_they_find_company() {
        assert_eq!(columns_of_a_group(1024, 3, true), 8);
        assert_eq!(columns_of_a_group(1024, 512, false), 128);
        assert_eq!(columns_of_a_group(64, 64, false), 32);
        assert_eq!(columns_of_a_group(1, 10, false), 16);
        assert_eq!(columns_and_warps(1024, 32, 32), Some([16, 8]));
        assert_eq!(columns_and_warps(64, 8, 16), Some([8, 1]));
        assert_eq!(columns_and_warps(1024, 64, 8), None);
        assert_eq!(columns_and_warps(1024, 8, 10), None);
        let wide = |panels, columns, operands| {
            let wide = wide_product(panels, 100, columns, operands);
            [wide.groups, wide.deep, wide.panels]
        };
        assert_eq!(wide(1024, 256, Operands::Bf16), [2, 2, 2]);
        assert_eq!(wide(1024, 384, Operands::Bf16), [2, 1, 1]);
        assert_eq!(wide(1024, 256, Operands::F32), [2, 1, 1]);
        assert_eq!(wide(64, 128, Operands::F32), [1, 1, 1]);
        let tiles = |channels, rows, operands| wide_gradient(channels, rows, operands).2;
        assert_eq!(tiles([256, 256], 100, Operands::Bf16), 2);
        assert_eq!(tiles([128, 128], 100, Operands::Bf16), 1);
        assert_eq!(tiles([128, 128], 128, Operands::F32), 2);
        assert_eq!(tiles([64, 64], 64, Operands::F32), 1);
        assert_eq!(sides_of_all_taps([8, 24], 9), Some([8, 8]));
        assert_eq!(sides_of_all_taps([16, 16], 25), None);
        assert_eq!(sides_of_a_gradient(3, 8), [16, 8]);
        assert_eq!(sides_of_a_gradient(300, 65), [128, 128]);
        assert_eq!(sides_of_a_gradient(64, 20), [32, 32]);
    }
}
