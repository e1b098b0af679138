//! What the operating system says of memory: a process's peak, and the caches.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const MIB: usize = 1 << 20;

/// The most memory that this process has had resident, in bytes; none where the system does not say.
pub(crate) fn peak_memory() -> Option<u64> {
    high_water_mark(&fs::read_to_string("/proc/self/status").ok()?)
}

/// The line `VmHWM: N kB`.
fn high_water_mark(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Bytes of all arrays of a triad that no cache can hold: each array four times the last-level caches, as STREAM
/// demands, within reason.
pub(crate) fn triad_bytes() -> usize {
    let caches = last_level_caches(Path::new("/sys/devices/system/cpu")).unwrap_or(0);
    (3 * 4 * caches).clamp(192 * MIB, 1536 * MIB)
}

/// Bytes of all last-level caches together; none where the system does not say.
fn last_level_caches(cpus: &Path) -> Option<usize> {
    // Level, and the processors that share the cache: each cache once.
    let mut caches = BTreeMap::new();
    for cpu in fs::read_dir(cpus).ok()?.flatten() {
        let Ok(indices) = fs::read_dir(cpu.path().join("cache")) else {
            continue;
        };
        for index in indices.flatten() {
            let read = |name: &str| fs::read_to_string(index.path().join(name)).ok();
            let cache = || {
                let level: u8 = read("level")?.trim().parse().ok()?;
                let size = read("size")?;
                let kib: usize = size.trim().strip_suffix('K')?.parse().ok()?;
                Some(((level, read("shared_cpu_list")?), 1024 * kib))
            };
            caches.extend(cache());
        }
    }
    let ((last, _), _) = caches.last_key_value()?;
    let last = caches.iter().filter(|((level, _), _)| level == last);
    Some(last.map(|(_, size)| size).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: the text that Linux documents.
    #[test]
    fn peak_of_a_status() {
        let status = "VmPeak:\t  240000 kB\nVmHWM:\t    1234 kB\nVmRSS:\t 99 kB\n";
        assert_eq!(high_water_mark(status), Some(1234 * 1024));
        assert_eq!(high_water_mark("VmPeak:\t 240000 kB\n"), None);
    }

    /// Oracle: two caches of the third level, each shared by two of four processors, beside smaller ones.
    #[test]
    fn caches_are_counted_once() {
        let folder = tempfile::tempdir().expect("a folder");
        for cpu in 0..4 {
            let shared = ["0-1", "2-3"][cpu / 2];
            for (index, level, size, list) in [
                (0, "1", "32K", cpu.to_string()),
                (3, "3", "4096K", shared.into()),
            ] {
                let cache = folder.path().join(format!("cpu{cpu}/cache/index{index}"));
                fs::create_dir_all(&cache).expect("a folder");
                for (name, text) in [("level", level), ("size", size), ("shared_cpu_list", &list)] {
                    fs::write(cache.join(name), format!("{text}\n")).expect("a file");
                }
            }
        }
        assert_eq!(last_level_caches(folder.path()), Some(8 * MIB));
        assert_eq!(last_level_caches(&folder.path().join("none")), None);
    }
}
