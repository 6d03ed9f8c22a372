//! The device for the unit tests, on the [platform that all drivers' tests have](pagewire_hal::fake):
//! a virtio-net device of a few registers. It moves no frames by itself; tests play the device's part
//! with [`Play`] and [`PlayRings`](crate::fake_ring::PlayRings).

use core::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::vec::Vec;

use pagewire_hal::barrier::has_unpublished_stores;
use pagewire_hal::fake::{self, FakeDevice, Machine};

use crate::Features;
use crate::fake_ring::{Chain, Flicker, PlayRings};

/// Ways in which the device may misbehave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A reset never ends.
    EndlessReset,
    /// PCIe transactions stay pending.
    StuckPending,
    /// The reset of a queue never ends.
    EndlessQueueReset,
    /// FEATURES_OK does not stick.
    RefusesFeatures,
    /// Bus mastering cannot be turned off.
    EndlessBusMastering,
    /// All ones.
    Removed,
}

pub(crate) const RX: usize = 0;
pub(crate) const TX: usize = 1;
/// Queues of eight pairs, and the control queue.
const QUEUES: usize = 17;
pub(crate) const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
const MSIX: usize = 0xD0;
const PCIE: usize = 0xE0;
const COMMON_BAR: u8 = 4;
const NOTIFY_BAR: u8 = 2;
const NET: u32 = 0x1000;
const NOTIFY: u32 = 0x40;
const MULTIPLIER: u32 = 4;

/// One queue as the device knows it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Queue {
    pub(crate) max: u16,
    pub(crate) size: u16,
    pub(crate) vector: u16,
    pub(crate) enabled: bool,
    pub(crate) resetting: bool,
    /// Descriptors, driver's part, device's part.
    pub(crate) address: [u64; 3],
    /// Buffers, or descriptors of a packed ring, fetched and used, modulo 2^16.
    pub(crate) fetched: u16,
    pub(crate) used: u16,
}

pub(crate) struct Device {
    machine: Machine<Fault>,
    pub(crate) flicker: Arc<Flicker>,
    pub(crate) offered: u64,
    pub(crate) accepted: u64,
    pub(crate) status: u8,
    select: [u32; 2],
    pub(crate) config_vector: u16,
    queue: u16,
    pub(crate) queues: [Queue; QUEUES],
    /// Of packed rings: id and length in descriptors of what was fetched and is not used.
    pub(crate) lens: [Vec<(u16, u16)>; QUEUES],
    /// Configuration of the network device.
    pub(crate) net: [u8; 12],
    /// Fields of that which read otherwise from the second time on: where they are, the value, and
    /// whether they have been read.
    pub(crate) fickle: Vec<(u32, u16, bool)>,
    /// Doorbells: the offset in the BAR and the value.
    pub(crate) bells: Vec<(u32, u16)>,
    /// What the control queue answers, if it does.
    pub(crate) answer: Option<u8>,
    pub(crate) pairs_in_use: u16,
    /// Queues that were reset alone, since the device was.
    pub(crate) queues_reset: Vec<usize>,
    /// Vectors that the device has resources for.
    pub(crate) resources: u16,
}

impl Deref for Device {
    type Target = Machine<Fault>;

    fn deref(&self) -> &Self::Target {
        &self.machine
    }
}

impl DerefMut for Device {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.machine
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeDevice for Device {
    type Fault = Fault;
    const REMOVED: Fault = Fault::Removed;
    const STUCK_PENDING: Fault = Fault::StuckPending;
    const PCIE: u16 = PCIE as u16;

    fn has_bar(&self, bar: u8) -> bool {
        matches!(bar, COMMON_BAR | NOTIFY_BAR)
    }

    fn read(&mut self, bar: u8, offset: u32, width: u32) -> u32 {
        self.read_bar(bar, offset, width)
    }

    fn write(&mut self, bar: u8, offset: u32, width: u32, value: u32) {
        self.write_bar(bar, offset, width, value);
    }

    fn take_config(&self, offset: u16, value: u32) -> u32 {
        let is_stuck = offset == 4 && self.has(Fault::EndlessBusMastering);
        value | (u32::from(is_stuck) * (self.config[1] & 4))
    }
}

impl Device {
    fn new() -> Self {
        let mut config = [0u32; 64];
        config[0] = 0x1041_1AF4;
        config[1] = 1 << 20;
        let mut at = 0x40;
        config[0x34 / 4] = at;
        for (kind, bar, offset, len) in [
            // Of a reserved type, and with a reserved BAR: both to be ignored.
            (77, 0, 0, 64),
            (1, 6, 0, 64),
            // In an I/O BAR: the next of its type is taken.
            (2, 0, 0, 64),
            (1, COMMON_BAR, 0, 60),
            (2, NOTIFY_BAR, NOTIFY, MULTIPLIER * QUEUES as u32),
            (4, COMMON_BAR, NET, 12),
        ] {
            let next = at + 20;
            let word = at as usize / 4;
            config[word] = 0x09 | next << 8 | 20 << 16 | kind << 24;
            config[word + 1] = u32::from(bar);
            config[word + 2] = offset;
            config[word + 3] = len;
            config[word + 4] = MULTIPLIER;
            at = next;
        }
        config[at as usize / 4] = 0x01 | (MSIX as u32) << 8;
        // Of 40 vectors.
        config[MSIX / 4] = 0x11 | (PCIE as u32) << 8 | 39 << 16;
        config[PCIE / 4] = 0x10;
        let mut net = [0; 12];
        net[..6].copy_from_slice(&MAC);
        net[6] = 1;
        net[10..].copy_from_slice(&1500u16.to_le_bytes());
        let queue = Queue {
            max: 256,
            ..Queue::default()
        };
        let flicker = Arc::<Flicker>::default();
        let look = flicker.clone();
        let mut machine = Machine::new(config, 64);
        machine.look = Some(Arc::new(move |address, pointer| {
            look.look(address, pointer)
        }));
        Self {
            machine,
            flicker,
            offered: Features::all().bits() & !Features::IN_ORDER.bits() | 1 << 17 | 1 << 15,
            accepted: 0,
            status: 0x0F,
            select: [0; 2],
            config_vector: 0xFFFF,
            queue: 0,
            queues: [queue; QUEUES],
            lens: [const { Vec::new() }; QUEUES],
            net,
            fickle: Vec::new(),
            bells: Vec::new(),
            answer: Some(0),
            pairs_in_use: 1,
            queues_reset: Vec::new(),
            resources: 64,
        }
    }

    fn reset(&mut self) {
        self.accepted = 0;
        self.queues_reset.clear();
        self.config_vector = 0xFFFF;
        self.lens = [const { Vec::new() }; QUEUES];
        self.pairs_in_use = 1;
        for queue in &mut self.queues {
            *queue = Queue {
                max: queue.max,
                size: queue.max,
                vector: 0xFFFF,
                ..Queue::default()
            };
        }
        self.status = if self.has(Fault::EndlessReset) { 4 } else { 0 };
    }

    fn selected(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(usize::from(self.queue))
    }

    fn read_bar(&mut self, bar: u8, offset: u32, width: u32) -> u32 {
        let ones = u32::MAX >> (32 - 8 * width);
        if self.has(Fault::Removed) || bar != COMMON_BAR {
            return ones;
        }
        if let Some(at) = offset.checked_sub(NET) {
            let field = match at {
                0..6 => Features::MAC,
                6 => Features::STATUS,
                8 => Features::MQ,
                _ => Features::MTU,
            };
            assert_ne!(self.offered & field.bits(), 0, "a field that is not there");
            if let Some(field) = self.fickle.iter_mut().find(|(field, ..)| *field == at)
                && core::mem::replace(&mut field.2, true)
            {
                return u32::from(field.1);
            }
            let bytes = self.net.get(at as usize..(at + width) as usize);
            return bytes.map_or(ones, |bytes| {
                let fold = |word: u32, byte: &u8| word << 8 | u32::from(*byte);
                bytes.iter().rev().fold(0, fold)
            });
        }
        let queue = self.queues.get(usize::from(self.queue)).copied();
        let queue = queue.unwrap_or_default();
        match (offset, width) {
            (4, 4) => match self.select[0] {
                0 => self.offered as u32,
                1 => (self.offered >> 32) as u32,
                _ => 0,
            },
            (16, 2) => u32::from(self.config_vector),
            (18, 2) => u32::from(2 * self.max_pairs() + 1),
            (20, 1) => u32::from(self.status),
            (21, 1) => 0,
            (24, 2) => u32::from(queue.size),
            (26, 2) => u32::from(queue.vector),
            (28, 2) => u32::from(queue.enabled),
            (30, 2) => u32::from(self.queue),
            (58, 2) => u32::from(queue.resetting),
            _ => panic!("a read of {width} bytes at {offset}"),
        }
    }

    fn write_bar(&mut self, bar: u8, offset: u32, width: u32, value: u32) {
        if self.has(Fault::Removed) {
            return;
        }
        if bar == NOTIFY_BAR {
            assert_eq!(width, 2, "a doorbell has 16 bits");
            assert!(!has_unpublished_stores(), "a doorbell before its barrier");
            assert_ne!(self.status & 4, 0, "no doorbell before DRIVER_OK");
            self.bells.push((offset, value as u16));
            if value as u16 == 2 * self.max_pairs() && self.answer.is_some() {
                self.obey();
            }
            return;
        }
        let vector = value as u16;
        match (offset, width) {
            (0, 4) => self.select[0] = value,
            (8, 4) => self.select[1] = value,
            (12, 4) => {
                let shift = 32 * self.select[1];
                self.accepted &= !(0xFFFF_FFFF << shift);
                self.accepted |= u64::from(value) << shift;
            }
            (16, 2) => self.config_vector = self.take_vector(vector),
            (20, 1) if value == 0 => self.reset(),
            (20, 1) => {
                assert_eq!(self.status & !(value as u8), 0, "a status bit is cleared");
                self.status = value as u8;
                let unknown = self.accepted & !self.offered != 0;
                if unknown || self.has(Fault::RefusesFeatures) {
                    self.status &= !8;
                }
            }
            (22, 2) => self.queue = value as u16,
            _ => self.write_queue(offset, width, value, vector),
        }
    }

    pub(crate) fn max_pairs(&self) -> u16 {
        u16::from_le_bytes([self.net[8], self.net[9]]).clamp(1, 8)
    }

    /// Takes the command from the control queue, and answers.
    fn obey(&mut self) {
        let index = usize::from(2 * self.max_pairs());
        let chain = self.fetch_next(index).expect("a command");
        let queue = &self.queues[index];
        let is_full = queue.fetched.wrapping_sub(queue.used) == queue.size;
        if is_full && self.accepted & Features::IN_ORDER.bits() != 0 {
            // As QEMU 11.1 does: what takes the whole ring is never used.
            return;
        }
        let [(command, 4, false), (answer, 1, true)] = chain.pieces[..] else {
            panic!("not a command of four bytes: {:?}", chain.pieces);
        };
        let byte = |at: u64| self.load::<u8>(command + at);
        assert_eq!([byte(0), byte(1)], [4, 0], "MQ_VQ_PAIRS_SET");
        let pairs = u16::from_le_bytes([byte(2), byte(3)]);
        assert!(pairs > 0 && pairs <= self.max_pairs());
        for queue in self.queues.iter().take(2 * usize::from(pairs)) {
            assert!(queue.enabled, "queues are configured before the command");
        }
        let said = self.answer.unwrap_or(0);
        self.store(answer, said);
        self.complete_next(index, u32::from(chain.head), 1, 1);
        if said == 0 {
            self.pairs_in_use = pairs;
        }
    }

    /// What an event that is to be mapped to `vector` reads back.
    fn take_vector(&self, vector: u16) -> u16 {
        assert!(vector < 40 || vector == 0xFFFF, "outside the table");
        if vector < self.resources {
            vector
        } else {
            0xFFFF
        }
    }

    fn reset_queue(&mut self, value: u32) {
        assert_ne!(self.accepted & Features::RING_RESET.bits(), 0);
        let resetting = self.has(Fault::EndlessQueueReset);
        let index = usize::from(self.queue);
        let queue = self.selected().expect("a queue that there is");
        assert!(value == 1 && queue.enabled, "{value} to queue {index}");
        *queue = Queue {
            max: queue.max,
            size: queue.max,
            vector: 0xFFFF,
            resetting,
            ..Queue::default()
        };
        self.lens[index].clear();
        self.queues_reset.push(index);
    }

    fn write_queue(&mut self, offset: u32, width: u32, value: u32, vector: u16) {
        assert_ne!(self.status & 8, 0, "no queue before FEATURES_OK");
        if offset == 58 {
            return self.reset_queue(value);
        }
        let vector = if offset == 26 {
            self.take_vector(vector)
        } else {
            0
        };
        let queue = self.selected().expect("a queue that there is");
        assert!(
            !queue.enabled,
            "fields are written before the queue is enabled"
        );
        match (offset, width) {
            (24, 2) => queue.size = value as u16,
            (26, 2) => queue.vector = vector,
            (28, 2) => {
                assert!(queue.size.is_power_of_two() && queue.size <= queue.max);
                queue.enabled = value == 1;
            }
            (32..56, 4) => {
                let shift = 8 * (offset & 4);
                let address = &mut queue.address[(offset as usize - 32) / 8];
                *address &= !(0xFFFF_FFFF << shift);
                *address |= u64::from(value) << shift;
            }
            _ => panic!("a write of {width} bytes at {offset}"),
        }
    }
}

/// A clone is the same device.
pub(crate) type Fake = fake::Fake<Device>;

/// The device's part, in the tests' hands.
pub(crate) trait Play {
    /// Says what the device offers.
    fn offer(&self, features: Features);

    /// Fetches and completes all that is available in the transmit queue, in order.
    fn transmit(&self) -> Vec<Chain>;

    /// The same of another pair's queue.
    fn transmit_on(&self, index: usize) -> Vec<Chain>;

    /// Fills the next receive buffer with a header of zeros and `frame`, and says that `len`
    /// bytes were written. False if there is no buffer.
    fn deliver(&self, frame: &[u8], len: u32) -> bool;

    /// The same with a header.
    fn deliver_with(&self, header: &[u8; 12], frame: &[u8], len: u32) -> bool;

    /// The same on another pair's queue. With MRG_RXBUF the frame goes into as many buffers as it
    /// takes; the header says how many, unless it says something already.
    fn deliver_on(&self, index: usize, header: &[u8; 12], frame: &[u8], len: u32) -> bool;

    /// Bytes of memory as the device sees them.
    fn bytes(&self, address: u64, len: usize) -> Vec<u8>;
}

impl Play for Fake {
    fn offer(&self, features: Features) {
        self.device().offered = features.bits();
    }

    fn transmit(&self) -> Vec<Chain> {
        self.transmit_on(TX)
    }

    fn transmit_on(&self, index: usize) -> Vec<Chain> {
        let mut chains = Vec::new();
        while let Some(chain) = self.fetch(index) {
            self.complete(index, u32::from(chain.head), 0);
            chains.push(chain);
        }
        chains
    }

    fn deliver(&self, frame: &[u8], len: u32) -> bool {
        self.deliver_with(&[0; 12], frame, len)
    }

    fn deliver_with(&self, header: &[u8; 12], frame: &[u8], len: u32) -> bool {
        self.deliver_on(RX, header, frame, len)
    }

    fn deliver_on(&self, index: usize, header: &[u8; 12], frame: &[u8], len: u32) -> bool {
        let merges = self.device().accepted & Features::MRG_RXBUF.bits() != 0;
        let bytes: Vec<u8> = header.iter().chain(frame).copied().collect();
        let mut used: Vec<(u64, u16, usize)> = Vec::new();
        let mut done = 0;
        while done < bytes.len() {
            assert!(
                used.is_empty() || merges,
                "the frame does not fit its buffer"
            );
            let Some(chain) = self.fetch(index) else {
                return false;
            };
            let [(address, room, true)] = chain.pieces[..] else {
                panic!("not a buffer: {:?}", chain.pieces);
            };
            let part = &bytes[done..bytes.len().min(done + room as usize)];
            self.device().store_bytes(address, part);
            used.push((address, chain.head, part.len()));
            done += part.len();
        }
        if merges && header[10..] == [0, 0] {
            let [low, high] = (used.len() as u16).to_le_bytes();
            self.device().store(used[0].0 + 10, low);
            self.device().store(used[0].0 + 11, high);
        }
        let lie = len.wrapping_sub(bytes.len() as u32);
        for (at, (_, head, part)) in used.iter().enumerate() {
            let lie = if at + 1 == used.len() { lie } else { 0 };
            self.complete(index, u32::from(*head), (*part as u32).wrapping_add(lie));
        }
        true
    }

    fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let device = self.device();
        (address..)
            .take(len)
            .map(|address| device.load(address))
            .collect()
    }
}
