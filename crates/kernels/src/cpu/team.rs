//! Threads that share rounds of work at little cost.
//!
//! A training step hands work out some forty times, for a tenth of a millisecond or less at small widths. So members look
//! for the next round for a while before they sleep; each begins with its own part of the items, the same in every
//! round, whose panels its caches hold, and takes from others once that is done; and nobody waits for a member that
//! comes late, as on a machine with other work.

use std::any::Any;
use std::cell::UnsafeCell;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often a thread looks before it lets others run.
const LOOKS: usize = 1_000;

/// How long a member looks for the next round before it sleeps.
const PATIENCE: Duration = Duration::from_micros(500);

/// A thread that leads, whichever calls, and members that help it.
pub(super) struct Team {
    shared: Arc<Shared>,
    members: Vec<JoinHandle<()>>,
    /// Held by the thread that leads a round.
    lead: Mutex<()>,
}

impl Team {
    /// `count` threads, the leader among them.
    pub(super) fn new(count: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            round: Padded(Round::default()),
            parts: (0..count).map(|_| Padded::default()).collect(),
            asleep: (1..count).map(|_| Padded::default()).collect(),
            job: UnsafeCell::new(None),
            ends: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut team = Self {
            shared,
            members: Vec::with_capacity(count - 1),
            lead: Mutex::new(()),
        };
        for member in 1..count {
            let shared = Arc::clone(&team.shared);
            let thread = thread::Builder::new().name(format!("sansprop-{member}"));
            team.members
                .push(thread.spawn(move || shared.serve(member))?);
        }
        Ok(team)
    }

    /// Threads, the leader among them.
    pub(super) fn count(&self) -> usize {
        self.members.len() + 1
    }

    /// Runs `work(thread)` on the calling thread, which is 0, and on every member that comes before that returns. Alone
    /// if the team is busy.
    pub(super) fn together(&self, work: &(dyn Fn(usize) + Sync)) {
        match self.try_lead() {
            Some(lead) => self.round(&lead, self.count(), work),
            None => work(0),
        }
    }

    /// Runs `work` once on every thread, at the same time.
    pub(super) fn all(&self, work: &(dyn Fn() + Sync)) {
        let lead = self.lead.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = AtomicUsize::new(0);
        self.round(&lead, self.count(), &|_| {
            begun.fetch_add(1, Ordering::Relaxed);
            work();
            // A round is open until its leader is done.
            wait_until(|| begun.load(Ordering::Relaxed) == self.count());
        });
    }

    /// Runs `work(thread, items)` for parts of `0..items` that are so many or fewer each, and `done` on every thread that
    /// did some.
    pub(super) fn share(
        &self,
        items: usize,
        grain: usize,
        work: &(dyn Fn(usize, Range<usize>) + Sync),
        done: &(dyn Fn() + Sync),
    ) {
        let Some(lead) = self.try_lead() else {
            work(0, 0..items);
            return done();
        };
        let (units, count) = (items.div_ceil(grain), self.count());
        let edge = |thread: usize| thread * units / count;
        let parts = &self.shared.parts;
        for (thread, part) in parts.iter().enumerate() {
            part.0.set(edge(thread)..edge(thread + 1));
        }
        self.round(&lead, units.min(count), &|thread| {
            let own = std::iter::from_fn(|| parts[thread].0.take_first());
            let others = (1..count).flat_map(|ahead| {
                let part = &parts[(thread + ahead) % count].0;
                std::iter::from_fn(|| part.take_last())
            });
            for unit in own.chain(others) {
                work(thread, unit * grain..((unit + 1) * grain).min(items));
            }
            done();
        });
    }

    /// The lead, unless another thread has it, or this one in a round that it leads.
    fn try_lead(&self) -> Option<MutexGuard<'_, ()>> {
        match self.lead.try_lock() {
            Ok(lead) => Some(lead),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// A round on this thread and those members that come before it is done here, of which those that sleep are woken as
    /// far as there is work for `wanted` threads. A panic on any of them goes on here.
    fn round(&self, _: &MutexGuard<'_, ()>, wanted: usize, work: &(dyn Fn(usize) + Sync)) {
        let shared = &self.shared;
        // SAFETY: the lifetime is dropped from the type alone: members call a job only inside its round, whose end this
        // function awaits.
        let job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(work) };
        // SAFETY: only the thread that holds the lead writes the job, and members read it only inside a round.
        unsafe { *shared.job.get() = Some(job) };
        shared.round.0.open();
        let helpers = shared.asleep.iter().zip(&self.members);
        for (asleep, member) in helpers.take(wanted.saturating_sub(1)) {
            if asleep.0.load(Ordering::SeqCst) {
                member.thread().unpark();
            }
        }
        let own = catch_unwind(AssertUnwindSafe(|| work(0)));
        shared.round.0.close();
        let others = shared.panic.lock().unwrap_or_else(PoisonError::into_inner);
        let others = { others }.take();
        if let Some(panic) = own.err().or(others) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        for member in self.members.drain(..) {
            member.thread().unpark();
            // A member's panics were handed to a leader.
            let _ = member.join();
        }
    }
}

/// What a round does, on the thread of a number.
type Job = &'static (dyn Fn(usize) + Sync);

/// A value in cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Padded<T>(T);

struct Shared {
    round: Padded<Round>,
    /// The units that are left of each thread's part.
    parts: Vec<Padded<Part>>,
    /// Whether each member sleeps, or is about to.
    asleep: Vec<Padded<AtomicBool>>,
    /// Of the open round.
    job: UnsafeCell<Option<Job>>,
    ends: AtomicBool,
    /// The first panic of a member in this round.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: all is shared by atomics and a lock but the job, which a leader writes while no member is inside a round, and
// members read while they are.
unsafe impl Sync for Shared {}

impl Shared {
    /// What a member does all its life.
    fn serve(&self, member: usize) {
        let mut seen = 0;
        while self.await_round(member, &mut seen) {
            // SAFETY: this member is inside the round, so its leader wrote the job and waits.
            let job = unsafe { (*self.job.get()).expect("an open round has a job") };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(member))) {
                let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(panic);
            }
            self.round.0.leave();
        }
    }

    /// Enters the first round after the one `seen`; false once there will be none.
    fn await_round(&self, member: usize, seen: &mut u32) -> bool {
        let mut since = Instant::now();
        let mut looks = 0;
        loop {
            if self.round.0.enter(seen) {
                return true;
            }
            if self.ends.load(Ordering::SeqCst) {
                return false;
            }
            looks += 1;
            if looks % LOOKS != 0 {
                std::hint::spin_loop();
            } else if since.elapsed() < PATIENCE {
                thread::yield_now();
            } else {
                let asleep = &self.asleep[member - 1].0;
                asleep.store(true, Ordering::SeqCst);
                // Whoever opens a round or ends the team after this look sees that this member sleeps.
                if !self.round.0.is_after(*seen) && !self.ends.load(Ordering::SeqCst) {
                    thread::park();
                }
                asleep.store(false, Ordering::SeqCst);
                since = Instant::now();
            }
        }
    }
}

/// A round: its number, whether it is closed, and how many members are inside.
struct Round(AtomicU64);

/// One more round.
const NEXT: u64 = 1 << 32;

/// Nobody may enter any more.
const CLOSED: u64 = 1 << 31;

impl Default for Round {
    fn default() -> Self {
        Self(AtomicU64::new(CLOSED))
    }
}

impl Round {
    fn number(state: u64) -> u32 {
        (state >> 32) as u32
    }

    /// The next round, once the last is closed.
    fn open(&self) {
        let closed = self.0.load(Ordering::Relaxed);
        self.0
            .store((closed & !CLOSED).wrapping_add(NEXT), Ordering::SeqCst);
    }

    /// No member enters any more; returns when all have left.
    fn close(&self) {
        self.0.fetch_or(CLOSED, Ordering::AcqRel);
        wait_until(|| self.0.load(Ordering::Acquire) & (CLOSED - 1) == 0);
    }

    /// Enters an open round other than the one `seen`, which it becomes.
    fn enter(&self, seen: &mut u32) -> bool {
        let state = self.0.load(Ordering::Relaxed);
        if Self::number(state) == *seen {
            return false;
        }
        if state & CLOSED != 0 {
            *seen = Self::number(state);
            return false;
        }
        let entered = self
            .0
            .compare_exchange(state, state + 1, Ordering::Acquire, Ordering::Relaxed)
            .is_ok();
        if entered {
            *seen = Self::number(state);
        }
        entered
    }

    fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }

    /// Whether there was a round after the one `seen`.
    fn is_after(&self, seen: u32) -> bool {
        Self::number(self.0.load(Ordering::SeqCst)) != seen
    }
}

/// Units of work that are left: the first, and the one behind the last.
#[derive(Default)]
struct Part(AtomicU64);

impl Part {
    fn set(&self, units: Range<usize>) {
        let edge = |unit: usize| u32::try_from(unit).expect("fewer than 2³² units of work");
        let (start, end) = (edge(units.start), edge(units.end));
        self.0.store(Self::packed(start, end), Ordering::Relaxed);
    }

    fn packed(start: u32, end: u32) -> u64 {
        u64::from(start) << 32 | u64::from(end)
    }

    fn take_first(&self) -> Option<usize> {
        self.take(|start, end| ((start + 1, end), start))
    }

    fn take_last(&self) -> Option<usize> {
        self.take(|start, end| ((start, end - 1), end - 1))
    }

    /// Takes a unit, if any is left; `cut` says what is left then, and which it is.
    fn take(&self, cut: impl Fn(u32, u32) -> ((u32, u32), u32)) -> Option<usize> {
        let mut state = self.0.load(Ordering::Relaxed);
        loop {
            let (start, end) = ((state >> 32) as u32, state as u32);
            if start >= end {
                return None;
            }
            let ((start, end), unit) = cut(start, end);
            let left = Self::packed(start, end);
            let order = Ordering::Relaxed;
            match self.0.compare_exchange_weak(state, left, order, order) {
                Ok(_) => return Some(unit as usize),
                Err(now) => state = now,
            }
        }
    }
}

/// Waits without sleeping, but lets others run.
fn wait_until(reached: impl Fn() -> bool) {
    let mut looks = 0;
    while !reached() {
        looks += 1;
        match looks % LOOKS {
            0 => thread::yield_now(),
            _ => std::hint::spin_loop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each item ran, of a share among `count` threads.
    fn runs(team: &Team, items: usize, grain: usize, slow: impl Fn(usize) + Sync) -> Vec<usize> {
        let runs: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
        let share = |thread: usize, range: Range<usize>| {
            slow(thread);
            assert!(thread < team.count() && range.len() <= grain.max(items));
            for item in range {
                runs[item].fetch_add(1, Ordering::Relaxed);
            }
        };
        team.share(items, grain, &share, &|| ());
        runs.into_iter().map(AtomicUsize::into_inner).collect()
    }

    /// Oracle: every item runs once, whatever the threads, the grain and who is late; some of them asleep.
    #[test]
    fn every_item_runs_once() {
        for count in [2, 3, 7] {
            let team = Team::new(count).expect("threads");
            for (items, grain) in [(0, 1), (1, 1), (2, 1), (5, 2), (64, 1), (1000, 7)] {
                for late in 0..count + 1 {
                    let pause = Duration::from_micros(30);
                    let slow = |thread| {
                        if thread == late {
                            thread::sleep(pause);
                        }
                    };
                    let runs = runs(&team, items, grain, slow);
                    assert!(
                        runs.iter().all(|&runs| runs == 1),
                        "{count} {items} {runs:?}"
                    );
                }
                thread::sleep(2 * PATIENCE);
            }
        }
    }

    /// Oracle: a barrier, which nobody passes unless all threads are there, also those that slept.
    #[test]
    fn all_threads_work_at_the_same_time() {
        let team = Team::new(3).expect("threads");
        for _ in 0..3 {
            thread::sleep(4 * PATIENCE);
            let (barrier, met) = (std::sync::Barrier::new(3), AtomicUsize::new(0));
            team.all(&|| {
                barrier.wait();
                met.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(met.into_inner(), 3);
        }
    }

    /// Work inside a round, and of a second leader meanwhile, is done by the one who asks.
    #[test]
    fn a_busy_team_leaves_the_caller_to_itself() {
        let team = Team::new(2).expect("threads");
        let inner = AtomicUsize::new(0);
        let outer = runs(&team, 8, 1, |_| {
            let runs = runs(&team, 5, 1, |thread| assert_eq!(thread, 0));
            inner.fetch_add(runs.iter().sum(), Ordering::Relaxed);
        });
        assert!(outer.iter().all(|&runs| runs == 1), "{outer:?}");
        assert_eq!(inner.into_inner(), 40);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let runs = runs(&team, 9, 1, |_| ());
                        assert!(runs.iter().all(|&runs| runs == 1), "{runs:?}");
                    }
                });
            }
        });
    }

    /// A panic on any thread reaches the caller, and the team works on.
    #[test]
    fn a_panic_reaches_the_caller() {
        let team = Team::new(2).expect("threads");
        for bad in 0..2 {
            let met = std::sync::Barrier::new(2);
            let work = |thread| {
                met.wait();
                assert_ne!(thread, bad, "thread {bad} fails");
            };
            let caught = catch_unwind(AssertUnwindSafe(|| team.together(&work)));
            let panic = caught.expect_err("a panic");
            let message = panic.downcast_ref::<String>().expect("a message");
            assert!(message.contains("fails"), "{message}");
            assert_eq!(runs(&team, 4, 1, |_| ()), [1; 4]);
        }
    }
}
