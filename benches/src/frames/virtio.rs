//! What stands for a virtio-net device with one pair of queues, in either format of rings.

use super::Device;
use crate::platform::{Freezer, View};

/// Registers of the model's common configuration, which begins its BAR (virtio 1.3, section
/// 4.1.4.3).
const QUEUE_SELECT: u32 = 22;
const QUEUE_SIZE: u32 = 24;
const QUEUE_DESC: u32 = 32;
const QUEUE_DRIVER: u32 = 40;
const QUEUE_DEVICE: u32 = 48;

const NEXT: u16 = 1;
/// Of a packed ring: equal to the wrap counter in what is available, and in what is used.
const AVAILABLE: u16 = 1 << 7;
/// Of a packed ring: unequal to it in what is available, equal in what is used.
const USED: u16 = 1 << 15;
/// Bytes before a frame.
const HEADER_LEN: usize = 12;
/// In the first byte of the header: the checksum was verified.
const DATA_VALID: u8 = 2;

/// One queue.
#[derive(Debug)]
struct Queue {
    descriptors: View,
    driver: View,
    device: View,
    size: usize,
    packed: bool,
    /// Split: buffers used. Packed: position of the next descriptor.
    next: usize,
}

impl Queue {
    fn new(freezer: &Freezer, number: u32, packed: bool) -> Self {
        let mut selected = 0;
        let mut found = [0u32; 7];
        for write in freezer.writes() {
            match write.offset {
                QUEUE_SELECT => selected = write.value,
                QUEUE_SIZE if selected == number => found[6] = write.value,
                QUEUE_DESC..56 if selected == number => {
                    found[(write.offset - QUEUE_DESC) as usize / 4] = write.value;
                }
                _ => {}
            }
        }
        let memory = |register: u32| {
            let index = (register - QUEUE_DESC) as usize / 4;
            freezer.memory(u64::from(found[index]) | u64::from(found[index + 1]) << 32)
        };
        Self {
            descriptors: memory(QUEUE_DESC),
            driver: memory(QUEUE_DRIVER),
            device: memory(QUEUE_DEVICE),
            size: found[6] as usize,
            packed,
            next: 0,
        }
    }

    /// Whether the wrap counter is 1 at the next position of a packed ring.
    fn wraps(&self) -> bool {
        self.next & self.size == 0
    }

    /// Uses the next buffer, if there is one, as if `len` bytes had been written to it.
    fn use_next(&mut self, len: u32) -> bool {
        if self.packed {
            self.use_packed(len)
        } else {
            self.use_split(len)
        }
    }

    fn use_split(&mut self, len: u32) -> bool {
        let index = self.next as u16;
        if self.driver.read::<u16>(2) == index {
            // With EVENT_IDX the device wants to hear of the next one.
            self.device.write(4 + 8 * self.size, index);
            return false;
        }
        let place = self.next % self.size;
        let head = self.driver.read::<u16>(4 + 2 * place);
        self.device.write(4 + 8 * place, u32::from(head));
        self.device.write(8 + 8 * place, len);
        self.next += 1;
        self.device.write(2, self.next as u16);
        true
    }

    fn use_packed(&mut self, len: u32) -> bool {
        let flags = |queue: &Self| {
            let at = 16 * (queue.next % queue.size) + 14;
            queue.descriptors.read::<u16>(at)
        };
        let first = 16 * (self.next % self.size);
        let wraps = self.wraps();
        let available = if wraps { AVAILABLE } else { USED };
        if flags(self) & (AVAILABLE | USED) != available {
            return false;
        }
        while flags(self) & NEXT != 0 {
            self.next += 1;
        }
        let id = self
            .descriptors
            .read::<u16>(16 * (self.next % self.size) + 12);
        self.next += 1;
        let used = if wraps { AVAILABLE | USED } else { 0 };
        self.descriptors.write(first + 8, len);
        self.descriptors.write(first + 12, id);
        self.descriptors.write(first + 14, used);
        true
    }
}

/// The device.
#[derive(Debug)]
pub struct Virtio {
    receive: Queue,
    transmit: Queue,
}

impl Virtio {
    /// A device for which queues have been set up; its receive buffers hold a frame for station
    /// `mac`.
    #[must_use]
    pub fn new(freezer: &Freezer, packed: bool, mac: [u8; 6]) -> Self {
        let receive = Queue::new(freezer, 0, packed);
        for index in 0..receive.size {
            let address = receive.descriptors.read::<u64>(16 * index);
            let buffer = freezer.memory(address);
            buffer.write(0, DATA_VALID);
            buffer.write(HEADER_LEN - 2, 1u16);
            for (offset, byte) in (HEADER_LEN..).zip(mac) {
                buffer.write(offset, byte);
            }
        }
        Self {
            receive,
            transmit: Queue::new(freezer, 1, packed),
        }
    }
}

impl Device for Virtio {
    fn complete(&mut self) {
        while self.transmit.use_next(0) {}
    }

    fn deliver(&mut self, lens: &[u32]) {
        for len in lens {
            self.receive.use_next(*len + HEADER_LEN as u32);
        }
    }
}
