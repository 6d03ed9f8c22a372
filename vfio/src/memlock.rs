//! The limit on locked memory: what a device can reach stays in memory, and counts.

use std::fmt;

use rustix::process::{Resource, getrlimit};

use crate::Api;

/// Locked memory and its limit, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memlock {
    /// What is locked already, as far as the kernel says.
    pub locked: u64,
    /// RLIMIT_MEMLOCK of this process; `None` for no limit, as for root (CAP_IPC_LOCK, outside of
    /// user namespaces).
    pub limit: Option<u64>,
}

impl Memlock {
    /// What holds for this process now. The group API counts with what is locked by mlock, the
    /// device file with what is pinned (Linux `vfio_iommu_type1.c`, `iommufd/pages.c`).
    pub(crate) fn now(api: Api) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let field = match api {
            Api::Group => "VmLck:",
            Api::Cdev => "VmPin:",
        };
        Self {
            locked: kibibytes(&status, field).unwrap_or(0),
            limit: getrlimit(Resource::Memlock)
                .current
                .filter(|_| !may_lock_anything(&status, &map)),
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

/// Whether the process has CAP_IPC_LOCK, and not only in a user namespace of its own, which counts
/// for nothing here (Linux `capable()`): in the first one all users are themselves.
fn may_lock_anything(status: &str, uid_map: &str) -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let effective = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    let first: Vec<_> = uid_map.split_whitespace().collect();
    effective.is_some_and(|all| all >> CAP_IPC_LOCK & 1 != 0) && first == ["0", "0", "4294967295"]
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
    fn the_limit_is_not_for_root() {
        let (root, user) = (
            "Name:\tx\nCapEff:\t000001ffffffffff\n",
            "CapEff:\t0000000000000000\n",
        );
        let only_that = "CapEff:\t0000000000004000\n";
        let first = "         0          0 4294967295\n";
        let own = "         0       1000          1\n";
        assert!(may_lock_anything(root, first) && may_lock_anything(only_that, first));
        for (status, map) in [
            (root, own),
            (user, first),
            ("CapEff:\tffffbfff\n", first),
            ("", first),
            (root, ""),
        ] {
            assert!(!may_lock_anything(status, map), "{status} {map}");
        }
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
