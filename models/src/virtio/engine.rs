//! The work of a step: queues, wire, interrupts.

use super::VirtioNet;
use super::bits::{NO_VECTOR, feature, status};
use super::queue::Work;
use super::{control, receive, transmit};
use crate::Bus;

impl VirtioNet {
    /// Follows the carrier.
    fn follow_link(&mut self) -> bool {
        let link = self.wire.carrier();
        let changed = link != self.link;
        self.link = link;
        changed
    }

    /// The device configuration has changed, or the device needs a reset.
    pub(super) fn interrupt_configuration(&mut self) {
        if self.common.status & status::DRIVER_OK != 0 {
            self.common.isr |= 2;
            self.send(self.common.config_vector);
        }
    }

    /// Sends `vector`, at once or later.
    fn send(&mut self, vector: u16) {
        let pending = self.sending.iter().any(|(_, other)| *other == vector);
        if vector != NO_VECTOR && !pending {
            let slow = self.config.latitude.late_interrupts;
            let when = self.pace.delay(slow, &mut self.random, 200_000);
            self.sending.push((when, vector));
        }
    }

    /// Sends the interrupts that are due.
    fn send_due(&mut self, bus: &mut dyn Bus) -> bool {
        let pace = self.pace;
        let mut due = Vec::new();
        self.sending.retain(|(when, vector)| {
            let now = when.has_passed(&pace);
            if now {
                due.push(*vector);
            }
            !now
        });
        let mut any = false;
        let mut liar = self.liar.as_deref_mut();
        while self.pci.has_msix()
            && let Some(vector) = self.pci.take_unmasked()
        {
            due.push(vector);
        }
        for vector in due {
            if self.pci.has_msix() && self.pci.offer(vector) {
                any = true;
                if liar.as_mut().is_some_and(|liar| liar.swallows_interrupt()) {
                    continue;
                }
                self.counters.interrupts += 1;
                bus.interrupt(vector);
            }
        }
        any
    }

    /// Lets the queues work.
    fn run_queues(&mut self, bus: &mut dyn Bus) -> bool {
        let most_pairs = self.most_pairs();
        let control = usize::from(2 * most_pairs);
        let pairs = self.steering.pairs;
        let running = self.reset.is_none() && self.common.status & status::DRIVER_OK != 0;
        let mut interrupts = Vec::new();
        let mut needs_reset = false;
        let mut work = Work {
            bus,
            features: self.common.driver_features,
            violations: &mut self.violations,
            advice: &mut self.advice,
            counters: &mut self.counters,
            random: &mut self.random,
            latitude: self.config.latitude,
            beyond_dpdk: self.config.beyond_dpdk,
            pace: self.pace,
            interrupts: &mut interrupts,
            liar: self.liar.as_deref_mut(),
            needs_reset: &mut needs_reset,
        };
        let mut busy = false;
        if running {
            for (index, queue) in self.queues.iter_mut().enumerate() {
                let fetched = queue.fetch(&mut work);
                busy |= fetched;
                if index == control {
                    let mut settings = control::Settings {
                        filter: &mut self.filter,
                        pairs: &mut self.steering.pairs,
                        most_pairs,
                    };
                    busy |= control::execute(queue, &mut settings, &mut work);
                } else if index % 2 == 1 {
                    if fetched && index >= usize::from(2 * self.steering.pairs) {
                        work.report(queue.index, "used for transmission, but its pair is off");
                    }
                    let (wire, steering) = (&mut *self.wire, &mut self.steering);
                    busy |= transmit::transmit(queue, wire, steering, self.config.mtu, &mut work);
                }
            }
            if self.steering.pairs < pairs {
                // What was sent before the command is no offence.
                for queue in self.queues.iter_mut().skip(1).step_by(2) {
                    queue.collect(&mut work);
                }
            }
            let settings = receive::Settings {
                filter: &self.filter,
                steering: &self.steering,
                mtu: self.config.mtu,
            };
            let (queues, wire) = (&mut self.queues, &mut *self.wire);
            busy |= self.receiver.receive(queues, wire, &settings, &mut work);
        } else {
            self.receiver.lose(&mut *self.wire, &mut work);
        }
        for (index, queue) in self.queues.iter_mut().enumerate() {
            if !(self.hold && index != control && queue.has_done()) {
                busy |= queue.flush(&mut work);
            }
        }
        self.after(&interrupts, needs_reset);
        busy
    }

    /// What follows from the work of the queues.
    fn after(&mut self, interrupts: &[u16], needs_reset: bool) {
        if !interrupts.is_empty() && !self.pci.has_msix() {
            self.common.isr |= 1;
        }
        for vector in interrupts {
            self.send(*vector);
        }
        if needs_reset {
            self.need_reset();
        }
    }

    /// Interrupts that mean nothing.
    fn send_spurious(&mut self) {
        let latitude = self.config.latitude;
        if latitude.spurious_interrupts && self.random.u8(..) == 0 {
            let index = self.random.usize(..self.queues.len().max(1));
            if let Some(queue) = self.queues.get(index) {
                self.send(queue.vector);
            }
        }
        if latitude.spurious_configuration && self.random.u16(..512) == 0 {
            self.common.changed = true;
            self.interrupt_configuration();
        }
    }

    /// A step of an honest device.
    pub(super) fn honest_step(&mut self, bus: &mut dyn Bus) -> bool {
        if self.follow_link() {
            self.common.changed = true;
            if self.common.driver_features & feature::STATUS != 0 {
                self.interrupt_configuration();
            }
        }
        if !self.pci.is_bus_master() || self.stalled {
            return false;
        }
        let mut busy = self.run_queues(bus);
        if self.common.status & status::DRIVER_OK != 0 && self.reset.is_none() {
            self.send_spurious();
        }
        busy |= self.send_due(bus);
        busy
    }
}
