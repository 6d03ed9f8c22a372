//! A machine of 1 MiB, a wire in two queues, and a driver made by hand.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use pagewire_hal::Instant;

use super::super::{E1000e82574, Latitude, ModelConfig};
use crate::{Bus, Device, DmaFault, Wire};

/// Device address of the first byte of memory.
pub(super) const MEMORY: u64 = 0x7_6540_0000;
const LEN: usize = 1 << 20;
/// Rings, as offsets into memory.
pub(super) const TX_RING: usize = 0x1000;
pub(super) const TX_RING_1: usize = 0x3000;
pub(super) const RX_RING: usize = 0x5000;
/// Where tests put payload and receive buffers.
pub(super) const PAYLOAD: usize = 0x1_0000;
pub(super) const BUFFERS: usize = 0x8_0000;
/// Descriptors in a ring.
pub(super) const ENTRIES: u32 = 32;
/// Bytes of a receive buffer.
pub(super) const BUFFER: usize = 2048;

pub(super) const EOP: u8 = 1;
pub(super) const IFCS: u8 = 2;
pub(super) const IC: u8 = 4;
pub(super) const TSE: u8 = 4;
pub(super) const RS: u8 = 8;
pub(super) const DEXT: u8 = 0x20;
pub(super) const IDE: u8 = 0x80;
/// What the last descriptor of a frame has.
pub(super) const LAST: u8 = EOP | IFCS | RS;
pub(super) const IXSM: u8 = 1;
pub(super) const TXSM: u8 = 2;

pub(super) const MAC: [u8; 6] = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];

/// Memory as the device reaches it.
pub(super) struct Memory {
    pub(super) bytes: Vec<u8>,
    /// Offsets that are not mapped.
    pub(super) hole: std::ops::Range<usize>,
    pub(super) interrupts: Vec<u16>,
    pub(super) reads: usize,
}

impl Memory {
    fn range(
        &self,
        address: u64,
        len: usize,
        write: bool,
    ) -> Result<std::ops::Range<usize>, DmaFault> {
        let fault = DmaFault { address, write };
        let start =
            usize::try_from(address.checked_sub(MEMORY).ok_or(fault)?).map_err(|_| fault)?;
        let end = start + len;
        if end > LEN || start < self.hole.end && end > self.hole.start {
            return Err(fault);
        }
        Ok(start..end)
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
pub(super) struct Lanes {
    pub(super) sent: Vec<Vec<u8>>,
    pub(super) coming: VecDeque<Vec<u8>>,
    pub(super) cut: bool,
    /// Sent frames are not kept.
    pub(super) deaf: bool,
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

pub(super) struct Rig {
    pub(super) device: E1000e82574,
    pub(super) memory: Memory,
    pub(super) lanes: Arc<Mutex<Lanes>>,
    pub(super) now: u64,
    pub(super) seed: u64,
    /// Next transmit descriptor.
    pub(super) next: u32,
}

impl Rig {
    /// A device as it comes from power-up.
    pub(super) fn cold(seed: u64, latitude: Latitude) -> Self {
        let lanes = Arc::new(Mutex::new(Lanes::default()));
        let config = ModelConfig {
            seed,
            latitude,
            mac: MAC,
        };
        Self {
            device: E1000e82574::new(config, Box::new(Plug(Arc::clone(&lanes)))),
            memory: Memory {
                bytes: vec![0; LEN],
                hole: 0..0,
                interrupts: Vec::new(),
                reads: 0,
            },
            lanes,
            now: 0,
            seed,
            next: 0,
        }
    }

    /// A device with both units enabled, link up, and no receive buffers.
    pub(super) fn warm(seed: u64, latitude: Latitude) -> Self {
        let mut rig = Self::cold(seed, latitude);
        rig.initialise();
        rig.start_transmit();
        rig.start_receive(0);
        rig.until("link", |rig| rig.read(0x0008) & 2 != 0);
        rig.expect_clean();
        rig
    }

    /// A device without latitude.
    pub(super) fn plain() -> Self {
        Self::warm(0, Latitude::none())
    }

    /// A device with all latitudes.
    pub(super) fn wild(seed: u64) -> Self {
        Self::warm(seed, Latitude::default())
    }

    pub(super) fn read(&mut self, offset: u32) -> u32 {
        self.device.read(0, offset, Instant::from_nanos(self.now))
    }

    pub(super) fn write(&mut self, offset: u32, value: u32) {
        let now = Instant::from_nanos(self.now);
        self.device.write(0, offset, value, now);
    }

    /// One step, a microsecond later.
    pub(super) fn step(&mut self) -> bool {
        self.now += 1000;
        let now = Instant::from_nanos(self.now);
        self.device.step(&mut self.memory, now)
    }

    pub(super) fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step();
        }
    }

    pub(super) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..20_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("never happened: {what} (seed {})", self.seed);
    }

    /// Reset, EEPROM, bus master, MSI-X.
    pub(super) fn initialise(&mut self) {
        let command = self.device.config_read(4);
        self.device.config_write(4, command | 4);
        self.device.config_write(0xa0, 1 << 31);
        self.write(0x0000, 1 << 26);
        self.until("reset", |rig| rig.read(0x0000) & 1 << 26 == 0);
        self.until("EEPROM", |rig| rig.read(0x0010) & 1 << 9 != 0);
        for entry in 0..128 {
            self.write(0x5200 + 4 * entry, 0);
        }
        let control = self.read(0x0000);
        self.write(0x0000, control | 1 << 6);
    }

    fn ring(&mut self, at: u32, place: usize) {
        let base = MEMORY + place as u64;
        self.write(at, base as u32);
        self.write(at + 4, (base >> 32) as u32);
        self.write(at + 8, ENTRIES * 16);
        self.write(at + 0x10, 0);
        self.write(at + 0x18, 0);
    }

    pub(super) fn prepare_transmit(&mut self) {
        self.ring(0x3800, TX_RING);
        self.ring(0x3900, TX_RING_1);
        self.write(0x3828, 1 << 24 | 1 << 22 | 1 << 16);
        self.write(0x3928, 1 << 24 | 1 << 22 | 1 << 16);
        self.next = 0;
    }

    pub(super) fn start_transmit(&mut self) {
        self.prepare_transmit();
        self.write(0x0400, 1 << 1 | 1 << 3);
    }

    /// `extra` goes into RCTL beside EN, BAM and SECRC; 2 KiB buffers.
    pub(super) fn start_receive(&mut self, extra: u32) {
        self.write(0x0100, 0);
        self.ring(0x2800, RX_RING);
        self.write(0x0100, 1 << 1 | 1 << 15 | 1 << 26 | extra);
    }

    /// Gives the first `count` receive buffers.
    pub(super) fn give(&mut self, count: u32) {
        for index in 0..count {
            self.give_one(index);
        }
        self.write(0x2818, count);
    }

    /// Fills in receive descriptor `index`, without telling the device.
    pub(super) fn give_one(&mut self, index: u32) {
        let buffer = MEMORY + (BUFFERS + index as usize * BUFFER) as u64;
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&buffer.to_le_bytes());
        let at = RX_RING + index as usize * 16;
        self.memory.bytes[at..at + 16].copy_from_slice(&raw);
    }

    /// The receive descriptor as the device has left it.
    pub(super) fn rx(&self, index: u32) -> Received {
        let at = RX_RING + index as usize * 16;
        let raw: [u8; 16] = self.memory.bytes[at..at + 16].try_into().unwrap();
        let word = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
        Received {
            raw,
            len: word(8) as usize,
            checksum: word(10),
            status: raw[12],
            errors: raw[13],
        }
    }

    pub(super) fn buffer(&self, index: u32) -> &[u8] {
        let at = BUFFERS + index as usize * BUFFER;
        &self.memory.bytes[at..at + BUFFER]
    }

    pub(super) fn deliver(&mut self, frame: &[u8]) {
        self.lanes.lock().unwrap().coming.push_back(frame.to_vec());
    }

    /// Puts a transmit descriptor into the next slot of queue 0.
    pub(super) fn push(&mut self, raw: [u8; 16]) -> u32 {
        let index = self.next;
        let at = TX_RING + index as usize * 16;
        self.memory.bytes[at..at + 16].copy_from_slice(&raw);
        self.next = (index + 1) % ENTRIES;
        index
    }

    pub(super) fn doorbell(&mut self) {
        self.write(0x3818, self.next);
    }

    pub(super) fn is_done(&self, index: u32) -> bool {
        self.memory.bytes[TX_RING + index as usize * 16 + 12] & 1 != 0
    }

    /// Steps until descriptor `index` has DD.
    pub(super) fn until_done(&mut self, index: u32) {
        self.until("DD", |rig| rig.is_done(index));
    }

    /// Puts `bytes` into memory at `place` and returns their device address.
    pub(super) fn put(&mut self, place: usize, bytes: &[u8]) -> u64 {
        self.memory.bytes[place..place + bytes.len()].copy_from_slice(bytes);
        MEMORY + place as u64
    }

    pub(super) fn sent(&self) -> Vec<Vec<u8>> {
        self.lanes.lock().unwrap().sent.clone()
    }

    pub(super) fn take_interrupts(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.memory.interrupts)
    }

    pub(super) fn expect_clean(&mut self) {
        let violations = self.device.take_violations();
        assert!(violations.is_empty(), "seed {}: {violations:?}", self.seed);
    }

    /// Expects that something was reported, and that one report has `part` in it.
    pub(super) fn expect_violation(&mut self, part: &str) {
        let violations = self.device.take_violations();
        let found = violations.iter().any(|text| text.contains(part));
        let seed = self.seed;
        assert!(found, "no report of {part:?} (seed {seed}): {violations:?}");
    }
}

/// A receive descriptor after write-back.
pub(super) struct Received {
    pub(super) raw: [u8; 16],
    pub(super) len: usize,
    pub(super) checksum: u16,
    pub(super) status: u8,
    pub(super) errors: u8,
}

/// A legacy transmit descriptor.
pub(super) fn legacy(address: u64, len: u16, command: u8, cso: u8, css: u8) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[..8].copy_from_slice(&address.to_le_bytes());
    raw[8..10].copy_from_slice(&len.to_le_bytes());
    raw[10] = cso;
    raw[11] = command;
    raw[13] = css;
    raw
}

/// A data descriptor.
pub(super) fn data(address: u64, len: u32, command: u8, options: u8) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[..8].copy_from_slice(&address.to_le_bytes());
    raw[8..11].copy_from_slice(&len.to_le_bytes()[..3]);
    raw[10] |= 1 << 4;
    raw[11] = command | DEXT;
    raw[13] = options;
    raw
}

/// A context descriptor; the ranges are start, offset, end.
pub(super) fn context(ip: (u8, u8, u16), tu: (u8, u8, u16), command: u8) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[0] = ip.0;
    raw[1] = ip.1;
    raw[2..4].copy_from_slice(&ip.2.to_le_bytes());
    raw[4] = tu.0;
    raw[5] = tu.1;
    raw[6..8].copy_from_slice(&tu.2.to_le_bytes());
    raw[11] = command | DEXT;
    raw
}

/// A context for TCP over IPv4 without options.
pub(super) fn tcp_context() -> [u8; 16] {
    context((14, 24, 33), (34, 50, 0), 0b11)
}

/// The definition of the checksum, for checking.
pub(super) fn plain_sum(parts: &[&[u8]]) -> u16 {
    let whole: Vec<u8> = parts.concat();
    let mut total = 0u32;
    for word in whole.chunks(2) {
        total += u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// A frame with an IPv4 packet of `protocol`, its transport header of 20 or 8 bytes, `payload`,
/// and both checksum fields zero.
pub(super) fn ipv4_frame(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = if protocol == 6 { 20 } else { 8 };
    let mut frame = Vec::new();
    frame.extend_from_slice(&MAC);
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 9, 8, 0]);
    let total = (20 + header + payload.len()) as u16;
    frame.extend_from_slice(&[0x45, 0]);
    frame.extend_from_slice(&total.to_be_bytes());
    frame.extend_from_slice(&[0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
    frame.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend_from_slice(&[0x30, 0x39, 0, 80]);
    if protocol == 6 {
        frame.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    } else {
        let len = (8 + payload.len()) as u16;
        frame.extend_from_slice(&len.to_be_bytes());
        frame.extend_from_slice(&[0, 0]);
    }
    frame.extend_from_slice(payload);
    frame
}

/// The pseudo-header of the IPv4 packet in `frame`.
pub(super) fn pseudo_header(frame: &[u8]) -> [u8; 12] {
    let mut pseudo = [0; 12];
    pseudo[..8].copy_from_slice(&frame[26..34]);
    pseudo[9] = frame[23];
    let total = u16::from_be_bytes([frame[16], frame[17]]);
    pseudo[10..].copy_from_slice(&(total - 20).to_be_bytes());
    pseudo
}

/// Where the transport checksum of an IPv4 frame is.
pub(super) fn transport_field(frame: &[u8]) -> usize {
    if frame[23] == 6 { 50 } else { 40 }
}

/// Puts the pseudo-header sum where the device expects it.
pub(super) fn seed_checksum(frame: &mut [u8]) {
    let sum = plain_sum(&[&pseudo_header(frame)]);
    let at = transport_field(frame);
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Fills in both checksums, as a sender without offload would.
pub(super) fn fill_checksums(frame: &mut [u8]) {
    let ip = !plain_sum(&[&frame[14..34]]);
    frame[24..26].copy_from_slice(&ip.to_be_bytes());
    let at = transport_field(frame);
    let sum = !plain_sum(&[&pseudo_header(frame), &frame[34..]]);
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Whether both checksums of an IPv4 frame (not padded) are right.
pub(super) fn verifies(frame: &[u8]) -> bool {
    let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let packet = &frame[14..14 + total];
    plain_sum(&[&packet[..20]]) == 0xffff
        && plain_sum(&[&pseudo_header(frame), &packet[20..]]) == 0xffff
}
