//! Where regions of a device's memory lie: bookkeeping of one array that holds everything.

use std::collections::BTreeMap;

/// Values to which regions are aligned: 256 bytes, which every device can copy from.
const ALIGNMENT: usize = 64;

/// Free stretches of an array, by start.
#[derive(Debug, Default)]
pub(super) struct Heap {
    capacity: usize,
    free: BTreeMap<usize, usize>,
}

impl Heap {
    /// Values in all.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Values in no region.
    pub(super) fn free(&self) -> usize {
        self.free.values().sum()
    }

    /// The array became longer.
    pub(super) fn grow(&mut self, capacity: usize) {
        let more = capacity - self.capacity;
        let end = self.capacity;
        self.capacity = capacity;
        self.give_back(end, more);
    }

    /// What a region of `len` values takes.
    pub(super) fn stride(len: usize) -> usize {
        len.max(1).next_multiple_of(ALIGNMENT)
    }

    /// The start of a region of `len` values, in the first stretch that holds it; none if none does.
    pub(super) fn take(&mut self, len: usize) -> Option<usize> {
        let wanted = Self::stride(len);
        let (&start, &there) = self.free.iter().find(|(_, there)| **there >= wanted)?;
        self.free.remove(&start);
        if there > wanted {
            self.free.insert(start + wanted, there - wanted);
        }
        Some(start)
    }

    /// Ends a region that [`take`](Self::take) gave.
    pub(super) fn release(&mut self, start: usize, len: usize) {
        self.give_back(start, Self::stride(len));
    }

    fn give_back(&mut self, mut start: usize, mut len: usize) {
        if let Some((&before, &there)) = self.free.range(..start).next_back()
            && before + there == start
        {
            self.free.remove(&before);
            (start, len) = (before, there + len);
        }
        if let Some(after) = self.free.remove(&(start + len)) {
            len += after;
        }
        self.free.insert(start, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_do_not_overlap_and_come_back_as_one() {
        let mut heap = Heap::default();
        assert_eq!(heap.take(1), None);
        heap.grow(4 * ALIGNMENT);
        let starts = [1, ALIGNMENT, ALIGNMENT + 1].map(|len| heap.take(len));
        assert_eq!(starts, [Some(0), Some(ALIGNMENT), Some(2 * ALIGNMENT)]);
        assert_eq!(heap.take(1), None);
        heap.grow(5 * ALIGNMENT);
        assert_eq!(heap.take(0), Some(4 * ALIGNMENT));
        heap.release(ALIGNMENT, ALIGNMENT);
        heap.release(4 * ALIGNMENT, 0);
        heap.release(0, 1);
        assert_eq!(heap.take(2 * ALIGNMENT), Some(0));
        heap.release(2 * ALIGNMENT, ALIGNMENT + 1);
        heap.release(0, 2 * ALIGNMENT);
        assert_eq!(heap.take(5 * ALIGNMENT), Some(0));
    }
}
