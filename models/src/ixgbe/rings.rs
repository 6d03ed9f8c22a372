//! What reading and writing the registers of a descriptor ring does.

use super::Ixgbe82599;
use super::bits::{ctrl, dctl, offset};
use super::registers::{QUEUES, Ring, RingRegister};

/// Nanoseconds that a queue may take to be enabled or disabled.
pub(super) const LONGEST_ENABLE: u64 = 50_000;

impl Ixgbe82599 {
    pub(super) fn read_ring(&mut self, which: Ring, register: RingRegister, at: u32) -> u32 {
        let ahead = self.config.latitude.head_runs_ahead;
        match (which, register) {
            (Ring::Transmit(queue), RingRegister::Head) => {
                self.transmit.get(queue).map_or(0, |q| q.head(ahead))
            }
            (Ring::Transmit(queue), RingRegister::Tail) => {
                self.transmit.get(queue).map_or(0, |q| q.tail())
            }
            (Ring::Receive(queue), RingRegister::Head) => {
                self.receiver.queues.get(queue).map_or(0, |q| q.head(ahead))
            }
            (Ring::Receive(queue), RingRegister::Tail) => {
                self.receiver.queues.get(queue).map_or(0, |q| q.tail())
            }
            (_, RingRegister::Control) => {
                let stored = self.registers.get(at) & !dctl::ENABLE;
                let on = match which {
                    Ring::Transmit(queue) => {
                        let queue = self.transmit.get_mut(queue);
                        queue.is_some_and(|queue| queue.enable.read())
                    }
                    Ring::Receive(queue) => {
                        let queue = self.receiver.queues.get_mut(queue);
                        queue.is_some_and(|queue| queue.enable.read())
                    }
                };
                if on { stored | dctl::ENABLE } else { stored }
            }
            _ => self.registers.get(at),
        }
    }

    /// Whether the queue is enabled, or about to be.
    fn is_enabled(&self, which: Ring) -> bool {
        match which {
            Ring::Transmit(queue) => {
                let queue = self.transmit.get(queue);
                queue.is_some_and(|queue| queue.enable.is_on() || queue.enable.is_wanted())
            }
            Ring::Receive(queue) => {
                let queue = self.receiver.queues.get(queue);
                queue.is_some_and(|queue| queue.enable.is_on() || queue.enable.is_wanted())
            }
        }
    }

    pub(super) fn write_ring(&mut self, which: Ring, register: RingRegister, at: u32, value: u32) {
        let fixed = !matches!(
            register,
            RingRegister::Tail | RingRegister::Control | RingRegister::Dca
        );
        // Queue 0 is enabled by DMATXCTL.TE, before it has a ring: no offence of the driver.
        let (_, entries) = self.registers.ring(which);
        // Linux sets SRRCTL.DROP_EN as flow control is negotiated (`ixgbe_set_rx_drop_en`).
        let is_linux = register == RingRegister::Split && !self.config.rules.beyond_linux;
        // DPDK sets the heads to 0 when it has seen the queue enabled (`ixgbe_dev_tx_queue_start`).
        let is_dpdk = register == RingRegister::Head && !self.config.rules.beyond_dpdk;
        if fixed && entries > 0 && self.is_enabled(which) && !is_linux && !is_dpdk {
            self.violation(format!(
                "{at:#x} ({which:?}, {register:?}) written while the queue is enabled"
            ));
        }
        match register {
            RingRegister::BaseLow => {
                if value & 0x7f != 0 {
                    self.violation(format!(
                        "{which:?}: base {value:#x} is not 128-byte aligned"
                    ));
                }
                self.registers.set(at, value & !0x7f);
            }
            RingRegister::Length => {
                if value & !0xf_ff80 != 0 {
                    self.violation(format!(
                        "{which:?}: length {value:#x} is no multiple of 128, or too long"
                    ));
                }
                self.registers.set(at, value & 0xf_ff80);
            }
            RingRegister::Head => self.write_head(which, value & 0xffff),
            RingRegister::Tail => self.write_tail(which, value & 0xffff),
            RingRegister::Control => self.write_control(which, at, value),
            RingRegister::BaseHigh
            | RingRegister::Dca
            | RingRegister::Split
            | RingRegister::Coalesce
            | RingRegister::HeadLow
            | RingRegister::HeadHigh => self.registers.set(at, value),
        }
    }

    fn write_head(&mut self, which: Ring, value: u32) {
        match which {
            Ring::Transmit(queue) => {
                if let Some(queue) = self.transmit.get_mut(queue) {
                    queue.set_head(value);
                }
            }
            Ring::Receive(queue) => {
                if let Some(queue) = self.receiver.queues.get_mut(queue) {
                    queue.set_head(value);
                }
            }
        }
    }

    /// Whether the driver has the device stopped: it reaches no memory, or is told not to.
    fn is_stopped(&self) -> bool {
        self.registers.get(offset::CTRL) & ctrl::MASTER_DISABLE != 0 || !self.pci.is_bus_master()
    }

    /// A queue that is off in a stopped device keeps what is written, without a word: a thread that
    /// does not know of a reset may do so. If it is still there when the queue is switched on,
    /// [`judge_ring`](Self::judge_ring) reports it.
    fn write_tail(&mut self, which: Ring, value: u32) {
        let (_, entries) = self.registers.ring(which);
        let stopped = self.is_stopped();
        match which {
            Ring::Transmit(number) => {
                let Some(queue) = self.transmit.get_mut(number) else {
                    return;
                };
                if stopped && !queue.enable.is_running() {
                    return queue.keep_tail(value);
                }
                if queue.enable.is_on() && value != queue.tail() && !self.pci.is_bus_master() {
                    self.violations.report(format!(
                        "transmit queue {number}: a doorbell while bus mastering is off"
                    ));
                }
                let moved = queue.ring_doorbell(value, entries, &mut self.violations);
                self.counters.doorbells += u64::from(moved);
            }
            Ring::Receive(number) => {
                if let Some(queue) = self.receiver.queues.get_mut(number) {
                    if stopped && !queue.enable.is_running() {
                        return queue.keep_tail(value);
                    }
                    queue.give(value, entries, &mut self.violations);
                }
            }
        }
    }

    fn write_control(&mut self, which: Ring, at: u32, value: u32) {
        let on = value & dctl::ENABLE != 0;
        if on && (!self.is_enabled(which) || self.registers.get(at) & dctl::ENABLE == 0) {
            match which {
                Ring::Transmit(queue) => self.judge_transmit_queue(queue, value),
                Ring::Receive(queue) => self.judge_receive_queue(queue),
            }
        }
        self.registers.set(at, value & !dctl::SWFLSH);
        let slow = self.config.latitude.slow_queue_enable;
        let deadline = self.delay(slow, LONGEST_ENABLE);
        let (Ring::Transmit(number) | Ring::Receive(number)) = which;
        if on {
            self.used = self.used.max(number + 1).min(QUEUES);
        }
        match which {
            Ring::Transmit(queue) => {
                if let Some(queue) = self.transmit.get_mut(queue) {
                    queue.enable.request(on, deadline);
                    if value & dctl::SWFLSH != 0 {
                        queue.flush_asked();
                    }
                }
            }
            Ring::Receive(queue) => {
                if let Some(queue) = self.receiver.queues.get_mut(queue) {
                    queue.enable.request(on, deadline);
                }
            }
        }
        self.changing = true;
        self.settle();
    }
}
