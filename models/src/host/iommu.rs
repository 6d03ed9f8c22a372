//! The address space of the devices: from device addresses to CPU pointers.
//!
//! Two windows that do not overlap:
//!
//! - *Runs*, from 2^33 to 2^40: mappings that are contiguous for the device, each at an address
//!   drawn at random with unmapped space around it.
//! - *Slots*, from 2^40 on: one granule each, drawn at random. The granule after each slot
//!   belongs to no slot and is never mapped, so two granules are never neighbours and every
//!   overrun faults.
//!
//! Both begin above 4 GiB, so that an address of which a driver has lost the upper half faults.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::Arc;

use fastrand::Rng;
use pagewire_hal::{DeviceAddress, Granule, Lendable};

use super::special::Specials;
use crate::DmaFault;

const RUNS: u64 = 1 << 33;
const SLOTS: u64 = 1 << 40;
/// Unmapped bytes on both sides of a run.
const GUARD: u64 = 64 * 1024;
/// Granules above this size are treated as contiguous: a region is one run.
const LARGEST_GRANULE: u8 = 30;
/// Fewest slots to draw from, so that also the addresses of a small region are scattered.
const FEWEST_SLOTS: usize = 4096;
const TRIES: usize = 64;

/// Whose memory a mapping is, which decides what the device may do there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A registered region: read only.
    Region,
    /// Memory that the driver allocated: read and write.
    Memory,
}

/// Where an access of a device ends up: valid as long as the IOMMU is borrowed.
#[derive(Clone, Copy)]
pub(super) struct Reach {
    pub(super) pointer: NonNull<u8>,
    pub(super) kind: Kind,
}

/// One granule: bytes `start..end` of it are mapped, the first of them is at `pointer`.
#[derive(Clone, Copy)]
struct Slot {
    pointer: NonNull<u8>,
    start: u32,
    end: u32,
}

#[derive(Clone, Copy)]
struct Run {
    pointer: NonNull<u8>,
    len: u64,
    kind: Kind,
}

pub(super) struct Iommu {
    rng: Rng,
    granule: Granule,
    slots: Vec<Option<Slot>>,
    slots_used: usize,
    runs: BTreeMap<u64, Run>,
    special: Specials,
}

// SAFETY: the pointers are dereferenced only through `resolve`, by a holder of a borrow of the
// IOMMU, and whoever maps memory keeps it valid, for access from any thread, until it is
// unmapped.
unsafe impl Send for Iommu {}
// SAFETY: as above; `resolve` changes nothing.
unsafe impl Sync for Iommu {}

/// The address space is full, or so crowded that no place was found by drawing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Exhausted;

impl Iommu {
    pub(super) fn new(seed: u64, granule: Granule) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            granule,
            slots: Vec::new(),
            slots_used: 0,
            runs: BTreeMap::new(),
            special: Specials::default(),
        }
    }

    /// Those regions whose bytes are not simply read where they are.
    #[inline]
    pub(super) fn special(&self) -> &Specials {
        &self.special
    }

    /// From now on reads of the memory of `owner` go through it.
    pub(super) fn add_special(&mut self, owner: Arc<dyn Lendable>) {
        self.special.add(owner);
    }

    /// Ends that, if it was so.
    pub(super) fn remove_special(&mut self, owner: &Arc<dyn Lendable>) {
        self.special.remove(owner);
    }

    /// Whether a region is one run.
    pub(super) fn is_contiguous(&self) -> bool {
        self.granule.log2() > LARGEST_GRANULE
    }

    /// Finds the `len` bytes at `address`, which always lie in one mapping, as no two mappings
    /// are neighbours.
    #[inline]
    pub(super) fn resolve(&self, address: u64, len: usize, write: bool) -> Result<Reach, DmaFault> {
        let (pointer, kind, rest) = if address >= SLOTS {
            self.find_slot(address)
        } else {
            self.find_run(address)
        }
        .ok_or(DmaFault { address, write })?;
        if write && kind == Kind::Region {
            return Err(DmaFault { address, write });
        }
        if len as u64 > rest {
            let address = address.wrapping_add(rest);
            return Err(DmaFault { address, write });
        }
        Ok(Reach { pointer, kind })
    }

    #[inline]
    fn find_slot(&self, address: u64) -> Option<(NonNull<u8>, Kind, u64)> {
        let relative = address.wrapping_sub(SLOTS);
        let number = relative >> self.granule.log2();
        if number & 1 == 1 {
            return None;
        }
        let slot = (*self.slots.get(usize::try_from(number >> 1).ok()?)?)?;
        let within = (relative & (self.granule.bytes() as u64 - 1)) as u32;
        if within < slot.start || within >= slot.end {
            return None;
        }
        // SAFETY: `slot.end - slot.start` bytes are mapped from `slot.pointer` on, and `within`
        // lies between the two.
        let pointer = unsafe { slot.pointer.add((within - slot.start) as usize) };
        Some((pointer, Kind::Region, u64::from(slot.end - within)))
    }

    #[inline]
    fn find_run(&self, address: u64) -> Option<(NonNull<u8>, Kind, u64)> {
        let (start, run) = self.runs.range(..=address).next_back()?;
        let within = address - start;
        if within >= run.len {
            return None;
        }
        // SAFETY: `run.len` bytes are mapped from `run.pointer` on, and `within` is less.
        let pointer = unsafe { run.pointer.add(within as usize) };
        Some((pointer, run.kind, run.len - within))
    }

    /// Maps `len` bytes as one run whose device address is `remainder` modulo `align` (a power
    /// of two).
    ///
    /// # Safety
    /// Until [`unmap_run`](Self::unmap_run) `len` bytes at `pointer` can be read from any
    /// thread, and written if `kind` is [`Kind::Memory`].
    pub(super) unsafe fn map_run(
        &mut self,
        pointer: NonNull<u8>,
        len: usize,
        kind: Kind,
        align: u64,
        remainder: u64,
    ) -> Result<DeviceAddress, Exhausted> {
        let len = len as u64;
        for _ in 0..TRIES {
            let drawn = self.rng.u64(RUNS..SLOTS);
            let start = (drawn & !(align - 1)) | (remainder & (align - 1));
            let end = start.checked_add(len).ok_or(Exhausted)?;
            let inside = start >= RUNS && end <= SLOTS - GUARD;
            if inside && self.is_free(start, end) && start != pointer.addr().get() as u64 {
                self.runs.insert(start, Run { pointer, len, kind });
                return Ok(DeviceAddress(start));
            }
        }
        Err(Exhausted)
    }

    /// Whether `start..end` and the guard around it are free of runs.
    fn is_free(&self, start: u64, end: u64) -> bool {
        self.runs
            .range(..end + GUARD)
            .next_back()
            .is_none_or(|(before, run)| before + run.len + GUARD <= start)
    }

    pub(super) fn unmap_run(&mut self, start: DeviceAddress) {
        self.runs.remove(&start.0);
    }

    /// Maps `len` bytes, granule by granule, and returns the device address of the beginning of
    /// each granule touched.
    ///
    /// # Safety
    /// Until [`unmap_slots`](Self::unmap_slots) `len` bytes at `pointer` can be read from any
    /// thread.
    pub(super) unsafe fn map_slots(
        &mut self,
        pointer: NonNull<u8>,
        len: usize,
    ) -> Box<[DeviceAddress]> {
        let size = self.granule.bytes();
        let lead = pointer.addr().get() & (size - 1);
        let count = (lead + len).div_ceil(size);
        self.reserve(count);
        let mut mapped = 0;
        (0..count)
            .map(|index| {
                let start = if index == 0 { lead } else { 0 };
                let end = size.min(start + len - mapped);
                // SAFETY: `mapped` is less than `len`: each granule before was filled to its end.
                let first = unsafe { pointer.add(mapped) };
                mapped += end - start;
                self.take_slot(Slot {
                    pointer: first,
                    start: start as u32,
                    end: end as u32,
                })
            })
            .collect()
    }

    /// Grows the table so that a quarter of it at most is in use with `count` more.
    fn reserve(&mut self, count: usize) {
        self.slots_used += count;
        let wanted = (self.slots_used * 4).next_power_of_two().max(FEWEST_SLOTS);
        if wanted > self.slots.len() {
            self.slots.resize(wanted, None);
        }
    }

    /// Fills a free slot, drawn at random, and returns the address of its granule.
    fn take_slot(&mut self, slot: Slot) -> DeviceAddress {
        let cpu = slot.pointer.addr().get() as u64;
        loop {
            let index = self.rng.usize(0..self.slots.len());
            let address = self.slot_address(index);
            let same = address.wrapping_add(u64::from(slot.start)) == cpu;
            if let Some(entry) = self.slots.get_mut(index)
                && entry.is_none()
                && !same
            {
                *entry = Some(slot);
                return DeviceAddress(address);
            }
        }
    }

    fn slot_address(&self, index: usize) -> u64 {
        SLOTS.wrapping_add((index as u64) << (self.granule.log2() + 1))
    }

    pub(super) fn unmap_slots(&mut self, addresses: &[DeviceAddress]) {
        for address in addresses {
            let index = address.0.wrapping_sub(SLOTS) >> (self.granule.log2() + 1);
            if let Some(entry) = self.slots.get_mut(index as usize)
                && entry.take().is_some()
            {
                self.slots_used -= 1;
            }
        }
    }
}
