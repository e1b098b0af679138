//! Work for a device: kernels with their operands, and in which launches they run.
//!
//! Nothing is started when a kernel is asked for: it is noted with the regions of memory that it reads and writes.
//! [`plan`] then orders what was noted and puts equal kernels that do not depend on each other into one launch,
//! whichever layer or trial they belong to. A kernel's arithmetic does not depend on its company, so results do not
//! either.

use super::gradient::GradientTile;
use super::operands::Form;
use super::panel::Arrival;
use super::tile::{Direction, Tile};
use crate::Activation;
use std::collections::HashMap;

/// A kernel as it is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kernel {
    Product {
        tile: Tile,
        direction: Direction,
        biased: bool,
    },
    ForwardPanel {
        tile: Tile,
        arrival: Arrival,
        /// Whether pre-activations are wanted, beside activations.
        z: bool,
    },
    FeedbackPanel {
        tile: Tile,
        direction: Direction,
        arrival: Arrival,
        local: bool,
    },
    Normalise(Arrival),
    /// A signal that lands, with the forms of its delta and of z.
    Land(Arrival, [Form; 2]),
    RecurStep(Tile, Activation),
    FeedbackStep {
        tile: Tile,
        activation: Activation,
        last: bool,
        first: bool,
        local: bool,
    },
    Pool(Form),
    Cut(Form),
    Unfold(Form),
    Fragments(Form),
    Ribbon(Form),
    Join(Form),
    Clear,
    Copy,
    Sign,
    Gather,
    ClassificationLoss,
    SequenceLoss,
    /// A weight gradient, with the form in which delta lies if the input is plain.
    GradientPart(GradientTile, Form),
    BiasPart(Form),
    AddParts,
    /// [`Kernel::AddParts`], and [`Kernel::Sgd`] of what comes of it.
    Descend,
    Sgd,
    Adam,
}

impl Kernel {
    /// What waits until nothing of a lower number can run: the more of it stands ready, the fewer launches it takes.
    fn patience(self) -> u8 {
        match self {
            Self::GradientPart(..) | Self::BiasPart(_) => 1,
            Self::AddParts | Self::Descend => 2,
            Self::Sgd | Self::Adam => 3,
            _ => 0,
        }
    }
}

/// Most minibatches of a recording.
pub(super) const MOST_MINIBATCHES: usize = 8;

/// A stretch of a region of the device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Its first value.
    pub(super) start: usize,
    /// The region's first value, by which it is known.
    pub(super) region: usize,
}

/// One kernel with its operands.
#[derive(Clone, Debug)]
pub(super) struct Item {
    kernel: Kernel,
    /// What the kernel reads: its number of work-groups first, the rest in its own order.
    words: Vec<u32>,
    reads: Vec<usize>,
    writes: Vec<usize>,
    /// Which minibatch of a recording it is for.
    minibatch: usize,
}

impl Item {
    /// A kernel of so many work-groups.
    pub(super) fn new(kernel: Kernel, groups: usize) -> Self {
        Self {
            kernel,
            words: vec![word(groups)],
            reads: Vec::new(),
            writes: Vec::new(),
            minibatch: 0,
        }
    }

    /// The same for such a minibatch of a recording.
    pub(super) fn of_minibatch(mut self, minibatch: usize) -> Self {
        self.minibatch = minibatch;
        self
    }

    /// The next operand is read.
    pub(super) fn reads(mut self, span: Span) -> Self {
        self.reads.push(span.region);
        self.count(span.start)
    }

    /// The next operand is written, or read and written.
    pub(super) fn writes(mut self, span: Span) -> Self {
        self.writes.push(span.region);
        self.count(span.start)
    }

    /// The next operand is a number.
    pub(super) fn count(mut self, value: usize) -> Self {
        self.words.push(word(value));
        self
    }

    /// The next operands are numbers.
    pub(super) fn counts<const N: usize>(self, values: [usize; N]) -> Self {
        values.into_iter().fold(self, Self::count)
    }

    /// The next operand is a factor.
    pub(super) fn factor(mut self, value: f64) -> Self {
        self.words.push((value as f32).to_bits());
        self
    }

    fn groups(&self) -> usize {
        self.words[0] as usize
    }

    /// A sum of parts and a step of descent along it as one kernel.
    fn descent(sum: &Self, step: &Self) -> Self {
        let [_, gate, _, weight, _, rate] = step.words[..] else {
            unreachable!("the words of a step of descent");
        };
        let mut both = Self {
            kernel: Kernel::Descend,
            ..sum.clone()
        };
        both.words.extend([gate, weight, rate]);
        both.reads.push(step.reads[0]);
        both.writes.extend(&step.writes);
        both
    }

    /// What one launch may hold: the same kernel, of about the same number of work-groups, as every item of a launch
    /// is given as many as the largest has, and the same minibatch.
    fn class(&self) -> (Kernel, u32, usize) {
        let size = self.groups().max(1).ilog2() / 2;
        (self.kernel, size, self.minibatch)
    }
}

fn word(value: usize) -> u32 {
    u32::try_from(value).expect("offsets and sizes on a device are below 2^32")
}

/// Items that run at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Launch {
    pub(super) kernel: Kernel,
    /// Work-groups of the largest item.
    pub(super) groups: usize,
    /// Items.
    pub(super) items: usize,
    /// Where the first item's words stand.
    pub(super) first_word: usize,
    /// Which minibatch of a recording they are for.
    pub(super) minibatch: usize,
    /// The earlier launches of the plan that leave what these items find.
    pub(super) after: Vec<usize>,
}

/// Launches in order, and the words of all their items.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) launches: Vec<Launch>,
    pub(super) words: Vec<u32>,
}

/// Most items of one launch: a device has at least 65,535 work-groups along a dimension.
const MOST_ITEMS: usize = 32_768;

/// The same work, in which a sum of parts and the step of descent along it are one kernel wherever nobody touches either in
/// between.
pub(super) fn with_descents(items: Vec<Item>) -> Vec<Item> {
    let mut result: Vec<Option<Item>> = Vec::with_capacity(items.len());
    // Who touched a region last, and who wrote there last.
    let mut touched: HashMap<usize, usize> = HashMap::new();
    let mut written: HashMap<usize, usize> = HashMap::new();
    for (number, item) in items.into_iter().enumerate() {
        let sum_of = |step: &Item| -> Option<usize> {
            let gradient = *step.reads.get(1).filter(|_| step.kernel == Kernel::Sgd)?;
            let at = *touched.get(&gradient)?;
            let sum = result[at].as_ref()?;
            let same = sum.kernel == Kernel::AddParts
                && sum.writes == [gradient]
                && (sum.words[2], sum.words[4]) == (step.words[2], step.words[4]);
            let parts_stay = written.get(&sum.reads[0]).is_none_or(|&by| by < at);
            (same && parts_stay).then_some(at)
        };
        let item = match sum_of(&item).and_then(|at| result[at].take()) {
            Some(sum) => Item::descent(&sum, &item),
            None => item,
        };
        for &region in item.reads.iter().chain(&item.writes) {
            touched.insert(region, number);
        }
        for &region in &item.writes {
            written.insert(region, number);
        }
        result.push(Some(item));
    }
    result.into_iter().flatten().collect()
}

/// Orders items so that each finds what earlier ones left, and no later one has overwritten it. Minibatches follow each other, so
/// that trials which are done with one early share the next one's launches.
pub(super) fn plan(items: &[Item]) -> Plan {
    let (followers, mut waits) = dependencies(items);
    let mut after = vec![Vec::new(); items.len()];
    let mut ready: Vec<usize> = (0..items.len()).filter(|&i| waits[i] == 0).collect();
    let mut plan = Plan::default();
    while let Some(&next) = ready
        .iter()
        .min_by_key(|&&i| (items[i].minibatch, items[i].kernel.patience(), i))
    {
        let class = items[next].class();
        let (mut now, later): (Vec<usize>, Vec<usize>) =
            ready.iter().partition(|&&i| items[i].class() == class);
        now.sort_unstable();
        ready = later;
        for together in now.chunks(MOST_ITEMS) {
            let mut earlier: Vec<usize> = together.iter().flat_map(|&i| after[i].clone()).collect();
            earlier.sort_unstable();
            earlier.dedup();
            let number = plan.launches.len();
            plan.launches.push(Launch {
                kernel: class.0,
                groups: together
                    .iter()
                    .map(|&i| items[i].groups())
                    .max()
                    .unwrap_or(0),
                items: together.len(),
                first_word: plan.words.len(),
                minibatch: class.2,
                after: earlier,
            });
            for &i in together {
                plan.words.extend(&items[i].words);
                for &follower in &followers[i] {
                    after[follower].push(number);
                }
            }
        }
        for i in now {
            for &follower in &followers[i] {
                waits[follower] -= 1;
                if waits[follower] == 0 {
                    ready.push(follower);
                }
            }
        }
    }
    plan
}

/// Who must wait for each item, and for how many each must wait.
fn dependencies(items: &[Item]) -> (Vec<Vec<usize>>, Vec<usize>) {
    #[derive(Default)]
    struct Region {
        writer: Option<usize>,
        readers: Vec<usize>,
    }
    let mut regions: HashMap<usize, Region> = HashMap::new();
    let mut followers = vec![Vec::new(); items.len()];
    let mut waits = vec![0; items.len()];
    for (i, item) in items.iter().enumerate() {
        let mut after = Vec::new();
        for read in &item.reads {
            let region = regions.entry(*read).or_default();
            after.extend(region.writer);
            region.readers.push(i);
        }
        for write in &item.writes {
            let region = regions.entry(*write).or_default();
            after.extend(region.writer.replace(i));
            after.append(&mut region.readers);
        }
        after.sort_unstable();
        after.dedup();
        for before in after {
            if before != i {
                followers[before].push(i);
                waits[i] += 1;
            }
        }
    }
    (followers, waits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(region: usize) -> Span {
        Span {
            start: region,
            region,
        }
    }

    fn copy(from: usize, to: usize) -> Item {
        Item::new(Kernel::Copy, 1)
            .reads(span(from))
            .writes(span(to))
    }

    fn order(items: &[Item]) -> Vec<Vec<u32>> {
        let plan = plan(items);
        let words = |l: &Launch| plan.words[l.first_word..][..3 * l.items].to_vec();
        plan.launches.iter().map(words).collect()
    }

    #[test]
    fn independent_items_share_a_launch() {
        let order = order(&[copy(0, 1), copy(1, 2), copy(3, 4), copy(4, 5)]);
        assert_eq!(order, [vec![1, 0, 1, 1, 3, 4], vec![1, 1, 2, 1, 4, 5]]);
    }

    #[test]
    fn nothing_is_overwritten_before_it_was_read() {
        // 1 is read by the second item and overwritten by the third, which is read by the fourth.
        let items = [copy(0, 1), copy(1, 2), copy(3, 1), copy(1, 4)];
        assert_eq!(order(&items).len(), 4);
        // Two writes of one place keep their order.
        let items = [copy(0, 1), copy(2, 1)];
        assert_eq!(order(&items), [vec![1, 0, 1], vec![1, 2, 1]]);
    }

    #[test]
    fn launches_know_what_they_follow() {
        let sign = Item::new(Kernel::Sign, 1).reads(span(0)).writes(span(5));
        let items = [copy(0, 1), sign, copy(1, 2), copy(5, 6)];
        let after: Vec<Vec<usize>> = plan(&items).launches.into_iter().map(|l| l.after).collect();
        assert_eq!(after, [vec![], vec![], vec![0, 1]]);
    }

    #[test]
    fn updates_wait_for_company() {
        let update = |gradient, weight| {
            Item::new(Kernel::Sgd, 1)
                .reads(span(gradient))
                .writes(span(weight))
        };
        let items = [copy(0, 1), update(1, 9), copy(1, 2), update(2, 10)];
        let order = order(&items);
        assert_eq!(order.len(), 3);
        assert_eq!(order[2], [1, 1, 9, 1, 2, 10]);
    }

    #[test]
    fn minibatches_follow_each_other() {
        let gather = |to| Item::new(Kernel::Gather, 1).reads(span(0)).writes(span(to));
        let next = |item: Item| item.of_minibatch(1);
        let items = [gather(1), next(gather(2)), copy(1, 3), next(copy(2, 4))];
        let launches = plan(&items).launches;
        let minibatches: Vec<usize> = launches.iter().map(|l| l.minibatch).collect();
        assert_eq!(minibatches, [0, 0, 1, 1]);
        // The second one is fetched without waiting for the first one's work.
        assert!(launches[2].after.is_empty());
    }

    #[test]
    fn sums_of_parts_are_descended_along_at_once() {
        let sum = |parts, out| {
            let item = Item::new(Kernel::AddParts, 1)
                .reads(span(parts))
                .writes(span(out));
            item.counts([7, 30, 32])
        };
        let step = |gate, gradient, weight| {
            let item = Item::new(Kernel::Sgd, 1)
                .reads(span(gate))
                .reads(span(gradient));
            item.writes(span(weight)).count(30).factor(0.5)
        };
        let kernels = |items: &[Item]| -> Vec<Kernel> {
            with_descents(items.to_vec())
                .iter()
                .map(|item| item.kernel)
                .collect()
        };
        let fused = with_descents(vec![sum(1, 2), copy(3, 4), step(5, 2, 6)]);
        assert_eq!(fused[1].kernel, Kernel::Descend);
        assert_eq!(fused[1].words, [1, 1, 2, 7, 30, 32, 5, 6, 0.5f32.to_bits()]);
        assert_eq!(
            (&fused[1].reads[..], &fused[1].writes[..]),
            (&[1, 5][..], &[2, 6][..])
        );
        let apart = |between: Item| {
            let items = [sum(1, 2), between, step(5, 2, 6)];
            assert!(!kernels(&items).contains(&Kernel::Descend));
        };
        // Somebody reads the sum, or changes it, or its parts.
        apart(copy(2, 9));
        apart(copy(9, 2));
        apart(copy(9, 1));
        // Another sum's step.
        assert_eq!(
            kernels(&[sum(1, 2), step(5, 3, 6)]),
            [Kernel::AddParts, Kernel::Sgd]
        );
    }

    #[test]
    fn items_of_very_different_sizes_are_launched_apart() {
        let large = Item::new(Kernel::Clear, 1000).writes(span(1));
        let small = Item::new(Kernel::Clear, 1).writes(span(2));
        let plan = plan(&[large, small]);
        let groups: Vec<usize> = plan.launches.iter().map(|l| l.groups).collect();
        assert_eq!(groups, [1000, 1]);
    }
}
