//! What writing the registers does that say how the receiver works: RCTL, and with it RFCTL and
//! PSRCTL, which say how its descriptors look.

use super::bits::{offset, rctl, rfctl};
use super::registers::Ring;
use super::rx_descriptor::{Format, Layout};
use super::{E1000e82574, filter};

impl E1000e82574 {
    pub(super) fn write_rctl(&mut self, value: u32) {
        if value & rctl::RESERVED != 0 {
            self.violation(format!("RCTL {value:#x}: a reserved bit is set"));
        }
        if !matches!(value & rctl::DTYP, 0 | rctl::DTYP_SPLIT) {
            self.violation(format!("RCTL {value:#x}: a reserved descriptor type"));
        }
        if !matches!(value & rctl::LBM, 0 | rctl::LBM_MAC) {
            self.violation(format!("RCTL {value:#x}: a reserved loopback mode"));
        }
        let before = self.registers.get(offset::RCTL);
        let stays = value & before & rctl::EN != 0;
        if stays && (value ^ before) & rctl::BUFFER != 0 {
            self.violation("RCTL: the buffer size was changed while receive is enabled".into());
        }
        if stays && (value ^ before) & rctl::DTYP != 0 && !self.receive.is_empty() {
            self.violation("RCTL: the descriptor type was changed under given descriptors".into());
        }
        let starts = value & rctl::EN != 0 && before & rctl::EN == 0;
        self.registers.set(offset::RCTL, value);
        if starts {
            self.check_ring(Ring::Receive(0), "receive");
            self.judge_start(value);
        }
    }

    /// Receive is enabled by RCTL `value`: do its descriptors make sense?
    fn judge_start(&mut self, value: u32) {
        if filter::buffer_size(value).is_none() {
            self.violation(format!("RCTL {value:#x}: a reserved buffer size"));
        }
        let layout = Layout::of(&self.registers);
        if value & rctl::DTYP == rctl::DTYP_SPLIT && layout.format != Format::Split {
            self.violation("packet split (RCTL.DTYP) without RFCTL.EXSTEN: it does nothing".into());
        }
        if layout.format == Format::Split {
            self.judge_sizes(&layout);
        }
    }

    /// Linux e1000e always has a buffer for headers, and gives a buffer a size only if the one
    /// before it has one; QEMU fills them in that order.
    fn judge_sizes(&mut self, layout: &Layout) {
        let mut sizes = layout.sizes.iter();
        let text = if sizes.next() == Some(&0) {
            "PSRCTL.BSIZE0 is 0 with packet split: no room for headers"
        } else if sizes.skip_while(|size| **size > 0).any(|size| *size > 0) {
            "PSRCTL: a buffer has a size, and one before it has none"
        } else {
            return;
        };
        self.violation(text.into());
    }

    /// RFCTL or PSRCTL is about to be written.
    pub(super) fn judge_layout(&mut self, at: u32, value: u32) {
        if !self.receives() || self.receive.is_empty() {
            return;
        }
        let changed = self.registers.get(at) ^ value;
        let split = Layout::of(&self.registers).format == Format::Split;
        if at == offset::RFCTL && changed & rfctl::EXSTEN != 0 {
            let text = "RFCTL: the descriptor format was changed under given descriptors";
            self.violation(text.into());
        } else if at == offset::PSRCTL && changed != 0 && split {
            let text = "PSRCTL: the buffer sizes were changed under given descriptors";
            self.violation(text.into());
        }
    }
}
