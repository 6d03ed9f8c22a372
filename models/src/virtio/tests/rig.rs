//! The [rig](crate::rig) of virtio-net, and a driver made by hand for both ring formats.

use std::collections::VecDeque;

use super::super::{ModelConfig, VirtioNet};
use crate::Device;
pub(super) use crate::rig::MEMORY;
use crate::rig::{self, Memory};

const LEN: usize = 4 << 20;
/// Where tables of indirect descriptors are, by buffer id.
const TABLES: usize = 0x8_0000;
/// Where tests put payload and receive buffers.
pub(super) const PAYLOAD: usize = 0x10_0000;
pub(super) const BUFFERS: usize = 0x20_0000;

pub(super) const PACKED: u64 = 1 << 34;
pub(super) const INDIRECT: u64 = 1 << 28;
pub(super) const EVENTS: u64 = 1 << 29;
pub(super) const IN_ORDER: u64 = 1 << 35;
pub(super) const MERGE: u64 = 1 << 15;
pub(super) const VERSION_1: u64 = 1 << 32;
pub(super) const PLATFORM: u64 = 1 << 33;
pub(super) const RING_RESET: u64 = 1 << 40;
/// What every driver accepts.
pub(super) const LEAST: u64 = VERSION_1 | PLATFORM;

/// A piece of a buffer: offset into memory, length, whether the device writes.
pub(super) type Piece = (usize, usize, bool);

/// The driver's side of a ring.
pub(super) struct Ring {
    index: u16,
    /// Offset in BAR 4.
    doorbell: u32,
    pub(super) size: u16,
    features: u64,
    /// Offsets of the three parts.
    pub(super) table: usize,
    pub(super) driver: usize,
    pub(super) device: usize,
    free: VecDeque<u16>,
    /// Id, descriptors and (split) their indices, of what the device has, oldest first.
    flying: VecDeque<(u16, Vec<u16>)>,
    next: u16,
    wrap: bool,
    last: u16,
    last_wrap: bool,
}

impl Ring {
    fn new(index: u16, size: u16, features: u64) -> Self {
        let base = 0x4000 * usize::from(index);
        Self {
            index,
            doorbell: 0,
            size,
            features,
            table: base,
            driver: base + 0x1000,
            device: base + 0x2000,
            free: (0..size).collect(),
            flying: VecDeque::new(),
            next: 0,
            wrap: true,
            last: 0,
            last_wrap: true,
        }
    }

    fn is_packed(&self) -> bool {
        self.features & PACKED != 0
    }

    fn put(&self, memory: &mut Memory, at: usize, piece: Piece, flags: u16, link: u16) {
        let (place, len, write) = piece;
        let flags = flags | if write { 2 } else { 0 };
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&(MEMORY + place as u64).to_le_bytes());
        raw[8..12].copy_from_slice(&(len as u32).to_le_bytes());
        let (first, second) = if self.is_packed() {
            (link, flags)
        } else {
            (flags, link)
        };
        raw[12..14].copy_from_slice(&first.to_le_bytes());
        raw[14..].copy_from_slice(&second.to_le_bytes());
        memory.put(at, &raw);
    }

    /// Whether a buffer of `count` descriptors fits.
    pub(super) fn fits(&self, count: usize) -> bool {
        self.free.len() >= count
    }

    /// Makes a buffer available; its id.
    pub(super) fn push(&mut self, memory: &mut Memory, pieces: &[Piece], indirect: bool) -> u16 {
        if indirect {
            let id = self.free[0];
            let table = TABLES + usize::from(self.index) * 0x2_0000 + usize::from(id) * 0x200;
            for (index, piece) in pieces.iter().enumerate() {
                let more = u16::from(index + 1 < pieces.len() && !self.is_packed());
                let link = if more == 1 { index as u16 + 1 } else { 0 };
                self.put(memory, table + 16 * index, *piece, more, link);
            }
            return self.push_flagged(memory, &[(table, 16 * pieces.len(), false)], 4);
        }
        self.push_flagged(memory, pieces, 0)
    }

    /// The same with extra flags in every descriptor.
    pub(super) fn push_flagged(
        &mut self,
        memory: &mut Memory,
        pieces: &[Piece],
        extra: u16,
    ) -> u16 {
        let indices: Vec<u16> = self.free.drain(..pieces.len()).collect();
        let id = indices[0];
        if self.is_packed() {
            let first = usize::from(self.next);
            let mut head = 0;
            for (index, piece) in pieces.iter().enumerate() {
                let more = u16::from(index + 1 < pieces.len());
                let available = if self.wrap { 1 << 7 } else { 1 << 15 };
                let at = self.table + 16 * usize::from(self.next);
                let flags = extra | more | available;
                // The first one becomes available last.
                let hidden = if index == 0 {
                    flags ^ (1 << 7 | 1 << 15)
                } else {
                    flags
                };
                self.put(memory, at, *piece, hidden, id);
                if index == 0 {
                    head = flags | if piece.2 { 2 } else { 0 };
                }
                self.next += 1;
                if self.next == self.size {
                    self.next = 0;
                    self.wrap = !self.wrap;
                }
            }
            memory.put_half(self.table + 16 * first + 14, head);
        } else {
            for (index, piece) in pieces.iter().enumerate() {
                let next = indices.get(index + 1).copied();
                let at = self.table + 16 * usize::from(indices[index]);
                let flags = extra | u16::from(next.is_some());
                self.put(memory, at, *piece, flags, next.unwrap_or(0));
            }
            let slot = self.driver + 4 + 2 * usize::from(self.next % self.size);
            memory.put_half(slot, id);
            self.next = self.next.wrapping_add(1);
            memory.put_half(self.driver + 2, self.next);
        }
        self.flying.push_back((id, indices));
        id
    }

    /// Whether the device wants a doorbell for the last buffer, of `slots` slots.
    pub(super) fn wants_doorbell(&self, memory: &Memory, slots: u16) -> bool {
        let passes =
            |event: u16, new: u16, added: u16| new.wrapping_sub(event).wrapping_sub(1) < added;
        if self.is_packed() {
            let flags = memory.half(self.device + 2);
            let place = memory.half(self.device);
            let behind = (place >> 15 == 1) != self.wrap;
            let event = (place & 0x7fff).wrapping_sub(if behind { self.size } else { 0 });
            flags == 0 || flags == 2 && passes(event, self.next, slots)
        } else if self.features & EVENTS != 0 {
            let event = memory.half(self.device + 4 + 8 * usize::from(self.size));
            passes(event, self.next, 1)
        } else {
            memory.half(self.device) == 0
        }
    }

    /// The next used entry: id and length. With IN_ORDER all buffers up to it are done.
    pub(super) fn pop(&mut self, memory: &Memory) -> Vec<(u16, usize)> {
        let (id, len) = if self.is_packed() {
            let at = self.table + 16 * usize::from(self.last);
            let flags = memory.half(at + 14);
            let (available, used) = (flags & 1 << 7 != 0, flags & 1 << 15 != 0);
            if available != used || used != self.last_wrap {
                return Vec::new();
            }
            (memory.half(at + 12), memory.half(at + 8))
        } else {
            if memory.half(self.device + 2) == self.last {
                return Vec::new();
            }
            let at = self.device + 4 + 8 * usize::from(self.last % self.size);
            (memory.half(at), memory.half(at + 4))
        };
        let mut done = Vec::new();
        loop {
            let place = if self.features & IN_ORDER != 0 {
                0
            } else {
                self.flying
                    .iter()
                    .position(|(other, _)| *other == id)
                    .unwrap()
            };
            let (other, indices) = self.flying.remove(place).unwrap();
            let slots = if self.is_packed() {
                indices.len() as u16
            } else {
                1
            };
            self.last = self.last.wrapping_add(slots);
            if self.is_packed() && self.last >= self.size {
                self.last -= self.size;
                self.last_wrap = !self.last_wrap;
            }
            self.free.extend(indices);
            done.push((other, usize::from(len)));
            if other == id {
                return done;
            }
        }
    }

    /// Asks for an interrupt at the next used buffer, or for none; with EVENT_IDX by index.
    pub(super) fn ask(&self, memory: &mut Memory, wanted: bool) {
        if self.is_packed() {
            if wanted && self.features & EVENTS != 0 {
                memory.put_half(self.driver, self.last | u16::from(self.last_wrap) << 15);
                memory.put_half(self.driver + 2, 2);
            } else {
                memory.put_half(self.driver + 2, u16::from(!wanted));
            }
        } else if self.features & EVENTS != 0 {
            let event = if wanted {
                self.last
            } else {
                self.last.wrapping_sub(1)
            };
            memory.put_half(self.driver + 4 + 2 * usize::from(self.size), event);
        } else {
            memory.put_half(self.driver, u16::from(!wanted));
        }
    }
}

pub(super) type Rig = rig::Rig<VirtioNet, Vec<Ring>>;

impl Rig {
    /// A device as it comes from power-up, with bus mastering and MSI-X on.
    pub(super) fn cold(config: ModelConfig) -> Self {
        let mut rig = Self::of(config.seed, LEN, |wire| VirtioNet::new(config, wire));
        rig.device.config_write(4, 6);
        rig.device.config_write(0xe0, 1 << 31);
        rig
    }

    /// A device with `features` negotiated and all queues of `size`, driven.
    pub(super) fn warm(config: ModelConfig, features: u64, size: u16) -> Self {
        let mut rig = Self::cold(config);
        assert!(rig.negotiate(features), "seed {}", rig.seed);
        rig.enable_all(size);
        rig.set_status(15);
        rig.expect_clean();
        rig
    }

    pub(super) fn read(&mut self, offset: u32, width: u32) -> u32 {
        let now = self.time();
        if width == 4 {
            return self.device.read(4, offset, now);
        }
        self.device
            .read_narrow(4, offset, width, now)
            .unwrap()
            .into()
    }

    pub(super) fn write(&mut self, offset: u32, width: u32, value: u32) {
        let now = self.time();
        if width == 4 {
            self.device.write(4, offset, value, now);
        } else {
            assert!(
                self.device
                    .write_narrow(4, offset, width, value as u16, now)
            );
        }
    }

    pub(super) fn status(&mut self) -> u8 {
        self.read(0x14, 1) as u8
    }

    pub(super) fn set_status(&mut self, value: u8) {
        self.write(0x14, 1, value.into());
    }

    pub(super) fn offered(&mut self) -> u64 {
        self.write(0, 4, 0);
        let low = self.read(4, 4);
        self.write(0, 4, 1);
        u64::from(low) | u64::from(self.read(4, 4)) << 32
    }

    /// Reset up to FEATURES_OK; whether that was granted.
    pub(super) fn negotiate(&mut self, features: u64) -> bool {
        self.set_status(0);
        self.until("reset", |rig| rig.status() == 0);
        self.set_status(1);
        self.set_status(3);
        self.write(8, 4, 0);
        self.write(12, 4, features as u32);
        self.write(8, 4, 1);
        self.write(12, 4, (features >> 32) as u32);
        self.set_status(11);
        self.status() & 8 != 0
    }

    pub(super) fn enable_all(&mut self, size: u16) {
        let features = self.device.negotiated();
        let pairs = if features & 1 << 22 != 0 {
            self.device.config().pairs
        } else {
            1
        };
        let count = 2 * pairs + u16::from(features & 1 << 17 != 0);
        self.rings.clear();
        for index in 0..count {
            self.rings.push(Ring::new(index, size, features));
            self.enable(index);
        }
    }

    /// Enables queue `index` with the ring that it has here; its vector is its number and one.
    pub(super) fn enable(&mut self, index: u16) {
        let ring = &self.rings[usize::from(index)];
        let (size, parts) = (ring.size, [ring.table, ring.driver, ring.device]);
        self.write(0x16, 2, index.into());
        self.write(0x18, 2, size.into());
        self.write(0x1a, 2, u32::from(index) + 1);
        for (part, at) in parts.into_iter().zip([0x20, 0x28, 0x30]) {
            let address = MEMORY + part as u64;
            self.write(at, 4, address as u32);
            self.write(at + 4, 4, (address >> 32) as u32);
        }
        self.write(0x1c, 2, 1);
        let doorbell = 0x3000 + 4 * self.read(0x1e, 2);
        self.rings[usize::from(index)].doorbell = doorbell;
    }

    /// Forgets the ring of a queue; the next one has `size` descriptors.
    pub(super) fn renew(&mut self, index: u16, size: u16) {
        let ring = &mut self.rings[usize::from(index)];
        *ring = Ring {
            doorbell: ring.doorbell,
            ..Ring::new(index, size, ring.features)
        };
    }

    /// For a driver that does not believe what it reads: doorbells in the order of the queues.
    pub(super) fn presume_doorbells(&mut self) {
        for (ring, place) in self.rings.iter_mut().zip(0..) {
            ring.doorbell = 0x3000 + 4 * place;
        }
    }

    pub(super) fn doorbell(&mut self, queue: u16) {
        let offset = self.rings[usize::from(queue)].doorbell;
        self.write(offset, 2, queue.into());
    }

    /// Makes a buffer available and rings.
    pub(super) fn push(&mut self, queue: u16, pieces: &[Piece], indirect: bool) -> u16 {
        let id = self.rings[usize::from(queue)].push(&mut self.memory, pieces, indirect);
        self.doorbell(queue);
        id
    }

    /// Makes a buffer available and rings if the device wants that.
    pub(super) fn push_politely(&mut self, queue: u16, pieces: &[Piece], indirect: bool) {
        let ring = &mut self.rings[usize::from(queue)];
        ring.push(&mut self.memory, pieces, indirect);
        let slots = if indirect { 1 } else { pieces.len() as u16 };
        if ring.wants_doorbell(&self.memory, slots) {
            self.doorbell(queue);
        }
    }

    pub(super) fn pop(&mut self, queue: u16) -> Vec<(u16, usize)> {
        self.rings[usize::from(queue)].pop(&self.memory)
    }

    /// Steps until a buffer of `queue` is used.
    pub(super) fn wait(&mut self, queue: u16) -> Vec<(u16, usize)> {
        let mut done = Vec::new();
        self.until("used", |rig| {
            done = rig.pop(queue);
            !done.is_empty()
        });
        done
    }

    /// Puts header and frame into memory and makes them available in one piece.
    pub(super) fn send(&mut self, header: [u8; 12], frame: &[u8]) {
        self.memory.put(PAYLOAD, &header);
        self.memory.put(PAYLOAD + 12, frame);
        self.push(1, &[(PAYLOAD, 12 + frame.len(), false)], false);
    }
}

/// A virtio_net_hdr for transmission.
pub(super) fn header(flags: u8, kind: u8, numbers: [u16; 4]) -> [u8; 12] {
    let mut raw = [0; 12];
    raw[0] = flags;
    raw[1] = kind;
    for (index, number) in numbers.into_iter().enumerate() {
        raw[2 + 2 * index..4 + 2 * index].copy_from_slice(&number.to_le_bytes());
    }
    raw
}

/// A device without latitude.
pub(super) fn plain() -> ModelConfig {
    ModelConfig {
        latitude: super::super::Latitude::none(),
        ..ModelConfig::default()
    }
}
