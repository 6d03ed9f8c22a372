//! What the models' tests have in common: a machine of memory, a wire in two queues, and a device in
//! the hands of a test that plays the driver.

mod frames;
mod intel;

pub(crate) use frames::{
    MAC, field, fill_checksums, ip_frame, pattern, plain_sum, pseudo_sum, seed_checksum, transport,
    verifies,
};
pub(crate) use intel::IntelRig;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use pagewire_hal::Instant;

use crate::{Bus, Device, DmaFault, Wire};

/// Device address of the first byte of memory.
pub(crate) const MEMORY: u64 = 0x7_6540_0000;

/// Memory as the device reaches it.
pub(crate) struct Memory {
    pub(crate) bytes: Vec<u8>,
    /// Offsets that are not mapped.
    pub(crate) hole: Range<usize>,
    pub(crate) interrupts: Vec<u16>,
    /// Reads of the device.
    pub(crate) reads: usize,
}

impl Memory {
    fn range(&self, address: u64, len: usize, write: bool) -> Result<Range<usize>, DmaFault> {
        let fault = DmaFault { address, write };
        let start =
            usize::try_from(address.checked_sub(MEMORY).ok_or(fault)?).map_err(|_| fault)?;
        let end = start.checked_add(len).ok_or(fault)?;
        if end > self.bytes.len() || start < self.hole.end && end > self.hole.start {
            return Err(fault);
        }
        Ok(start..end)
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn half(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    pub(crate) fn put_half(&mut self, at: usize, value: u16) {
        self.put(at, &value.to_le_bytes());
    }
}

impl Bus for Memory {
    fn read(&mut self, address: u64, target: &mut [u8]) -> Result<(), DmaFault> {
        self.reads += 1;
        let range = self.range(address, target.len(), false)?;
        target.copy_from_slice(&self.bytes[range]);
        Ok(())
    }

    fn append(&mut self, address: u64, len: usize, frame: &mut Vec<u8>) -> Result<(), DmaFault> {
        let range = self.range(address, len, false)?;
        frame.extend_from_slice(&self.bytes[range]);
        Ok(())
    }

    fn write(&mut self, address: u64, source: &[u8]) -> Result<(), DmaFault> {
        let range = self.range(address, source.len(), true)?;
        self.bytes[range].copy_from_slice(source);
        Ok(())
    }

    fn interrupt(&mut self, vector: u16) {
        self.interrupts.push(vector);
    }
}

/// What is on the wire.
#[derive(Default)]
pub(crate) struct Lanes {
    pub(crate) sent: Vec<Vec<u8>>,
    pub(crate) coming: VecDeque<Vec<u8>>,
    pub(crate) cut: bool,
    /// Sent frames are not kept.
    pub(crate) deaf: bool,
}

struct Plug(Arc<Mutex<Lanes>>);

impl Wire for Plug {
    fn transmit(&mut self, frame: &mut Vec<u8>, _: Instant) {
        let mut lanes = self.0.lock().unwrap();
        if !lanes.deaf {
            lanes.sent.push(frame.clone());
        }
    }

    fn receive(&mut self, frame: &mut Vec<u8>, _: Instant) -> bool {
        match self.0.lock().unwrap().coming.pop_front() {
            Some(next) => {
                *frame = next;
                true
            }
            None => false,
        }
    }

    fn carrier(&self) -> bool {
        !self.0.lock().unwrap().cut
    }
}

/// A device, and what the test that drives it remembers: `R` is more than the place in a ring.
pub(crate) struct Rig<D, R = ()> {
    pub(crate) device: D,
    pub(crate) memory: Memory,
    pub(crate) lanes: Arc<Mutex<Lanes>>,
    pub(crate) now: u64,
    pub(crate) seed: u64,
    /// Next transmit descriptor of queue 0.
    pub(crate) next: u32,
    pub(crate) rings: R,
}

impl<D: Device, R: Default> Rig<D, R> {
    /// `memory` bytes, and the device that `make` makes with its wire.
    pub(crate) fn of(seed: u64, memory: usize, make: impl FnOnce(Box<dyn Wire>) -> D) -> Self {
        let lanes = Arc::new(Mutex::new(Lanes::default()));
        Self {
            device: make(Box::new(Plug(Arc::clone(&lanes)))),
            memory: Memory {
                bytes: vec![0; memory],
                hole: 0..0,
                interrupts: Vec::new(),
                reads: 0,
            },
            lanes,
            now: 0,
            seed,
            next: 0,
            rings: R::default(),
        }
    }
}

impl<D: Device, R> Rig<D, R> {
    pub(crate) fn time(&self) -> Instant {
        Instant::from_nanos(self.now)
    }

    /// One step, a microsecond later.
    pub(crate) fn step(&mut self) -> bool {
        self.now += 1000;
        let now = self.time();
        self.device.step(&mut self.memory, now)
    }

    pub(crate) fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step();
        }
    }

    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..20_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        let said = self.device.take_violations();
        panic!("never happened: {what} (seed {}): {said:?}", self.seed);
    }

    pub(crate) fn deliver(&mut self, frame: &[u8]) {
        self.lanes.lock().unwrap().coming.push_back(frame.to_vec());
    }

    pub(crate) fn sent(&self) -> Vec<Vec<u8>> {
        self.lanes.lock().unwrap().sent.clone()
    }

    pub(crate) fn take_interrupts(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.memory.interrupts)
    }

    pub(crate) fn expect_clean(&mut self) {
        let violations = self.device.take_violations();
        assert!(violations.is_empty(), "seed {}: {violations:?}", self.seed);
    }

    /// Expects that something was reported, and that one report has `part` in it.
    pub(crate) fn expect_violation(&mut self, part: &str) {
        let violations = self.device.take_violations();
        let found = violations.iter().any(|text| text.contains(part));
        let seed = self.seed;
        assert!(found, "no report of {part:?} (seed {seed}): {violations:?}");
    }
}
