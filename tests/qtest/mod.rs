//! Where the tests get QEMU's e1000e from, and what happens when there is none.

use std::time::Duration;

use pagewire::hal::MacAddress;
use pagewire_models::qtest::{QemuMissing, QtestOptions, find_qemu};

/// The station address of the device.
pub(crate) const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 2]);

/// What happens at once takes at most this long on a machine with other things to do.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The options for a QEMU with an e1000e of station address [`MAC`]; `None`, and a line that
/// says why, if there is no QEMU. In CI that is a failure, unless it is wanted.
pub(crate) fn options() -> Option<QtestOptions> {
    match find_qemu() {
        Ok(qemu) => {
            let mut options = QtestOptions::new(qemu);
            options.device = format!("e1000e,mac={MAC}");
            options.limit = SOON;
            Some(options)
        }
        Err(missing) => {
            let allowed = missing == QemuMissing::SwitchedOff || std::env::var_os("CI").is_none();
            assert!(allowed, "{missing}");
            eprintln!("skipped: {missing}");
            None
        }
    }
}
