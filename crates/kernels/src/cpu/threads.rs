//! The thread pool: items run in any order on any thread, results depend on neither.

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Multiply-adds below which handing an item to another thread costs more than it saves.
const WORTH_SHARING: usize = 60_000;

pub(super) struct Threads {
    /// None: everything runs on the calling thread.
    pool: Option<ThreadPool>,
}

impl Threads {
    /// `count` threads, 0 for one per core.
    pub(super) fn new(count: usize) -> Result<Self, ThreadPoolBuildError> {
        let pool = ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|i| format!("sansprop-{i}"))
            .build()?;
        Ok(Self { pool: Some(pool) })
    }

    /// The calling thread alone, whichever that is.
    pub(super) fn caller() -> Self {
        Self { pool: None }
    }

    pub(super) fn count(&self) -> usize {
        self.pool
            .as_ref()
            .map_or(1, ThreadPool::current_num_threads)
    }

    pub(super) fn scope<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Runs `work` once on every thread, at the same time.
    pub(super) fn on_each(&self, work: impl Fn() + Sync) {
        match &self.pool {
            Some(pool) => drop(pool.broadcast(|_| work())),
            None => work(),
        }
    }

    /// Runs `work` on all items at the same time, as far as there are threads.
    pub(super) fn side_by_side<T: Send>(
        &self,
        items: &mut [T],
        work: impl Fn(&mut T) + Send + Sync,
    ) {
        self.scope(|| items.par_iter_mut().with_max_len(1).for_each(&work));
    }

    /// The calling thread's place among these, 0 if it is none of them.
    pub(super) fn index(&self) -> usize {
        let pool = self.pool.as_ref();
        pool.and_then(ThreadPool::current_thread_index).unwrap_or(0)
    }

    /// Runs `work(0..items)`, where one item costs about `cost` multiply-adds.
    pub(super) fn for_each(&self, items: usize, cost: usize, work: impl Fn(usize) + Send + Sync) {
        let grain = (WORTH_SHARING / cost.max(1)).max(1);
        match &self.pool {
            Some(pool) if pool.current_num_threads() > 1 && items > grain => pool.install(|| {
                (0..items)
                    .into_par_iter()
                    .with_min_len(grain)
                    .fold(|| (), |(), item| work(item))
                    .for_each(|()| end_of_share());
            }),
            _ => {
                (0..items).for_each(work);
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
