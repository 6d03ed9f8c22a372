//! The e1000e driver on QEMU's own e1000e, as Linux's driver leaves it.
//!
//! Needs QEMU, see `qtest_e1000e.rs`. In a guest `tests/lab/run` shows the same, with Linux.
#![cfg(target_os = "linux")]
// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used)]

mod qtest;

use pagewire::e1000e::{Config, E1000e};
use pagewire::hal::{Nic, Platform, Registers};
use pagewire_models::qtest::Qtest;

use qtest::options;

/// Packet buffer allocation.
const PBA: u32 = 0x1000;

/// Linux gives 32 KiB of the packet buffer to receive, and writes 0 where the share of transmit is
/// read (Linux e1000e, `e1000e_reset`). QEMU's device keeps the 0, over resets.
#[test]
fn it_opens_after_linux_has_had_it() {
    for mtu in [1500, 9000] {
        let Some(options) = options() else { return };
        let mut qtest = Qtest::start(&options).unwrap();
        let mut platform = qtest.take_platform().unwrap();
        let registers = platform.map_bar(0).unwrap();
        // SAFETY: the device does no DMA: it was just switched on.
        unsafe { registers.write(PBA, 32) };
        assert_eq!(registers.read(PBA), 32, "QEMU computes what is left");
        let mut config = Config::default();
        config.mtu = mtu;
        let nic = E1000e::open(platform, &config).unwrap();
        let longest = nic.capabilities().max_frame_len;
        assert_eq!(longest, u32::from(mtu) + 14);
    }
}
