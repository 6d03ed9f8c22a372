//! The machine that is measured: its clock of CPU time, and its caches.

use std::fs;
use std::hint::black_box;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// Nanoseconds of CPU that all threads of this process have used, the kernel's work for them
/// included.
pub(super) fn cpu_time() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    (time.tv_sec as u64).wrapping_mul(1_000_000_000) + time.tv_nsec as u64
}

/// What asking the clock twice costs: it is in everything that is measured.
pub(super) fn clock_cost() -> u64 {
    let mut costs: Vec<u64> = (0..101)
        .map(|_| {
            let start = cpu_time();
            cpu_time() - start
        })
        .collect();
    costs.sort_unstable();
    costs.get(costs.len() / 2).copied().unwrap_or(0)
}

/// What to know of a machine to compare figures.
#[derive(Clone, Serialize, Debug)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cpus: usize,
    pub(super) kernel: String,
    pub(super) architecture: &'static str,
    pub(super) page: usize,
    /// Bytes of the largest cache.
    pub(super) cache: usize,
    /// Whether it was read from the system, or taken for granted.
    pub(super) cache_known: bool,
    /// Whether this program was built with optimisation; without, its own part costs more.
    pub(super) optimised: bool,
}

/// Where nothing says what the caches are like.
const CACHE: usize = 32 << 20;

impl Machine {
    pub(super) fn look() -> Self {
        let cache = largest_cache(Path::new("/sys/devices/system/cpu/cpu0/cache"));
        let release = fs::read_to_string("/proc/sys/kernel/osrelease");
        Self {
            cpu: cpu_name().unwrap_or_else(|| "unknown".into()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: release.map_or("unknown".into(), |text| text.trim().to_owned()),
            architecture: std::env::consts::ARCH,
            page: rustix::param::page_size(),
            cache: cache.unwrap_or(CACHE),
            cache_known: cache.is_some(),
            optimised: !cfg!(debug_assertions),
        }
    }

    /// What is to be said of the figures before anybody believes them.
    pub(super) fn warning(&self) -> Option<&'static str> {
        let warning = "This is a build without optimisation: sharing looks dearer than it is. Measure with \
                       `cargo run --release`.";
        (!self.optimised).then_some(warning)
    }
}

fn cpu_name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The largest cache below a folder of sysfs, in bytes.
fn largest_cache(folder: &Path) -> Option<usize> {
    let entries = fs::read_dir(folder).ok()?;
    let sizes = entries.flatten().filter_map(|entry| {
        let text = fs::read_to_string(entry.path().join("size")).ok()?;
        parse(text.trim())
    });
    sizes.max().filter(|size| *size > 0)
}

/// As sysfs has it: `32768K`.
fn parse(text: &str) -> Option<usize> {
    let (digits, shift) = match text.strip_suffix('K') {
        Some(digits) => (digits, 10),
        None => match text.strip_suffix('M') {
            Some(digits) => (digits, 20),
            None => (text, 0),
        },
    };
    digits.parse::<usize>().ok()?.checked_shl(shift)
}

/// Memory that is walked through to put everything else out of the caches.
pub(super) struct Walk {
    bytes: Vec<u8>,
}

impl Walk {
    /// As much as two of the largest caches, at most 1 GiB.
    pub(super) fn new(machine: &Machine) -> Self {
        let len = machine.cache.saturating_mul(2).min(1 << 30);
        Self {
            bytes: vec![1; len],
        }
    }

    pub(super) fn walk(&self) {
        let sum = self
            .bytes
            .iter()
            .step_by(64)
            .map(|byte| u64::from(*byte))
            .sum::<u64>();
        black_box(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_caches_are_read() {
        assert_eq!(parse("32768K"), Some(32 << 20));
        assert_eq!(parse("4M"), Some(4 << 20));
        assert_eq!(parse("512"), Some(512));
        assert_eq!(parse("much"), None);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(largest_cache(folder.path()), None);
        for (index, size) in ["32K\n", "1024K\n", "?\n"].iter().enumerate() {
            let cache = folder.path().join(format!("index{index}"));
            fs::create_dir(&cache).unwrap();
            fs::write(cache.join("size"), size).unwrap();
        }
        assert_eq!(largest_cache(folder.path()), Some(1 << 20));
    }

    #[test]
    fn the_clock_goes_on_while_the_cpu_works() {
        let start = cpu_time();
        while cpu_time() - start < 1_000_000 {
            black_box(vec![0; 100]);
        }
    }
}
