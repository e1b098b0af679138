//! The threads that kernels are divided among: items run in any order on any of them, results depend on neither.

use super::team::Team;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Multiply-adds below which handing an item to another thread costs more than it saves.
const WORTH_SHARING: usize = 60_000;

/// The threads that a backend computes on: the calling one and those that help it.
pub(super) struct Threads {
    /// None: everything runs on the calling thread.
    team: Option<Team>,
}

impl Threads {
    /// `count` threads, 0 for one per core.
    pub(super) fn new(count: usize) -> io::Result<Self> {
        let count = match count {
            0 => thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let team = match count {
            1 => None,
            _ => Some(Team::new(count)?),
        };
        Ok(Self { team })
    }

    /// The calling thread alone, whichever that is.
    pub(super) fn caller() -> Self {
        Self { team: None }
    }

    pub(super) fn count(&self) -> usize {
        self.team.as_ref().map_or(1, Team::count)
    }

    /// Runs `work` once on every thread, at the same time.
    pub(super) fn on_each(&self, work: impl Fn() + Sync) {
        match &self.team {
            Some(team) => team.all(&work),
            None => work(),
        }
    }

    /// Runs `work` on all items at the same time, as far as there are threads.
    pub(super) fn side_by_side<T: Send>(
        &self,
        items: &mut [T],
        work: impl Fn(&mut T) + Send + Sync,
    ) {
        let items = Mutex::new(items.iter_mut());
        let next = || {
            let mut items = items.lock().unwrap_or_else(PoisonError::into_inner);
            items.next()
        };
        let one_by_one = |_: usize| {
            while let Some(item) = next() {
                work(item);
            }
        };
        match &self.team {
            Some(team) => team.together(&one_by_one),
            None => one_by_one(0),
        }
    }

    /// Runs `work(thread, item)` for the items `0..items`, of which one costs about `cost` multiply-adds, on threads
    /// `0..count`, each of which runs one item at a time.
    pub(super) fn for_each(
        &self,
        items: usize,
        cost: usize,
        work: impl Fn(usize, usize) + Send + Sync,
    ) {
        let grain = (WORTH_SHARING / cost.max(1)).max(1);
        let share = |thread: usize, items: Range<usize>| items.for_each(|item| work(thread, item));
        match &self.team {
            Some(team) if items > grain => team.share(items, grain, &share, &end_of_share),
            _ => {
                share(0, 0..items);
                end_of_share();
            }
        }
    }
}

/// After the items that a thread ran one after the other: what it wrote past the caches is in memory before anybody is told
/// that the work is done.
fn end_of_share() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this architecture has the instruction, which touches no memory.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}
