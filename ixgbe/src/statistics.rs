//! Counters: the device's are cleared by reading and some are only 32 bits wide, so they are
//! added up here. A reset loses at most what was counted between the last reading and it.

use pagewire_hal::driver::{FRAME_CHECK_SEQUENCE, Register, intel};
use pagewire_hal::{Registers, Statistics};

use crate::regs::{
    Bar, CRCERRS, GOTCL, GPTC, MPC, PACKET_BUFFERS, PerQueue, QBRCL, QPRC, QPRDC, QPTC,
    QUEUE_COUNTERS, RLEC, ROC, RUC,
};

/// All that the device has counted since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    total: Statistics,
}

impl Counted {
    /// Reads all counters of the device away.
    pub(crate) fn clear<R: Registers>(&mut self, registers: &Bar<R>) {
        for queue in 0..QUEUE_COUNTERS {
            registers.read(QPTC.of(queue));
        }
        self.collect(registers);
        self.total = Statistics::default();
    }

    /// Adds what the device has counted since the last time, and returns the sum.
    ///
    /// Received frames and their bytes are taken from the counters of the queues: GPRC and GORC
    /// also count what is lost behind the filter (X550 datasheet, 8.2.2.17; an erratum of the
    /// 82599, by DPDK). A queue counts the bytes that it has stored, so without the frame check
    /// sequence, which is stripped (X550 datasheet, 8.2.2.17.2; so says DPDK): it is added.
    pub(crate) fn collect<R: Registers>(&mut self, registers: &Bar<R>) -> Statistics {
        let mut total = self.total;
        let add = |sum: &mut u64, register: Register| {
            *sum = sum.saturating_add(u64::from(registers.read(register)));
        };
        let wide = |low| intel::read_wide(registers, low, HIGH_BITS);
        add(&mut total.tx_frames, GPTC);
        add(&mut total.rx_crc_errors, CRCERRS);
        for queue in 0..QUEUE_COUNTERS {
            let frames = u64::from(registers.read(QPRC.of(queue)));
            let stored = wide(QBRCL.of(queue));
            let stripped = frames * u64::from(FRAME_CHECK_SEQUENCE);
            total.rx_frames = total.rx_frames.saturating_add(frames);
            total.rx_bytes = total.rx_bytes.saturating_add(stored + stripped);
            add(&mut total.rx_no_buffer, QPRDC.of(queue));
        }
        for buffer in 0..PACKET_BUFFERS {
            add(&mut total.rx_missed, MPC.at(buffer));
        }
        for wrong_length in [RLEC, RUC, ROC] {
            add(&mut total.rx_length_errors, wrong_length);
        }
        total.tx_bytes = total.tx_bytes.saturating_add(wide(GOTCL));
        // What a device says while it goes away counts for nothing.
        if !registers.is_gone() {
            self.total = total;
        }
        self.total
    }

    /// The sum as of the last collection.
    pub(crate) const fn total(&self) -> Statistics {
        self.total
    }
}

/// The high word of a counter of 36 bits (Linux ixgbe reads it "to clear"; DPDK adds both).
const HIGH_BITS: u32 = 0xF;
