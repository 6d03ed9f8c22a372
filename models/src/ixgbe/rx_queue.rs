//! A receive queue: buffers that the driver gives, and write-back.

use std::collections::VecDeque;

use super::bits::{DESCRIPTOR, offset::ring, srrctl};
use super::registers::{RegisterFile, Ring};
use super::violations::Violations;
use super::work::{Enable, Work};
use super::write_back::WriteBack;
use crate::intel::engine::distance;

/// Descriptors fetched at once.
const FETCH: usize = 32;

/// A descriptor that was fetched and is free.
#[derive(Clone, Copy, Debug)]
pub(super) struct Free {
    pub(super) index: u32,
    pub(super) raw: [u8; 16],
    pub(super) address: u64,
}

pub(super) struct RxQueue {
    pub(super) number: usize,
    pub(super) enable: Enable,
    /// Next descriptor to use.
    head: u32,
    /// Next descriptor to fetch.
    fetched: u32,
    tail: u32,
    /// First descriptor that the driver cannot know to be done.
    unreported: u32,
    free: VecDeque<Free>,
    pub(super) write_back: WriteBack,
    /// The rules that count when a frame is stored were looked at.
    pub(super) judged: bool,
    halted: bool,
}

impl RxQueue {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            enable: Enable::default(),
            head: 0,
            fetched: 0,
            tail: 0,
            unreported: 0,
            free: VecDeque::new(),
            write_back: WriteBack::default(),
            judged: false,
            halted: false,
        }
    }

    pub(super) fn reset(&mut self) {
        self.set_head(0);
        self.enable = Enable::default();
        self.tail = 0;
        self.write_back.clear();
        self.halted = false;
        self.judged = false;
    }

    /// The queue was disabled: what was fetched is forgotten. ENABLE reads 0 only when all
    /// accesses to the ring are done (82599 datasheet 4.6.7.1.2), so nothing is written any more.
    pub(super) fn stop(&mut self) {
        self.write_back.clear();
        self.set_head(self.head);
        self.tail = self.head;
    }

    /// RDH is written: what was fetched is forgotten.
    pub(super) fn set_head(&mut self, head: u32) {
        self.head = head;
        self.fetched = head;
        self.unreported = head;
        self.free.clear();
    }

    /// What RDH reads.
    pub(super) fn head(&self, runs_ahead: bool) -> u32 {
        if runs_ahead { self.fetched } else { self.head }
    }

    pub(super) fn tail(&self) -> u32 {
        self.tail
    }

    /// The tail is written while the queue is off and the device is stopped.
    pub(super) fn keep_tail(&mut self, value: u32) {
        self.tail = value;
    }

    /// Addresses of the buffers that were fetched and are free.
    pub(super) fn buffers(&self) -> impl Iterator<Item = u64> {
        self.free.iter().map(|free| free.address)
    }

    /// RDT is written.
    pub(super) fn give(&mut self, value: u32, entries: u32, violations: &mut Violations) {
        let queue = self.number;
        if entries == 0 {
            // A register test, before there is a ring.
            self.tail = value;
            return;
        }
        if value >= entries && value != 0 {
            violations.report(format!(
                "receive queue {queue}: tail {value} in a ring of {entries}"
            ));
            // It reads back, as Linux's register test wants it, and is never reached.
            self.tail = value;
            return;
        }
        if !self.enable.was_seen() && value != self.head && value != 0 {
            violations.report(format!(
                "receive queue {queue}: tail {value} before RXDCTL.ENABLE was read as set"
            ));
        }
        let before = distance(self.unreported, self.tail, entries);
        let after = distance(self.unreported, value, entries);
        if after < before {
            violations.report(format!(
                "receive queue {queue}: tail {value} after {}: it went back, or past descriptor \
                 {}, the first that is not known to be done",
                self.tail, self.unreported
            ));
        }
        self.tail = value;
    }

    /// Bytes of a buffer; 0 if SRRCTL names no size.
    pub(super) fn buffer_size(&self, registers: &RegisterFile) -> usize {
        let control = registers.get(Ring::Receive(self.number).base() + ring::SPLIT);
        match control & srrctl::BUFFER {
            size @ 1..=16 => size as usize * 1024,
            _ => 0,
        }
    }

    /// Whether frames are dropped for want of descriptors.
    pub(super) fn drops(&self, registers: &RegisterFile) -> bool {
        let control = registers.get(Ring::Receive(self.number).base() + ring::SPLIT);
        control & srrctl::DROP_EN != 0
    }

    /// Whether `len` bytes fit the buffers that were fetched.
    pub(super) fn has_room(&self, len: usize, registers: &RegisterFile) -> bool {
        !self.halted && self.free.len() * self.buffer_size(registers) >= len
    }

    /// Fetches the descriptors before the tail, and spoils their buffers.
    pub(super) fn fetch(&mut self, work: &mut Work<'_>) {
        let (base, entries) = work.registers.ring(Ring::Receive(self.number));
        let mut bytes = [0; FETCH * DESCRIPTOR as usize];
        // A tail beyond the ring (its length was changed later) is never reached.
        while self.fetched != self.tail && self.tail < entries && !self.halted {
            let until = if self.tail > self.fetched {
                self.tail
            } else {
                entries
            };
            let count = (until.saturating_sub(self.fetched) as usize).min(FETCH);
            let target = bytes.get_mut(..count * DESCRIPTOR as usize);
            let address = base.wrapping_add(u64::from(self.fetched * DESCRIPTOR));
            if count == 0 {
                return;
            }
            if let Err(fault) = work.bus.read(address, target.unwrap_or_default()) {
                let (queue, index) = (self.number, self.fetched);
                work.violations.report(format!(
                    "receive queue {queue}: descriptor {index} cannot be fetched, nothing to read \
                     at {:#x}; the queue stops",
                    fault.address
                ));
                self.halted = true;
                return;
            }
            let (descriptors, _) = bytes.as_chunks::<{ DESCRIPTOR as usize }>();
            for (index, raw) in (self.fetched..).zip(descriptors.iter().take(count)) {
                let free = self.inspect(index, *raw, work);
                self.free.push_back(free);
            }
            self.fetched += count as u32;
            if self.fetched >= entries {
                self.fetched = 0;
            }
        }
    }

    fn inspect(&self, index: u32, raw: [u8; 16], work: &mut Work<'_>) -> Free {
        let [a, b, c, d, e, f, g, h, header, ..] = raw;
        let free = Free {
            index,
            raw,
            address: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        };
        // Linux leaves it so, and looks at the length instead.
        if header & 1 != 0 && work.rules.beyond_linux {
            let text = "bit 0 of the header address is set: DD would be seen before it is written";
            self.report(&free, text, work);
        }
        if free.address & 1 != 0 {
            self.report(
                &free,
                "the buffer is at an odd address (bit 0 is NSE)",
                work,
            );
        }
        if work.latitude.poison_receive_buffers {
            let poison = vec![work.random.next() as u8 | 1; self.buffer_size(work.registers)];
            self.store(&free, &poison, work);
        }
        free
    }

    fn report(&self, free: &Free, text: &str, work: &mut Work<'_>) {
        let content = u128::from_be_bytes(free.raw);
        work.violations.report(format!(
            "receive queue {}, descriptor {} [{content:032x}]: {text}",
            self.number, free.index
        ));
    }

    /// Writes to a buffer.
    pub(super) fn store(&self, free: &Free, bytes: &[u8], work: &mut Work<'_>) {
        if let Err(fault) = work.bus.write(free.address, bytes) {
            let text = format!(
                "the buffer at {:#x} is outside every mapping",
                fault.address
            );
            self.report(free, &text, work);
        }
    }

    /// Takes the next buffer.
    pub(super) fn take(&mut self, registers: &RegisterFile) -> Option<Free> {
        let free = self.free.pop_front()?;
        let (_, entries) = registers.ring(Ring::Receive(self.number));
        self.head = if free.index + 1 >= entries {
            0
        } else {
            free.index + 1
        };
        Some(free)
    }

    /// Writes back what is due; whether anything was, or waits only for time.
    pub(super) fn flush(&mut self, work: &mut Work<'_>) -> bool {
        if self.write_back.len() == 0 {
            return false;
        }
        let (base, entries) = work.registers.ring(Ring::Receive(self.number));
        let mut done = 0;
        while let Some(next) = self.write_back.next(&mut done, work) {
            let place = base.wrapping_add(u64::from(next.index * DESCRIPTOR));
            if let Err(fault) = work.bus.write(place, &next.bytes) {
                let (queue, index) = (self.number, next.index);
                work.violations.report(format!(
                    "receive queue {queue}, descriptor {index}: its write-back to {:#x} is outside \
                     every mapping",
                    fault.address
                ));
            }
            work.raise_receive(self.number);
            self.unreported = if next.index + 1 >= entries {
                0
            } else {
                next.index + 1
            };
        }
        true
    }
}
