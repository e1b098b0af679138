//! The thread pool: items run in any order on any thread, results depend on neither.

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Multiply-adds below which handing an item to another thread costs more than it saves.
const WORTH_SHARING: usize = 60_000;

pub(super) struct Threads {
    pool: ThreadPool,
}

impl Threads {
    /// `count` threads, 0 for one per core.
    pub(super) fn new(count: usize) -> Result<Self, ThreadPoolBuildError> {
        let pool = ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|i| format!("sansprop-{i}"))
            .build()?;
        Ok(Self { pool })
    }

    pub(super) fn count(&self) -> usize {
        self.pool.current_num_threads()
    }

    pub(super) fn scope<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    /// Runs `work(0..items)`, where one item costs about `cost` multiply-adds.
    pub(super) fn for_each(&self, items: usize, cost: usize, work: impl Fn(usize) + Send + Sync) {
        self.for_each_with(items, cost, || (), |(), item| work(item));
    }

    /// As [`for_each`](Self::for_each), with a scratch value that each thread makes once and reuses.
    pub(super) fn for_each_with<S>(
        &self,
        items: usize,
        cost: usize,
        scratch: impl Fn() -> S + Send + Sync,
        work: impl Fn(&mut S, usize) + Send + Sync,
    ) {
        let grain = (WORTH_SHARING / cost.max(1)).max(1);
        if self.count() == 1 || items <= grain {
            let mut scratch = scratch();
            for item in 0..items {
                work(&mut scratch, item);
            }
        } else {
            self.pool.install(|| {
                (0..items)
                    .into_par_iter()
                    .with_min_len(grain)
                    .for_each_init(&scratch, |scratch, item| work(scratch, item));
            });
        }
    }
}
