//! A machine of 1 MiB, a wire in two queues, and a driver made by hand.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use pagewire_hal::Instant;

use super::super::{Ixgbe82599, Latitude, ModelConfig, Rules};
use crate::{Bus, Device, DmaFault, Wire};

/// Device address of the first byte of memory.
pub(super) const MEMORY: u64 = 0x7_6540_0000;
const LEN: usize = 1 << 20;
/// Rings of queue 0, as offsets into memory; those of the next queue are 0x1000 further on.
pub(super) const TX_RING: usize = 0x1000;
pub(super) const RX_RING: usize = 0x8000;
/// Where tests put payload and receive buffers.
pub(super) const PAYLOAD: usize = 0x1_0000;
pub(super) const BUFFERS: usize = 0x8_0000;
/// Descriptors in a ring.
pub(super) const ENTRIES: u32 = 64;
/// Bytes of a receive buffer.
pub(super) const BUFFER: usize = 2048;

pub(super) const EOP: u32 = 1 << 24;
pub(super) const IFCS: u32 = 1 << 25;
pub(super) const RS: u32 = 1 << 27;
pub(super) const DEXT: u32 = 1 << 29;
pub(super) const TSE: u32 = 1 << 31;
/// What the last descriptor of a frame has.
pub(super) const LAST: u32 = EOP | IFCS | RS;
/// POPTS.
pub(super) const IXSM: u32 = 1 << 8;
pub(super) const TXSM: u32 = 1 << 9;
/// TUCMD.
pub(super) const IPV4: u32 = 1 << 10;
pub(super) const TCP: u32 = 1 << 11;

pub(super) const MAC: [u8; 6] = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];

/// Memory as the device reaches it.
pub(super) struct Memory {
    pub(super) bytes: Vec<u8>,
    pub(super) interrupts: Vec<u16>,
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
        let end = start.checked_add(len).ok_or(fault)?;
        if end > LEN {
            return Err(fault);
        }
        Ok(start..end)
    }
}

impl Bus for Memory {
    fn read(&mut self, address: u64, target: &mut [u8]) -> Result<(), DmaFault> {
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
}

struct Plug(Arc<Mutex<Lanes>>);

impl Wire for Plug {
    fn transmit(&mut self, frame: &mut Vec<u8>, _: Instant) {
        self.0.lock().unwrap().sent.push(frame.clone());
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
    pub(super) device: Ixgbe82599,
    pub(super) memory: Memory,
    pub(super) lanes: Arc<Mutex<Lanes>>,
    pub(super) now: u64,
    pub(super) seed: u64,
    /// Next transmit descriptor of queue 0.
    pub(super) next: u32,
}

impl Rig {
    pub(super) fn with(config: ModelConfig) -> Self {
        let lanes = Arc::new(Mutex::new(Lanes::default()));
        Self {
            seed: config.seed,
            device: Ixgbe82599::new(config, Box::new(Plug(Arc::clone(&lanes)))),
            memory: Memory {
                bytes: vec![0; LEN],
                interrupts: Vec::new(),
            },
            lanes,
            now: 0,
            next: 0,
        }
    }

    /// A device as it comes from power-up.
    pub(super) fn cold(seed: u64, latitude: Latitude) -> Self {
        Self::with(ModelConfig {
            seed,
            latitude,
            rules: Rules::default(),
            mac: MAC,
            ..ModelConfig::default()
        })
    }

    /// A device with queue 0 enabled in both directions, link up, and no receive buffers.
    pub(super) fn warm(seed: u64, latitude: Latitude) -> Self {
        Self::cold(seed, latitude).warmed_up()
    }

    /// The same device, initialised as [`warm`](Self::warm) has it.
    pub(super) fn warmed_up(mut self) -> Self {
        self.initialise();
        self.start_receive(0);
        self.start_receiver();
        self.start_transmit(0, 0);
        self.write(0x0020, 0);
        self.until("link", |rig| rig.read(0x42a4) & 1 << 30 != 0);
        self.expect_clean();
        self
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

    /// Sets bits of a register.
    pub(super) fn set(&mut self, offset: u32, bits: u32) {
        let value = self.read(offset);
        self.write(offset, value | bits);
    }

    /// Clears bits of a register.
    pub(super) fn clear(&mut self, offset: u32, bits: u32) {
        let value = self.read(offset);
        self.write(offset, value & !bits);
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
        let said = self.device.take_violations();
        panic!("never happened: {what} (seed {}): {said:?}", self.seed);
    }

    pub(super) fn reset(&mut self) {
        self.write(0x0000, 1 << 26);
        self.until("reset", |rig| rig.read(0x0000) & 1 << 26 == 0);
    }

    /// Bus master, MSI-X, reset, EEPROM, tables, packet buffers.
    pub(super) fn initialise(&mut self) {
        let command = self.device.config_read(4);
        self.device.config_write(4, command | 4);
        self.device.config_write(0x70, 1 << 31);
        self.reset();
        self.until("EEPROM", |rig| rig.read(0x1_0010) & 1 << 9 != 0);
        self.until("DMA", |rig| rig.read(0x2f00) & 1 << 3 != 0);
        for (from, to) in [
            (0x5200, 0x53fc),
            (0xa600, 0xa9fc),
            (0xf100, 0xf1fc),
            (0xf200, 0xf3fc),
            (0xf400, 0xf5fc),
        ] {
            for at in (from..=to).step_by(4) {
                self.write(at, 0);
            }
        }
        for buffer in 1..8 {
            self.write(0x3c00 + 4 * buffer, 0);
        }
        self.clear(0x2f00, 0x1f << 17);
        self.set(0x2f00, 1 << 1 | 1 << 25 | 1 << 26);
        self.set(0x0018, 1 << 16);
        self.set(0x5080, 1 << 10);
        self.set(0x4900, 1 << 6);
        for buffer in 1..8 {
            self.write(0xcc00 + 4 * buffer, 0);
        }
        self.write(0x8100, 0xfff);
        self.clear(0x4900, 1 << 6);
        self.write(0x0898, 1 << 4 | 1 << 30);
    }

    pub(super) fn ring(&mut self, at: u32, place: usize) {
        let base = MEMORY + place as u64;
        self.write(at, base as u32);
        self.write(at + 4, (base >> 32) as u32);
        self.write(at + 8, ENTRIES * 16);
        self.write(at + 0x10, 0);
        self.write(at + 0x18, 0);
    }

    /// Enables transmit queue `queue`, with `control` in TXDCTL.
    pub(super) fn start_transmit(&mut self, queue: u32, control: u32) {
        let at = 0x6000 + 0x40 * queue;
        self.ring(at, TX_RING + queue as usize * 0x1000);
        self.set(0x4a80, 1);
        self.write(at + 0x28, control | 1 << 25);
        self.until("queue", |rig| rig.read(at + 0x28) & 1 << 25 != 0);
        self.next = 0;
    }

    /// Enables receive queue `queue`, with buffers of 2 KiB.
    pub(super) fn start_receive(&mut self, queue: u32) {
        let at = 0x1000 + 0x40 * queue;
        self.ring(at, RX_RING + queue as usize * 0x1000);
        self.write(at + 0x14, 1 << 25 | 2 | 4 << 8);
        self.clear(at + 0x0c, 1 << 12);
        self.write(at + 0x28, 1 << 25);
        self.until("queue", |rig| rig.read(at + 0x28) & 1 << 25 != 0);
    }

    pub(super) fn start_receiver(&mut self) {
        self.set(0x8d00, 1 << 1);
        self.until("drained", |rig| rig.read(0x8d04) & 1 != 0);
        self.write(0x3000, 1);
        self.clear(0x8d00, 1 << 1);
    }

    /// Gives the first `count` receive buffers of `queue`.
    pub(super) fn give(&mut self, queue: u32, count: u32) {
        for index in 0..count {
            let slot = index + queue * ENTRIES;
            let buffer = MEMORY + (BUFFERS + slot as usize * BUFFER) as u64;
            let mut raw = [0; 16];
            raw[..8].copy_from_slice(&buffer.to_le_bytes());
            let at = RX_RING + queue as usize * 0x1000 + index as usize * 16;
            self.memory.bytes[at..at + 16].copy_from_slice(&raw);
        }
        self.write(0x1018 + 0x40 * queue, count);
    }

    /// The receive descriptor as the device has left it.
    pub(super) fn rx(&self, queue: u32, index: u32) -> Received {
        let at = RX_RING + queue as usize * 0x1000 + index as usize * 16;
        let raw: [u8; 16] = self.memory.bytes[at..at + 16].try_into().unwrap();
        let word = |at: usize| u32::from_le_bytes(raw[at..at + 4].try_into().unwrap());
        Received {
            kind: word(0),
            hash: word(4),
            status: word(8),
            len: (word(12) & 0xffff) as usize,
        }
    }

    pub(super) fn until_received(&mut self, queue: u32, index: u32) {
        self.until("a frame", |rig| rig.rx(queue, index).status & 1 != 0);
    }

    pub(super) fn buffer(&self, queue: u32, index: u32) -> &[u8] {
        let at = BUFFERS + (queue * ENTRIES + index) as usize * BUFFER;
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
        self.write(0x6018, self.next);
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

    /// Posts `frame` in pieces of the given lengths (the last takes the rest), with `command` and
    /// `options` in all of them and PAYLEN as `payload`; the index of its last descriptor.
    pub(super) fn post(
        &mut self,
        frame: &[u8],
        pieces: &[usize],
        command: u32,
        options: u32,
        payload: usize,
    ) -> u32 {
        let mut rest = frame;
        let mut place = PAYLOAD;
        for len in pieces {
            let (piece, behind) = rest.split_at(*len);
            let address = self.put(place, piece);
            self.push(data(
                address,
                *len,
                command & !LAST | IFCS,
                options,
                payload,
            ));
            place += len + 0x333;
            rest = behind;
        }
        let address = self.put(place, rest);
        self.push(data(address, rest.len(), command | LAST, options, payload))
    }

    /// Posts `frame` as a whole without offloads and waits until it is done.
    pub(super) fn send(&mut self, frame: &[u8]) {
        let last = self.post(frame, &[], 0, 0, frame.len());
        self.doorbell();
        self.until_done(last);
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
    pub(super) kind: u32,
    pub(super) hash: u32,
    pub(super) status: u32,
    pub(super) len: usize,
}

/// A data descriptor.
pub(super) fn data(
    address: u64,
    len: usize,
    command: u32,
    options: u32,
    payload: usize,
) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[..8].copy_from_slice(&address.to_le_bytes());
    let command = len as u32 | 3 << 20 | DEXT | command;
    raw[8..12].copy_from_slice(&command.to_le_bytes());
    let options = options | (payload as u32) << 14;
    raw[12..].copy_from_slice(&options.to_le_bytes());
    raw
}

/// A context descriptor: MACLEN, IPLEN and L4LEN; `kind` is TUCMD.
pub(super) fn context((mac, ip, l4): (u32, u32, u32), kind: u32, mss: u32, slot: u32) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[..4].copy_from_slice(&(ip | mac << 9).to_le_bytes());
    let command = kind | 2 << 20 | DEXT;
    raw[8..12].copy_from_slice(&command.to_le_bytes());
    let last = slot << 4 | l4 << 8 | mss << 16;
    raw[12..].copy_from_slice(&last.to_le_bytes());
    raw
}

/// Bytes that differ from place to place.
pub(super) fn pattern(len: usize, salt: u8) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ salt)
        .collect()
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

/// A frame with an IP packet: version 4 or 6, TCP or UDP (20 or 8 bytes of header), `payload`, and
/// all checksum fields zero.
pub(super) fn ip_frame(version: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = if protocol == 6 { 20 } else { 8 };
    let len = (header + payload.len()) as u16;
    let mut frame = Vec::new();
    frame.extend_from_slice(&MAC);
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 9]);
    if version == 4 {
        frame.extend_from_slice(&[8, 0, 0x45, 0]);
        frame.extend_from_slice(&(20 + len).to_be_bytes());
        frame.extend_from_slice(&[0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
        frame.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    } else {
        frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend_from_slice(&len.to_be_bytes());
        frame.extend_from_slice(&[protocol, 64]);
        frame.extend_from_slice(&[0xfd; 16]);
        frame.extend_from_slice(&[0xfe; 16]);
    }
    frame.extend_from_slice(&[0x30, 0x39, 0, 80]);
    if protocol == 6 {
        frame.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x99, 0xff, 0xff, 0, 0, 0, 0]);
    } else {
        frame.extend_from_slice(&len.to_be_bytes());
        frame.extend_from_slice(&[0, 0]);
    }
    frame.extend_from_slice(payload);
    frame
}

/// Offset of the transport header.
pub(super) fn transport(frame: &[u8]) -> usize {
    if frame[14] >> 4 == 4 { 34 } else { 54 }
}

/// The sum of the pseudo-header of the packet in `frame`; without the length if `zero_len`.
pub(super) fn pseudo_sum(frame: &[u8], zero_len: bool) -> u16 {
    let v4 = frame[14] >> 4 == 4;
    let (addresses, protocol) = if v4 {
        (&frame[26..34], frame[23])
    } else {
        (&frame[22..54], frame[20])
    };
    let len = if v4 {
        u16::from_be_bytes([frame[16], frame[17]]).wrapping_sub(20)
    } else {
        u16::from_be_bytes([frame[18], frame[19]])
    };
    let len = if zero_len { 0 } else { len };
    plain_sum(&[addresses, &[0, protocol], &len.to_be_bytes()])
}

/// Where the transport checksum is.
pub(super) fn field(frame: &[u8]) -> usize {
    let protocol = if frame[14] >> 4 == 4 {
        frame[23]
    } else {
        frame[20]
    };
    transport(frame) + if protocol == 6 { 16 } else { 6 }
}

/// Puts the pseudo-header sum where the device expects it.
pub(super) fn seed_checksum(frame: &mut [u8], zero_len: bool) {
    let sum = pseudo_sum(frame, zero_len);
    let at = field(frame);
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Fills in all checksums, as a sender without offload would.
pub(super) fn fill_checksums(frame: &mut [u8]) {
    if frame[14] >> 4 == 4 {
        let ip = !plain_sum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&ip.to_be_bytes());
    }
    let (at, from) = (field(frame), transport(frame));
    let pseudo = pseudo_sum(frame, false).to_be_bytes();
    let sum = !plain_sum(&[&pseudo, &frame[from..]]);
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Whether all checksums of a frame (not padded) are right.
pub(super) fn verifies(frame: &[u8]) -> bool {
    let pseudo = pseudo_sum(frame, false).to_be_bytes();
    let header = frame[14] >> 4 == 6 || plain_sum(&[&frame[14..34]]) == 0xffff;
    header && plain_sum(&[&pseudo, &frame[transport(frame)..]]) == 0xffff
}
