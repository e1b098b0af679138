//! Who trains a trial: locks that workers on one folder take, keep alive, and take over from the dead.
//!
//! A lock is a folder `locks/ID` that holds one file, named after its holder. Each change of hands is one rename,
//! which for the file system is one step, so exactly one worker wins it:
//!
//! - *taken*: a folder with the holder's file in it is renamed to `locks/ID`, which works only while that is absent
//!   or empty;
//! - *kept*: the holder writes its file anew every heartbeat;
//! - *taken over*: a file that was not written for longer than the expiry is renamed from its holder's name to the
//!   new one's. Whoever comes second does not find the old name, and a holder that was only slow finds its own
//!   name gone and stops;
//! - *released*: the file and the empty folder are removed;
//! - *swept up*: workers that leave remove the locks of trials that have ended, whoever held them: one that died
//!   between a trial's end and its release never would.
//!
//! Ages are differences between times that the file system of the folder itself stamps, so clocks of several
//! machines need not agree.

use super::{RunError, process_name};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// How often holders write, and after which silence they count as dead.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    /// Between two writes.
    pub every: Duration,
    /// Without one.
    pub expiry: Duration,
}

impl Heartbeat {
    /// Every 2 s, dead after 15 s; or as `SANSPROP_LOCK_EXPIRY` says in seconds, with a heartbeat each eighth of it.
    pub fn from_environment() -> Self {
        let asked = std::env::var("SANSPROP_LOCK_EXPIRY").ok();
        let seconds = asked.and_then(|v| v.parse::<f64>().ok());
        let seconds = seconds
            .filter(|s| s.is_finite() && *s > 0.0)
            .unwrap_or(15.0);
        Self {
            every: Duration::from_secs_f64(seconds / 8.0).min(Duration::from_secs(2)),
            expiry: Duration::from_secs_f64(seconds),
        }
    }
}

/// The locks of one folder.
#[derive(Clone, Debug)]
pub struct Locks {
    folder: PathBuf,
    name: String,
    heartbeat: Heartbeat,
}

/// Who holds a lock, seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process: host, process, start.
    pub name: String,
    /// Since its last heartbeat.
    pub age: Duration,
    /// Whether that is longer than the expiry.
    pub dead: bool,
}

/// One trial's lock in this process's hands; released when dropped.
#[derive(Debug)]
pub struct Lock {
    file: PathBuf,
    lost: AtomicBool,
}

impl Locks {
    /// Those in `folder`, which need not exist, for this process.
    pub fn new(folder: PathBuf, heartbeat: Heartbeat) -> Self {
        Self {
            folder,
            name: process_name().into(),
            heartbeat,
        }
    }

    /// When holders write and expire.
    pub fn heartbeat(&self) -> Heartbeat {
        self.heartbeat
    }

    fn error(path: &Path) -> impl Fn(std::io::Error) -> RunError {
        let path = path.to_owned();
        move |source| RunError::Write {
            path: path.clone(),
            source,
        }
    }

    /// Takes the lock of trial `id` if it is free or its holder is dead.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn take(&self, id: &str) -> Result<Option<Lock>, RunError> {
        let place = self.folder.join(id);
        let own = place.join(&self.name);
        let lock = || Lock {
            file: own.clone(),
            lost: AtomicBool::new(false),
        };
        if let Some(holder) = self.holder(id)? {
            if !holder.dead {
                return Ok(None);
            }
            let old = place.join(&holder.name);
            // Alive again before it has a new name: nobody may find the new holder's file old.
            return match touch(&old).and_then(|()| fs::rename(&old, &own)) {
                Ok(()) => Ok(Some(lock())),
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                Err(e) => Err(Self::error(&own)(e)),
            };
        }
        let prepared = self.folder.join(format!("{id}.{}.new", self.name));
        fs::create_dir_all(&prepared).map_err(Self::error(&prepared))?;
        let file = prepared.join(&self.name);
        File::create(&file)
            .and_then(|mut f| f.write_all(b"alive\n"))
            .map_err(Self::error(&file))?;
        // Where a folder cannot be renamed onto an empty one, the empty one must go first.
        let _ = fs::remove_dir(&place);
        let taken = fs::rename(&prepared, &place);
        if taken.is_err() {
            let removed = fs::remove_dir_all(&prepared);
            removed.map_err(Self::error(&prepared))?;
        }
        match taken {
            Ok(()) => Ok(Some(lock())),
            Err(_) if place.exists() => Ok(None),
            Err(e) => Err(Self::error(&place)(e)),
        }
    }

    /// Who holds the lock of trial `id`.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn holder(&self, id: &str) -> Result<Option<Holder>, RunError> {
        let place = self.folder.join(id);
        let error = |source| RunError::Read {
            path: place.clone(),
            source,
        };
        let entries = match fs::read_dir(&place) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(error(e)),
        };
        for entry in entries {
            let entry = entry.map_err(error)?;
            let written = match entry.metadata().and_then(|m| m.modified()) {
                Ok(written) => written,
                // Released or taken over between the listing and now.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(error(e)),
            };
            let age = self.now().duration_since(written).unwrap_or_default();
            return Ok(Some(Holder {
                name: entry.file_name().to_string_lossy().into_owned(),
                age,
                dead: age > self.heartbeat.expiry,
            }));
        }
        Ok(None)
    }

    /// What the file system's clock says, as a file written now shows; this machine's where that cannot be.
    fn now(&self) -> SystemTime {
        let probe = self.folder.join(format!("clock.{}", self.name));
        let stamped = fs::write(&probe, b"now\n").and_then(|()| fs::metadata(&probe)?.modified());
        stamped.unwrap_or_else(|_| SystemTime::now())
    }

    /// Removes this process's probe of the clock, the locks of trials that have `ended` for good, what workers left
    /// that died long ago, and, if nothing else is there, the folder.
    pub fn leave(&self, ended: impl Fn(&str) -> bool) {
        let now = self.now();
        // Leftovers are harmless, so a failure to remove them is none.
        let _ = fs::remove_file(self.folder.join(format!("clock.{}", self.name)));
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if ended(&name) {
                // Its holder may release it at the same time.
                let _ = fs::remove_dir_all(entry.path());
                continue;
            }
            let written = entry.metadata().and_then(|m| m.modified());
            let age = written.map(|w| now.duration_since(w).unwrap_or_default());
            if age.is_ok_and(|age| age > 100 * self.heartbeat.expiry) {
                if name.starts_with("clock.") {
                    let _ = fs::remove_file(entry.path());
                } else if name.ends_with(".new") {
                    let _ = fs::remove_dir_all(entry.path());
                }
            }
        }
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Writes into a file that is there; never makes one.
fn touch(file: &Path) -> std::io::Result<()> {
    let mut file = File::options().write(true).open(file)?;
    match file.write_all(b"alive\n") {
        // A full disk is no reason to die.
        Err(_) => file.set_modified(SystemTime::now()),
        Ok(()) => Ok(()),
    }
}

impl Lock {
    /// A sign of life.
    pub fn beat(&self) {
        if let Err(e) = touch(&self.file)
            && e.kind() == ErrorKind::NotFound
        {
            self.lost.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the last look showed that the lock is in other hands.
    pub fn lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Looks whether the lock is still in this process's hands.
    pub fn held(&self) -> bool {
        if !self.file.exists() {
            self.lost.store(true, Ordering::Relaxed);
        }
        !self.lost()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Fails where another worker took over: its file stays, and so does the folder.
        let _ = fs::remove_file(&self.file);
        if let Some(place) = self.file.parent() {
            let _ = fs::remove_dir(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locks(folder: &Path, expiry: f64) -> Locks {
        let heartbeat = Heartbeat {
            every: Duration::from_millis(50),
            expiry: Duration::from_secs_f64(expiry),
        };
        Locks::new(folder.join("locks"), heartbeat)
    }

    /// A holder that died: its file, written long ago.
    fn dead(folder: &Path, id: &str) {
        let place = folder.join("locks").join(id);
        fs::create_dir_all(&place).expect("a folder");
        let file = File::create(place.join("other-1-2")).expect("a file");
        let long_ago = SystemTime::now() - Duration::from_secs(1000);
        file.set_modified(long_ago).expect("an old file");
    }

    #[test]
    fn a_lock_has_one_holder() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let locks = locks(folder.path(), 100.0);
        let lock = locks.take("a").expect("writable").expect("free");
        assert!(lock.held());
        assert!(locks.take("a").expect("writable").is_none());
        assert!(locks.take("b").expect("writable").is_some());
        lock.beat();
        drop(lock);
        assert_eq!(locks.holder("a").expect("readable"), None);
        assert!(locks.take("a").expect("writable").is_some());
    }

    #[test]
    fn a_dead_holder_is_replaced_once_and_finds_out() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let locks = locks(folder.path(), 100.0);
        dead(folder.path(), "a");
        assert!(locks.holder("a").expect("readable").is_some_and(|h| h.dead));
        let slow = Lock {
            file: folder.path().join("locks/a/other-1-2"),
            lost: AtomicBool::new(false),
        };
        let lock = locks.take("a").expect("writable").expect("expired");
        assert!(locks.take("a").expect("writable").is_none());
        slow.beat();
        assert!(slow.lost());
        drop(slow);
        assert!(lock.held());
    }

    #[test]
    fn only_locks_of_ended_trials_are_swept_up() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let locks = locks(folder.path(), 100.0);
        for id in ["died", "running"] {
            dead(folder.path(), id);
        }
        fs::create_dir(folder.path().join("locks/emptied")).expect("a folder");
        let slow = locks.take("slow").expect("writable").expect("free");
        locks.leave(|id| id != "running");
        drop(slow);
        let left = fs::read_dir(folder.path().join("locks")).expect("a folder");
        let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["running"]);
        assert!(locks.holder("running").expect("readable").is_some());
    }

    /// Many threads race for each of many locks; the oracle is a count of winners.
    #[test]
    fn races_have_one_winner() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let locks = locks(folder.path(), 100.0);
        for round in 0..30 {
            let id = format!("trial-{round}");
            if round % 2 == 0 {
                dead(folder.path(), &id);
            }
            let winners: Vec<Lock> = std::thread::scope(|scope| {
                let racers = (0..8).map(|n| Locks {
                    name: format!("worker-{n}"),
                    ..locks.clone()
                });
                let race = |mine: Locks| {
                    scope.spawn({
                        let id = &id;
                        move || mine.take(id).expect("writable")
                    })
                };
                let threads: Vec<_> = racers.map(race).collect();
                let joined = threads.into_iter().map(|t| t.join().expect("no panic"));
                joined.flatten().collect()
            });
            assert_eq!(winners.len(), 1, "winners of {id}");
            assert!(winners[0].held());
        }
    }
}
