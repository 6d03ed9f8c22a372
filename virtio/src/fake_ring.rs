//! The rings as the [fake device](crate::fake) sees them, in either format.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::vec::Vec;

use crate::Features;
use crate::fake::{Device, Fake, Queue};

/// A buffer that the device has fetched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Chain {
    /// Head, or buffer id.
    pub(crate) head: u16,
    pub(crate) indirect: bool,
    /// Address, length, whether the device writes it.
    pub(crate) pieces: Vec<(u64, u32, bool)>,
}

/// A device that shows a buffer as used and takes it back, by turns, whenever the driver looks at
/// one piece of memory.
#[derive(Default)]
pub(crate) struct Flicker {
    /// Where that is; 0 for nowhere.
    address: AtomicU64,
    /// The word that changes, and the bit.
    word: AtomicU32,
    bit: AtomicU32,
    looks: AtomicU32,
}

impl Flicker {
    /// To be called before the driver looks at the memory at `address`, which begins at `pointer`.
    pub(crate) fn look(&self, address: u64, pointer: NonNull<u8>) {
        if self.address.load(Ordering::Relaxed) != address {
            return;
        }
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        assert!(looks < 1000, "the driver looks for ever");
        let word = self.word.load(Ordering::Relaxed) as usize;
        // SAFETY: `flicker` was told of a ring that has this word.
        let word = unsafe { pointer.cast::<u32>().add(word) };
        // SAFETY: it is mapped, as its owner asks; volatile as the driver's side is.
        let now = unsafe { word.read_volatile() };
        // SAFETY: as above.
        unsafe { word.write_volatile(now ^ self.bit.load(Ordering::Relaxed)) };
    }
}

impl Device {
    fn is_packed(&self) -> bool {
        self.accepted & Features::RING_PACKED.bits() != 0
    }

    /// Address, length, flags, next.
    fn descriptor(&self, table: u64, index: u16) -> (u64, u32, u16, u16) {
        let at = table + 16 * u64::from(index);
        let flags: u32 = self.load(at + 12);
        let len = u32::from_le(self.load(at + 8));
        let (flags, next) = (flags as u16, (flags >> 16) as u16);
        (u64::from_le(self.load(at)), len, flags, next)
    }

    fn split_chain(&self, queue: &Queue, head: u16) -> Chain {
        assert!(head < queue.size, "head {head}");
        let (mut table, mut index) = (queue.address[0], head);
        let mut limit = queue.size;
        let (address, len, flags, _) = self.descriptor(table, index);
        let indirect = flags & 4 != 0;
        if indirect {
            assert_eq!(flags, 4, "nothing else beside INDIRECT");
            assert_eq!(len % 16, 0);
            (table, index, limit) = (address, 0, (len / 16) as u16);
            assert!(limit <= queue.size, "longer than the queue");
        }
        let mut pieces = Vec::new();
        loop {
            assert!(index < limit, "index {index} in a table of {limit}");
            assert!(pieces.len() < usize::from(limit), "a loop in the chain");
            let (address, len, flags, next) = self.descriptor(table, index);
            assert!(len > 0, "an empty piece");
            pieces.push((address, len, flags & 2 != 0));
            if flags & 1 == 0 {
                break;
            }
            index = next;
        }
        Chain {
            head,
            indirect,
            pieces,
        }
    }

    fn fetch_split(&mut self, index: usize) -> Option<Chain> {
        let queue = self.queues[index];
        let available: u16 = self.load(queue.address[1] + 2);
        if u16::from_le(available) == queue.fetched {
            return None;
        }
        let place = u64::from(queue.fetched & (queue.size - 1));
        let head: u16 = self.load(queue.address[1] + 4 + 2 * place);
        self.queues[index].fetched = queue.fetched.wrapping_add(1);
        Some(self.split_chain(&queue, u16::from_le(head)))
    }

    /// Address, length, id, flags of the packed descriptor at a position.
    fn packed(&self, queue: &Queue, position: u16) -> (u64, u32, u16, u16) {
        let at = queue.address[0] + 16 * u64::from(position & (queue.size - 1));
        let word = u32::from_le(self.load(at + 12));
        let len = u32::from_le(self.load(at + 8));
        let address = u64::from_le(self.load(at));
        (address, len, word as u16, (word >> 16) as u16)
    }

    fn fetch_packed(&mut self, index: usize) -> Option<Chain> {
        let queue = self.queues[index];
        let is_available = |position: u16, flags: u16| {
            let wrap = position & queue.size == 0;
            (flags & 1 << 7 != 0) == wrap && (flags & 1 << 15 != 0) != wrap
        };
        let mut position = queue.fetched;
        let (address, len, id, flags) = self.packed(&queue, position);
        if !is_available(position, flags) {
            return None;
        }
        let mut pieces = Vec::new();
        let indirect = flags & 4 != 0;
        let mut head = id;
        if indirect {
            assert_eq!(flags & 3, 0, "nothing else beside INDIRECT");
            assert!(len > 0 && len.is_multiple_of(16));
            assert!(len / 16 <= u32::from(queue.size), "longer than the queue");
            for at in (address..address + u64::from(len)).step_by(16) {
                let flags = u32::from_le(self.load(at + 12)) >> 16;
                assert_eq!(flags & !2, 0, "WRITE alone is valid in a table");
                let len = u32::from_le(self.load(at + 8));
                pieces.push((u64::from_le(self.load(at)), len, flags & 2 != 0));
            }
            position = position.wrapping_add(1);
        } else {
            loop {
                let (address, len, id, flags) = self.packed(&queue, position);
                assert!(is_available(position, flags), "a part of a list");
                assert!(
                    pieces.len() < usize::from(queue.size),
                    "longer than the queue"
                );
                assert!(len > 0, "an empty piece");
                pieces.push((address, len, flags & 2 != 0));
                position = position.wrapping_add(1);
                head = id;
                if flags & 1 == 0 {
                    break;
                }
            }
        }
        let count = position.wrapping_sub(queue.fetched);
        self.queues[index].fetched = position;
        self.lens[index].push((head, count));
        Some(Chain {
            head,
            indirect,
            pieces,
        })
    }

    fn complete_split(&mut self, index: usize, id: u32, len: u32, count: u16) {
        let queue = self.queues[index];
        let at = queue.address[2] + 4 + 8 * u64::from(queue.used & (queue.size - 1));
        self.store(at, id.to_le());
        self.store(at + 4, len.to_le());
        let used = queue.used.wrapping_add(count);
        self.store(queue.address[2] + 2, used.to_le());
        self.queues[index].used = used;
    }

    fn complete_packed(&mut self, index: usize, id: u32, len: u32, count: u16) {
        let queue = self.queues[index];
        let lens = &mut self.lens[index];
        let known = lens.iter().position(|(known, _)| u32::from(*known) == id);
        // What lies about its id moves on by one.
        let skipped: u16 = match known {
            Some(place) if count == 1 => lens.remove(place).1,
            Some(_) => lens.drain(..usize::from(count)).map(|(_, n)| n).sum(),
            None => 1,
        };
        let at = queue.address[0] + 16 * u64::from(queue.used & (queue.size - 1));
        self.store(at + 8, len.to_le());
        let wrap = queue.used & queue.size == 0;
        let flags: u16 = if wrap { 1 << 7 | 1 << 15 } else { 0 };
        self.store(at + 12, (id as u16).to_le());
        self.store(at + 14, flags.to_le());
        self.queues[index].used = queue.used.wrapping_add(skipped);
    }
}

impl Device {
    /// See [`Fake::fetch`].
    pub(crate) fn fetch_next(&mut self, index: usize) -> Option<Chain> {
        assert!(self.queues[index].enabled, "queue {index} is not enabled");
        if self.is_packed() {
            self.fetch_packed(index)
        } else {
            self.fetch_split(index)
        }
    }

    /// See [`Fake::complete_many`].
    pub(crate) fn complete_next(&mut self, index: usize, id: u32, len: u32, count: u16) {
        if self.is_packed() {
            self.complete_packed(index, id, len, count);
        } else {
            self.complete_split(index, id, len, count);
        }
    }
}

/// The device's part in the rings, in the tests' hands.
pub(crate) trait PlayRings {
    /// The next buffer that is available in queue `index`.
    fn fetch(&self, index: usize) -> Option<Chain>;

    /// Says that the buffer `id`, with `len` bytes written, and `count - 1` before it are used.
    fn complete_many(&self, index: usize, id: u32, len: u32, count: u16);

    /// Says that the buffer `id` is used.
    fn complete(&self, index: usize, id: u32, len: u32);

    /// Sets where the device wants to be notified (in a packed ring with the wrap counter in bit
    /// 15), and its flags.
    fn suppress(&self, index: usize, event: u16, flags: u16);

    /// Lets the first buffer of queue `index`, which was used, come and go: see [`Flicker`].
    fn flicker(&self, index: usize);

    /// Where the driver wants to be interrupted.
    fn used_event(&self, index: usize) -> u16;
}

impl PlayRings for Fake {
    fn fetch(&self, index: usize) -> Option<Chain> {
        self.device().fetch_next(index)
    }

    fn complete_many(&self, index: usize, id: u32, len: u32, count: u16) {
        self.device().complete_next(index, id, len, count);
    }

    fn complete(&self, index: usize, id: u32, len: u32) {
        self.complete_many(index, id, len, 1);
    }

    fn suppress(&self, index: usize, event: u16, flags: u16) {
        let device = self.device();
        let queue = device.queues[index];
        if device.is_packed() {
            device.store(queue.address[2], event.to_le());
            device.store(queue.address[2] + 2, flags.to_le());
            return;
        }
        let end = queue.address[2] + 4 + 8 * u64::from(queue.size);
        device.store(end, event.to_le());
        device.store(queue.address[2], flags.to_le());
    }

    fn flicker(&self, index: usize) {
        let device = self.device();
        let queue = device.queues[index];
        // The index of the used ring, or the used bit of the first descriptor.
        let (address, word, bit) = if device.is_packed() {
            (queue.address[0], 3, 1u32 << 31)
        } else {
            // The memory begins at a multiple of 16, the ring somewhere in it.
            let lead = queue.address[2] % 16;
            (queue.address[2] - lead, lead as u32 / 4, 1 << 16)
        };
        device.flicker.word.store(word, Ordering::Relaxed);
        device.flicker.bit.store(bit.to_le(), Ordering::Relaxed);
        device.flicker.address.store(address, Ordering::Relaxed);
    }

    fn used_event(&self, index: usize) -> u16 {
        let device = self.device();
        let queue = device.queues[index];
        if device.is_packed() {
            let flags: u16 = device.load(queue.address[1] + 2);
            assert_eq!(u16::from_le(flags), 2, "for one position");
            return u16::from_le(device.load(queue.address[1]));
        }
        u16::from_le(device.load(queue.address[1] + 4 + 2 * u64::from(queue.size)))
    }
}
