//! Device status: the steps of initialisation, negotiation, reset.

use super::VirtioNet;
use super::bits::{feature, status};
use super::common::Common;
use super::steering::Steering;

/// Bits that are steps, and what each needs before it.
const STEPS: [(u8, u8, &str); 3] = [
    (
        status::DRIVER,
        status::ACKNOWLEDGE,
        "DRIVER before ACKNOWLEDGE",
    ),
    (
        status::FEATURES_OK,
        status::DRIVER,
        "FEATURES_OK before DRIVER",
    ),
    (
        status::DRIVER_OK,
        status::FEATURES_OK,
        "DRIVER_OK without FEATURES_OK",
    ),
];

impl VirtioNet {
    pub(super) fn write_status(&mut self, value: u8) {
        if value == 0 {
            let slow = self.config.latitude.slow_reset;
            self.reset = Some(self.pace.delay(slow, &mut self.random, 1_000_000));
            self.settle();
            return;
        }
        let old = self.common.status;
        let mut new = value;
        if old & !value & !status::NEEDS_RESET != 0 {
            self.report(&format!("status {old:#x} overwritten with {value:#x}"));
            new |= old;
        }
        for (bit, needs, text) in STEPS {
            // A step may come together with the one that it needs only in the first write.
            let before = if bit == status::DRIVER {
                old | new
            } else {
                old
            };
            if new & !old & bit != 0 && before & needs == 0 {
                self.report(text);
                new &= !bit;
            }
        }
        if new & !old & status::FEATURES_OK != 0 && !self.negotiate() {
            new &= !status::FEATURES_OK;
        }
        if new & !old & status::DRIVER_OK != 0 {
            self.start();
        }
        self.common.status = new & !status::NEEDS_RESET | old & status::NEEDS_RESET;
    }

    /// Whether the device accepts what the driver wants.
    fn negotiate(&mut self) -> bool {
        let wanted = self.common.driver_features;
        let offered = self.config.offers.bits();
        let mut sound = true;
        if wanted & !offered != 0 {
            let extra = wanted & !offered;
            self.report(&format!(
                "features {extra:#x} accepted that were not offered"
            ));
            sound = false;
        }
        for (bit, needs) in feature::REQUIREMENTS {
            if wanted & bit != 0 && wanted & needs == 0 {
                self.report(&format!("feature {bit:#x} accepted without {needs:#x}"));
                sound = false;
            }
        }
        if wanted & feature::VERSION_1 == 0 {
            self.report("VERSION_1 not accepted");
            sound = false;
        }
        let platform = offered & !wanted & feature::ACCESS_PLATFORM == 0;
        sound && platform && !self.config.refuse_features
    }

    /// DRIVER_OK: the queues must be there.
    fn start(&mut self) {
        self.steering.pairs = 1;
        let mut due = vec![0, 1];
        if self.common.driver_features & feature::CTRL_VQ != 0 {
            due.push(2 * self.most_pairs());
        }
        let when = self.pace.delay(false, &mut self.random, 0);
        for index in due {
            let queue = self.queues.get(usize::from(index));
            if !queue.is_some_and(|queue| queue.enabled) {
                self.report(&format!("DRIVER_OK, but queue {index} is not enabled"));
            }
        }
        // Buffers that are there already are looked for without a doorbell.
        for queue in &mut self.queues {
            queue.wake(when);
        }
    }

    /// Everything is as it was at power-up, but for the generation and what was counted.
    pub(super) fn finish_reset(&mut self) {
        self.reset = None;
        self.violations.note_reset();
        self.advice.note_reset();
        let generation = self.common.generation();
        self.common = Common::new(generation);
        self.filter = super::Filter::new(self.config.mac);
        self.receiver.clear();
        self.sending.clear();
        self.steering = Steering::new();
        for queue in &mut self.queues {
            queue.clear();
        }
    }

    /// Brings to an end what has been under way long enough.
    pub(super) fn settle(&mut self) {
        if self.never_quiet {
            return;
        }
        if self.reset.is_some_and(|when| when.has_passed(&self.pace)) {
            self.finish_reset();
        }
        for queue in &mut self.queues {
            if queue.reset.is_some_and(|when| when.has_passed(&self.pace)) {
                queue.clear();
                queue.was_reset = true;
            }
        }
    }
}
