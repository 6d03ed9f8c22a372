//! The rules about order: what must be done before something else is switched on.

use super::bits::{
    DOUBLE_VLAN, HEAD_WRITE_BACK, PATH_DISABLE, RXEN, TE, WRITE_BACK_RELAXED, cause, ctrl, dctl,
    eec, gpie, hlreg0, ivar, offset, offset::ring, rdrxctl, srrctl,
};
use super::registers::Ring;
use super::{DeviceId, Ixgbe82599};

/// Longest ring: "validated lengths up to 128 K" (82599 datasheet 8.2.3.8.3, 8.2.3.9.7).
const LONGEST_RING: u32 = 8 * 1024;
/// PTHRESH and WTHRESH together (X550 datasheet; the internal ring has 40 descriptors).
const CACHED: u32 = 40;

impl Ixgbe82599 {
    /// A reset is about to begin: queues that run are first stopped by a master disable (82599
    /// datasheet 4.2.1.6.1). Whether that succeeded is not asked: a reset is also the way out
    /// when it does not.
    pub(super) fn judge_reset(&mut self, value: u32) {
        let control = self.registers.get(offset::CTRL) | value;
        let running = self.transmit.iter().any(|queue| queue.enable.is_on())
            || self.receiver.queues.iter().any(|q| q.enable.is_on());
        if running && self.pci.is_bus_master() && control & ctrl::MASTER_DISABLE == 0 {
            self.violation("CTRL.RST with queues enabled and without a master disable".into());
        }
    }

    /// Nothing is enabled before the EEPROM was read and DMA is initialised.
    fn judge_loaded(&mut self, what: &str) {
        if self.registers.get(offset::EEC) & eec::AUTO_RD == 0
            || self.registers.get(offset::RDRXCTL) & rdrxctl::DMAIDONE == 0
        {
            self.violation(format!(
                "{what} before EEC.Auto_RD and RDRXCTL.DMAIDONE were set"
            ));
        }
    }

    /// Without traffic classes there is one packet buffer. (The datasheet has the sizes of the
    /// others as "meaningless" in one place and as zero in another, 4.6.11.3.4; Linux ixgbe
    /// zeroes them. Zero is asked for.)
    fn judge_buffers(&mut self, what: &str, at: u32) {
        if self.config.rules.beyond_dpdk
            && (1..8).any(|buffer| self.registers.get(at + 4 * buffer) != 0)
        {
            self.violation(format!("{what}, and packet buffers 1 to 7 are not empty"));
        }
    }

    /// RXCTRL is written (82599 datasheet 4.6.7).
    pub(super) fn write_rxctrl(&mut self, value: u32) {
        let starts = value & !self.registers.get(offset::RXCTRL) & RXEN != 0;
        self.registers.set(offset::RXCTRL, value & RXEN);
        if !starts {
            return;
        }
        self.judge_loaded("RXCTRL.RXEN");
        self.judge_buffers("RXCTRL.RXEN", offset::RXPBSIZE);
        let path = self.registers.get(offset::SECRXCTRL) & PATH_DISABLE;
        // Linux halts it on the 82599 alone (`ixgbe_enable_rx_dma_82599`, and `_generic`).
        let is_linux = !self.config.rules.beyond_linux && self.config.device == DeviceId::X540T;
        if (path == 0 || !self.drained.has_passed(&self.pace)) && !is_linux {
            self.violation(
                "RXCTRL.RXEN while the data path is not halted (SECRXCTRL.RX_DIS, and ready)"
                    .into(),
            );
        }
        let control = self.registers.get(offset::RDRXCTL);
        let strips = self.registers.get(offset::HLREG0) & hlreg0::RXCRCSTRP != 0;
        if strips != (control & rdrxctl::CRC_STRIP != 0) {
            self.violation("RXCTRL.RXEN with RDRXCTL.CRCStrip unequal to HLREG0.RXCRCSTRP".into());
        }
        // An X540 has no such fields. DPDK sets these bits for receive side coalescing alone.
        let fixed = if self.config.rules.beyond_dpdk {
            rdrxctl::RSCACKC | rdrxctl::FCOE_WRFIX
        } else {
            0
        };
        let wrong = control & rdrxctl::RSCFRSTSIZE != 0 || control & fixed != fixed;
        if wrong && self.config.device != DeviceId::X540T {
            self.violation(format!(
                "RXCTRL.RXEN with RDRXCTL {control:#x}: RSCFRSTSIZE must be 0, RSCACKC and \
                 FCOE_WRFIX 1"
            ));
        }
        if let Some(table) = self.registers.unwritten_table()
            && self.config.rules.beyond_linux
        {
            self.violation(format!("RXCTRL.RXEN before all of {table} was initialised"));
        }
    }

    /// DMATXCTL is written. TE enables queue 0 as well (82599 datasheet 8.2.3.9.10).
    pub(super) fn write_dmatxctl(&mut self, value: u32) {
        let starts = value & !self.registers.get(offset::DMATXCTL) & TE != 0;
        if value & DOUBLE_VLAN != 0 {
            self.violation(format!(
                "DMATXCTL {value:#x}: double VLAN tags are not modelled"
            ));
        }
        self.registers.set(offset::DMATXCTL, value);
        if !starts {
            return;
        }
        self.judge_loaded("DMATXCTL.TE");
        self.judge_buffers("DMATXCTL.TE", offset::TXPBSIZE);
        if self.registers.get(offset::DTXMXSZRQ) & 0xfff != 0xfff && self.config.rules.beyond_linux
        {
            self.violation(
                "DMATXCTL.TE with DTXMXSZRQ below 0xfff (82599 datasheet 4.6.11.3.4)".into(),
            );
        }
        let slow = self.config.latitude.slow_queue_enable;
        let deadline = self.delay(slow, super::rings::LONGEST_ENABLE);
        if let Some(queue) = self.transmit.get_mut(0) {
            queue.enable.request(true, deadline);
            self.changing = true;
        }
        self.settle();
    }

    /// A ring must have a place and a length before it is used, and it must be empty: the tail
    /// moves when the queue is on (82599 datasheet 4.6.7, 4.6.8).
    fn judge_ring(&mut self, which: Ring) {
        let [head, tail] = match which {
            Ring::Transmit(queue) => {
                let queue = self.transmit.get(queue);
                queue.map_or([0, 0], |queue| [queue.head(false), queue.tail()])
            }
            Ring::Receive(queue) => {
                let queue = self.receiver.queues.get(queue);
                queue.map_or([0, 0], |queue| [queue.head(false), queue.tail()])
            }
        };
        if head != tail {
            self.violation(format!(
                "{which:?} enabled with head {head} and tail {tail}"
            ));
        }
        let (_, entries) = self.registers.ring(which);
        if entries == 0 || !self.registers.is_based(which) {
            self.violation(format!(
                "{which:?} enabled before the base and the length of its ring were set"
            ));
        } else if entries > LONGEST_RING {
            self.violation(format!("{which:?} enabled with {entries} descriptors"));
        }
    }

    /// RXDCTL.ENABLE is set.
    pub(super) fn judge_receive_queue(&mut self, queue: usize) {
        let which = Ring::Receive(queue);
        self.judge_ring(which);
        let control = self.registers.get(which.base() + ring::SPLIT);
        let kind = control >> srrctl::TYPE_SHIFT & 0b111;
        if kind != srrctl::ADVANCED {
            self.violation(format!(
                "receive queue {queue} enabled with SRRCTL.DESCTYPE {kind}: only advanced \
                 descriptors with one buffer are modelled"
            ));
        }
        if !(1..=16).contains(&(control & srrctl::BUFFER)) {
            self.violation(format!(
                "receive queue {queue} enabled with SRRCTL {control:#x}: buffers are of 1 to 16 KiB"
            ));
        }
    }

    /// TXDCTL.ENABLE is set (82599 datasheet 4.6.8).
    pub(super) fn judge_transmit_queue(&mut self, queue: usize, value: u32) {
        let which = Ring::Transmit(queue);
        self.judge_ring(which);
        if self.registers.get(offset::DMATXCTL) & TE == 0 {
            self.violation(format!(
                "transmit queue {queue} enabled before DMATXCTL.TE was set"
            ));
        }
        let prefetch = value & dctl::PTHRESH;
        let host = value >> dctl::HTHRESH_SHIFT & dctl::PTHRESH;
        let write_back = value >> dctl::WTHRESH_SHIFT & dctl::PTHRESH;
        if prefetch + write_back > CACHED {
            self.violation(format!(
                "transmit queue {queue}: PTHRESH {prefetch} and WTHRESH {write_back} make more \
                 than 40"
            ));
        }
        if prefetch > 0 && host == 0 && self.config.rules.beyond_dpdk {
            self.violation(format!(
                "transmit queue {queue}: PTHRESH {prefetch} with an HTHRESH of zero"
            ));
        }
        self.judge_head_write_back(queue, write_back);
    }

    /// The place for the head: "dword aligned" and "actually qword aligned" are both in the
    /// datasheet (7.2.3.5.2, 8.2.3.9.11); TinyNF found 16 bytes. That is asked for.
    fn judge_head_write_back(&mut self, queue: usize, threshold: u32) {
        let base = Ring::Transmit(queue).base();
        let low = self.registers.get(base + ring::HEAD_LOW);
        if low & HEAD_WRITE_BACK == 0 {
            return;
        }
        if threshold > 0 {
            self.violation(format!(
                "transmit queue {queue}: head write-back with WTHRESH {threshold}"
            ));
        }
        if low & 0xe != 0 {
            self.violation(format!(
                "transmit queue {queue}: the place for the head, {low:#x}, is not 16-byte aligned"
            ));
        }
        if self.registers.get(base + ring::DCA) & WRITE_BACK_RELAXED != 0 {
            self.violation(format!(
                "transmit queue {queue}: head write-back with relaxed ordering (DCA_TXCTRL bit 11)"
            ));
        }
    }

    /// IVAR is written.
    pub(super) fn write_ivar(&mut self, at: u32, value: u32) {
        if value.to_le_bytes().iter().any(|e| e & ivar::RESERVED != 0) {
            self.violation(format!(
                "IVAR {value:#x} at {at:#x}: a reserved bit is set, or a vector beyond the last one"
            ));
        }
        self.registers.set(at, value);
    }

    /// MSI-X in configuration space goes with GPIE.Multiple_MSIX, unless one vector is all that the
    /// driver wants, as DPDK does.
    pub(super) fn judge_msix(&mut self) {
        let enabled = self.interrupts.mask() != 0 && self.config.rules.beyond_dpdk;
        let missed = self.registers.get(offset::GPIE) & gpie::MSIX == 0;
        if !self.judged_msix && enabled && missed && self.pci.has_msix() {
            self.judged_msix = true;
            let causes = self.interrupts.mask() & (cause::QUEUES | cause::OTHERS);
            self.violation(format!(
                "interrupts {causes:#x} are enabled with MSI-X, and GPIE.Multiple_MSIX is not set"
            ));
        }
    }
}
