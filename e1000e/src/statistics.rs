//! Counters: the device's are cleared by reading and some are only 32 bits wide, so they are
//! added up here. A reset loses at most what was counted between the last reading and it.

use pagewire_hal::driver::{Register, intel};
use pagewire_hal::{Registers, Statistics};

use crate::regs::{
    Bar, CRCERRS, GORCL, GOTCL, GPRC, GPTC, MPC, RLEC, RNBC, ROC, TORL, TOTL, TPR, TPT,
};

/// All that the device has counted since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    total: Statistics,
}

impl Counted {
    /// Reads all counters of the device away.
    pub(crate) fn clear<R: Registers>(&mut self, registers: &Bar<R>) {
        self.collect(registers);
        self.total = Statistics::default();
    }

    /// Adds what the device has counted since the last time, and returns the sum.
    ///
    /// The totals beside the good frames (TPR, TPT, TORL, TOTL) are read as well: QEMU copies
    /// them into the good ones at each frame, so those would otherwise be counted again.
    pub(crate) fn collect<R: Registers>(&mut self, registers: &Bar<R>) -> Statistics {
        let total = &mut self.total;
        let add = |sum: &mut u64, register: Register| {
            *sum = sum.saturating_add(u64::from(registers.read(register)));
        };
        let wide = |low| intel::read_wide(registers, low, u32::MAX);
        add(&mut total.tx_frames, GPTC);
        add(&mut total.rx_frames, GPRC);
        add(&mut total.rx_crc_errors, CRCERRS);
        add(&mut total.rx_missed, MPC);
        add(&mut total.rx_no_buffer, RNBC);
        // RLEC counts undersize and oversize frames (8254x manual 13.7.15), ROC the oversize ones
        // once more. QEMU counts in ROC alone, so the larger of the two it is. (QEMU's counter of
        // undersize frames, RUC, counts frames that it pads and accepts: it is left out.)
        let wrong_length = registers.read(RLEC).max(registers.read(ROC));
        total.rx_length_errors = total
            .rx_length_errors
            .saturating_add(u64::from(wrong_length));
        total.tx_bytes = total.tx_bytes.saturating_add(wide(GOTCL));
        total.rx_bytes = total.rx_bytes.saturating_add(wide(GORCL));
        for register in [TPR, TPT] {
            registers.read(register);
        }
        for register in [TORL, TOTL] {
            wide(register);
        }
        *total
    }

    /// The sum as of the last collection.
    pub(crate) const fn total(&self) -> Statistics {
        self.total
    }
}
