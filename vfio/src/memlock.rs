//! The limit on locked memory: what a device can reach stays in memory, and counts.

use std::fmt;

use rustix::process::{Resource, getrlimit};

use crate::Api;

/// Locked memory and its limit, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memlock {
    /// What is locked already, as far as the kernel says.
    pub locked: u64,
    /// RLIMIT_MEMLOCK of this process; `None` for no limit.
    pub limit: Option<u64>,
}

impl Memlock {
    /// What holds for this process now. The group API counts with what is locked by mlock, the
    /// device file with what is pinned (Linux `vfio_iommu_type1.c`, `iommufd/pages.c`).
    pub(crate) fn now(api: Api) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = match api {
            Api::Group => "VmLck:",
            Api::Cdev => "VmPin:",
        };
        Self {
            locked: kibibytes(&status, field).unwrap_or(0),
            limit: getrlimit(Resource::Memlock).current,
        }
    }

    /// Whether `wanted` bytes more would exceed the limit.
    pub(crate) fn forbids(&self, wanted: u64) -> bool {
        self.limit
            .is_some_and(|limit| self.locked.saturating_add(wanted) > limit)
    }

    pub(crate) fn explain(&self, f: &mut fmt::Formatter<'_>, wanted: u64) -> fmt::Result {
        let needed = self.locked.saturating_add(wanted);
        let limit = self.limit.unwrap_or(0);
        write!(
            f,
            "the limit on locked memory is too small: {limit} bytes (RLIMIT_MEMLOCK), {} of them \
             locked already, {wanted} more wanted. Raise it to {needed} at least: `ulimit -l {}` \
             in the shell, LimitMEMLOCK={needed} for systemd, or memlock in \
             /etc/security/limits.conf (in KiB)",
            self.locked,
            needed.div_ceil(1024)
        )
    }
}

/// Bytes in the line of `/proc/self/status` that begins with `field`.
fn kibibytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let number = line.trim().strip_suffix("kB")?.trim();
    number.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_count_is_read() {
        let status = "Name:\tx\nVmPeak:\t  100 kB\nVmLck:\t    2052 kB\nVmPin:\t  8 kB\n";
        assert_eq!(kibibytes(status, "VmLck:"), Some(2052 * 1024));
        assert_eq!(kibibytes(status, "VmPin:"), Some(8 * 1024));
        assert_eq!(kibibytes("VmLck:\t-3 kB\n", "VmLck:"), None);
        assert_eq!(
            kibibytes("VmLck:\t99999999999999999999 kB\n", "VmLck:"),
            None
        );
        assert_eq!(
            kibibytes("VmLck:\t18446744073709551615 kB\n", "VmLck:"),
            None
        );
        assert_eq!(kibibytes("", "VmLck:"), None);
    }

    #[test]
    fn the_limit_counts_what_is_locked_already() {
        let memlock = |locked, limit| Memlock { locked, limit };
        assert!(!memlock(u64::MAX, None).forbids(u64::MAX));
        assert!(!memlock(4096, Some(8192)).forbids(4096));
        assert!(memlock(4097, Some(8192)).forbids(4096));
        assert!(memlock(1, Some(u64::MAX - 1)).forbids(u64::MAX));
    }
}
