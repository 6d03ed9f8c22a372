//! A virtqueue: its registers, when the device looks at it, and what it gives back.

use std::collections::VecDeque;

use super::bits::{NO_VECTOR, feature};
use super::config::Latitude;
use super::hostile::{Liar, UsedContext};
use super::pace::{Deadline, Pace};
use super::packed::Packed;
use super::report::{Counters, Violations};
use super::ring::{Access, Chain, Putting, Ring, Shown, Used, unreachable};
use super::split::Split;
use crate::Bus;

/// Whether the device looks at the ring.
#[derive(Clone, Copy, Debug)]
enum Look {
    /// It waits for a doorbell.
    Asleep,
    /// It will look then.
    Called(Deadline),
    /// It looks at every step, at least until then.
    Awake(Deadline),
}

/// What a queue needs while the device works.
pub(super) struct Work<'a> {
    pub(super) bus: &'a mut dyn Bus,
    pub(super) features: u64,
    pub(super) violations: &'a mut Violations,
    /// What the driver should do, and does not.
    pub(super) advice: &'a mut Violations,
    pub(super) counters: &'a mut Counters,
    pub(super) random: &'a mut fastrand::Rng,
    pub(super) latitude: Latitude,
    /// [`ModelConfig::beyond_dpdk`](super::ModelConfig::beyond_dpdk).
    pub(super) beyond_dpdk: bool,
    pub(super) pace: Pace,
    /// Vectors of queues that want an interrupt; [`NO_VECTOR`] as well.
    pub(super) interrupts: &'a mut Vec<u16>,
    /// The device is hostile.
    pub(super) liar: Option<&'a mut Liar>,
    /// Set if the driver broke something that only a reset repairs.
    pub(super) needs_reset: &'a mut bool,
}

impl Work<'_> {
    pub(super) fn has(&self, bit: u64) -> bool {
        self.features & bit != 0
    }

    fn access(&mut self, queue: u16) -> Access<'_> {
        Access {
            bus: &mut *self.bus,
            features: self.features,
            violations: self.violations,
            queue,
        }
    }

    pub(super) fn report(&mut self, queue: u16, text: &str) {
        self.violations.report(format!("queue {queue}: {text}"));
    }

    /// The same for what a driver should do, and need not.
    pub(super) fn advise(&mut self, queue: u16, text: &str) {
        self.advice.report(format!("queue {queue}: {text}"));
    }
}

pub(super) struct Queue {
    pub(super) index: u16,
    most: u16,
    pub(super) size: u16,
    pub(super) vector: u16,
    pub(super) enabled: bool,
    pub(super) descriptors: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
    /// It is being reset until then.
    pub(super) reset: Option<Deadline>,
    /// It was reset after DRIVER_OK, and may be enabled again.
    pub(super) was_reset: bool,
    ring: Option<Ring>,
    broken: bool,
    look: Look,
    /// When the device last said so, it asked for no doorbells.
    quiet: bool,
    /// Buffers fetched and not used yet.
    pub(super) stock: VecDeque<Chain>,
    done: Vec<Used>,
    flush: Option<Deadline>,
}

impl Queue {
    pub(super) fn new(index: u16, most: u16) -> Self {
        Self {
            index,
            most,
            size: most,
            vector: NO_VECTOR,
            enabled: false,
            descriptors: 0,
            driver: 0,
            device: 0,
            reset: None,
            was_reset: false,
            ring: None,
            broken: false,
            look: Look::Asleep,
            quiet: false,
            stock: VecDeque::new(),
            done: Vec::new(),
            flush: None,
        }
    }

    /// As after a reset.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.index, self.most);
    }

    pub(super) fn most(&self) -> u16 {
        self.most
    }

    /// What is wrong with how it was set up, in words.
    pub(super) fn faults(&self, packed: bool) -> Vec<String> {
        let alignments = if packed { [16, 4, 4] } else { [16, 2, 4] };
        let areas = [
            ("descriptor", self.descriptors),
            ("driver", self.driver),
            ("device", self.device),
        ];
        let mut faults = Vec::new();
        for ((what, address), alignment) in areas.into_iter().zip(alignments) {
            if address % alignment != 0 {
                faults.push(format!(
                    "{what} area at {address:#x}, not aligned to {alignment}"
                ));
            }
        }
        if self.size == 0 || self.size > self.most || !packed && !self.size.is_power_of_two() {
            faults.push(format!("size {} of at most {}", self.size, self.most));
        }
        faults
    }

    /// A doorbell.
    pub(super) fn call(&mut self, when: Deadline, transmits: bool, counters: &mut Counters) {
        counters.doorbells += 1;
        counters.doorbells_transmit += u64::from(transmits);
        if self.quiet {
            counters.doorbells_unasked += 1;
        }
        self.wake(when);
    }

    /// As if a doorbell rang.
    pub(super) fn wake(&mut self, when: Deadline) {
        if matches!(self.look, Look::Asleep) {
            self.look = Look::Called(when);
        }
    }

    fn is_running(&self) -> bool {
        self.enabled && !self.broken && self.reset.is_none()
    }

    /// The driver broke the ring: the device works on it no more.
    fn fail(&mut self, text: &str, work: &mut Work<'_>) {
        self.broken = true;
        self.stock.clear();
        *work.needs_reset = true;
        work.report(self.index, text);
    }

    /// The same, for what was found in a buffer.
    pub(super) fn refuse(&mut self, text: &str, work: &mut Work<'_>) {
        self.fail(text, work);
    }

    /// Fetches buffers if it is time to; returns whether any came.
    pub(super) fn fetch(&mut self, work: &mut Work<'_>) -> bool {
        if !self.is_running() {
            return false;
        }
        if self.ring.is_none() {
            self.build(work);
        }
        match self.look {
            Look::Asleep => {
                let curious = work.latitude.unasked_look && work.random.u8(..64) == 0;
                return curious && self.drain(work);
            }
            Look::Called(when) if !when.has_passed(&work.pace) => return false,
            Look::Called(_) => {
                let slow = work.latitude.polls_awhile;
                let until = work.pace.delay(slow, work.random, 50_000);
                self.look = Look::Awake(until);
                if slow && work.random.bool() {
                    self.ask(false, work);
                }
            }
            Look::Awake(_) => {}
        }
        let mut any = self.drain(work);
        if let Look::Awake(until) = self.look
            && until.has_passed(&work.pace)
        {
            self.ask(true, work);
            // What came before the driver saw that; and then it must be asked again.
            if self.drain(work) {
                any = true;
            } else {
                self.look = Look::Asleep;
            }
        }
        any
    }

    /// Looks for a buffer whether or not a doorbell rang, as there is a frame to put into it.
    pub(super) fn forage(&mut self, work: &mut Work<'_>) {
        if self.is_running() && self.ring.is_some() && !self.drain(work) {
            self.ask(true, work);
            self.drain(work);
        }
    }

    /// Takes what is in the ring now, whether or not a doorbell rang.
    pub(super) fn collect(&mut self, work: &mut Work<'_>) {
        if self.is_running() && self.ring.is_some() {
            self.drain(work);
        }
    }

    fn build(&mut self, work: &mut Work<'_>) {
        let Self { size, .. } = *self;
        let (descriptors, driver, device) = (self.descriptors, self.driver, self.device);
        let mut access = work.access(self.index);
        let (ring, probed) = if access.has(feature::RING_PACKED) {
            let ring = Packed::new(size, descriptors, driver, device);
            let probed = ring.probe(&mut access);
            (Ring::Packed(ring), probed)
        } else {
            let ring = Split::new(size, descriptors, driver, device);
            let probed = ring.probe(&mut access);
            (Ring::Split(ring), probed)
        };
        self.ring = Some(ring);
        if let Err(text) = probed {
            self.fail(&text, work);
        }
    }

    fn drain(&mut self, work: &mut Work<'_>) -> bool {
        let mut any = false;
        while let Some(ring) = &mut self.ring
            && !self.broken
        {
            match ring.take(&mut work.access(self.index)) {
                Ok(Some(chain)) => {
                    work.counters.indirect_tables += u64::from(chain.indirect);
                    if let Some(liar) = work.liar.as_deref_mut() {
                        for element in chain.readable.iter().chain(&chain.writable) {
                            liar.known.add_buffer(element.address);
                        }
                    }
                    self.stock.push_back(chain);
                    any = true;
                }
                Ok(None) => break,
                Err(text) => self.fail(&text, work),
            }
        }
        any
    }

    fn ask(&mut self, wanted: bool, work: &mut Work<'_>) {
        let far = work.random.u16(..0x7000);
        let far = if work.random.bool() { far } else { 0 };
        // An event index that nobody reaches: one that has been passed, in a split ring.
        let packed = work.has(feature::RING_PACKED);
        let far = if far == 0 && !packed { u16::MAX } else { far };
        self.quiet = !wanted;
        let Some(ring) = &mut self.ring else { return };
        if let Err(fault) = ring.ask(&mut work.access(self.index), wanted, far) {
            self.fail(&unreachable("device area", fault), work);
        }
    }

    /// The device is done with a transmit or control buffer.
    pub(super) fn finish(&mut self, used: Used, work: &mut Work<'_>) {
        let late = work.latitude.late_used;
        self.done.push(used);
        if self.flush.is_none() {
            self.flush = Some(work.pace.delay(late, work.random, 100_000));
        }
    }

    /// Whether buffers wait to be marked as used.
    pub(super) fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// Marks as used what is due.
    pub(super) fn flush(&mut self, work: &mut Work<'_>) -> bool {
        let due = self.flush.is_some_and(|when| when.has_passed(&work.pace));
        if !due || self.done.is_empty() || !self.enabled {
            return false;
        }
        self.flush = None;
        let in_order = work.has(feature::IN_ORDER);
        if work.latitude.out_of_order && !in_order {
            work.random.shuffle(&mut self.done);
        }
        let batch = in_order && work.latitude.in_order_batches && work.random.bool();
        let mut done = std::mem::take(&mut self.done);
        let now = if work.latitude.late_used {
            work.random.usize(1..=done.len())
        } else {
            done.len()
        };
        let rest = done.split_off(now);
        if work.latitude.late_used {
            self.put(&done, batch, work);
        } else {
            for used in &done {
                self.put(std::slice::from_ref(used), false, work);
            }
        }
        self.done = rest;
        if !self.done.is_empty() {
            self.flush = Some(work.pace.delay(true, work.random, 100_000));
        }
        true
    }

    /// Marks buffers as used, all at once.
    pub(super) fn put(&mut self, used: &[Used], batch: bool, work: &mut Work<'_>) {
        let poison = work.latitude.poisons_memory;
        let (shown, skew) = match work.liar.as_deref_mut() {
            Some(liar) => {
                let stock = self.stock.iter().map(|chain| chain.id);
                let others = stock.chain(self.done.iter().map(|used| used.id));
                let context = UsedContext {
                    packed: work.features & feature::RING_PACKED != 0,
                    in_order: work.features & feature::IN_ORDER != 0,
                    size: self.size,
                    others: others.collect(),
                };
                liar.used(used, &context)
            }
            None => (used.iter().copied().map(Shown::from).collect(), 0),
        };
        let putting = Putting {
            used,
            shown: &shown,
            skew,
            batch,
            poison,
        };
        let Some(ring) = &mut self.ring else { return };
        match ring.put(&mut work.access(self.index), &putting) {
            Ok(true) => work.interrupts.push(self.vector),
            Ok(false) => {
                work.counters.interrupts_suppressed += 1;
                if work.latitude.spurious_interrupts && work.random.u8(..8) == 0 {
                    work.interrupts.push(self.vector);
                }
            }
            Err(fault) => self.fail(&unreachable("ring", fault), work),
        }
    }
}
