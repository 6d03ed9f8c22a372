//! Bytes of the program for QEMU's device to read.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use pagewire_hal::{
    DeviceAddress, DmaMemory, DomainId, FixedBytes, Granule, PlatformError, Region, Translation,
};

use super::memory::{QtestMemory, Ram};

/// Bytes of the program as a [`Region`] of QEMU's device.
///
/// QEMU reaches only its own memory, so the bytes are copied there once, when they are
/// registered. That keeps the promise of a region, as they do not change: the device reads the
/// copy, the CPU the original. The copy has page boundaries where the original has them.
pub struct QtestRegion<B: FixedBytes> {
    copy: Copied,
    // Behind an `Arc`, so that the bytes' owner is not moved any more once there are pointers
    // to them.
    bytes: Arc<B>,
}

impl<B: FixedBytes> QtestRegion<B> {
    pub(super) fn new(ram: &Arc<Ram>, bytes: B) -> Result<Arc<Self>, PlatformError> {
        let bytes = Arc::new(bytes);
        let copy = Copied::new(ram, bytes.bytes()).ok_or(PlatformError::OutOfMemory)?;
        Ok(Arc::new(Self { copy, bytes }))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.bytes()
    }
}

impl<B: FixedBytes> fmt::Debug for QtestRegion<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QtestRegion({} bytes)", self.copy.len)
    }
}

// SAFETY: `FixedBytes` promises bytes that stay and do not change while nobody has `&mut` to
// their owner, which the `Arc` gives to nobody. The copy was made in `new`, has the same length,
// is translated by `Copied` and lives as long as the region; only QEMU could change it, which is
// outside of what safe code can rely on.
unsafe impl<B: FixedBytes> Region for QtestRegion<B> {
    fn base(&self) -> NonNull<u8> {
        NonNull::from(self.bytes.bytes()).cast()
    }

    fn len(&self) -> usize {
        self.copy.len
    }

    fn domain(&self) -> DomainId {
        self.copy.ram.domain()
    }

    fn translation(&self) -> Translation<'_> {
        self.copy.translation()
    }
}

/// A copy in the machine's memory, given back when dropped.
struct Copied {
    ram: Arc<Ram>,
    granule: Granule,
    lead: usize,
    len: usize,
    addresses: Box<[DeviceAddress]>,
    /// The memory of a contiguous copy; a scattered one owns its granules by their addresses.
    contiguous: Option<QtestMemory>,
}

impl Copied {
    fn new(ram: &Arc<Ram>, bytes: &[u8]) -> Option<Self> {
        let granule = ram.granule();
        if bytes.is_empty() {
            return None;
        }
        if granule == Granule::CONTIGUOUS {
            return Self::contiguous(ram, bytes);
        }
        let lead = bytes.as_ptr().addr() & (granule.bytes() - 1);
        let offsets = ram.take_scattered(lead, bytes.len())?;
        let (head, rest) = bytes.split_at(bytes.len().min(granule.bytes() - lead));
        let parts = std::iter::once(head).chain(rest.chunks(granule.bytes()));
        for (index, (offset, part)) in offsets.iter().zip(parts).enumerate() {
            let start = if index == 0 { offset + lead } else { *offset };
            // SAFETY: the granules have just been taken, and `part` fits the rest of its own.
            unsafe { ram.write(start, part) };
        }
        Some(Self {
            ram: Arc::clone(ram),
            granule,
            lead,
            len: bytes.len(),
            addresses: offsets
                .iter()
                .map(|offset| DeviceAddress(*offset as u64))
                .collect(),
            contiguous: None,
        })
    }

    fn contiguous(ram: &Arc<Ram>, bytes: &[u8]) -> Option<Self> {
        let memory = ram.take(bytes.len(), 1)?;
        let address = memory.address();
        // SAFETY: the memory has just been taken, and has room for all bytes.
        unsafe { ram.write(address.0 as usize, bytes) };
        Some(Self {
            ram: Arc::clone(ram),
            granule: Granule::CONTIGUOUS,
            lead: 0,
            len: bytes.len(),
            addresses: Box::new([address]),
            contiguous: Some(memory),
        })
    }

    fn translation(&self) -> Translation<'_> {
        if self.contiguous.is_some() {
            return Translation::contiguous(self.len, &self.addresses);
        }
        // `None` cannot happen, as there is one address for each granule touched; no byte is
        // translated then.
        Translation::new(self.granule, self.lead, self.len, &self.addresses)
            .unwrap_or(Translation::contiguous(0, &[]))
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        if self.contiguous.is_none() {
            self.ram
                .put_scattered(self.addresses.iter().map(|address| address.0 as usize));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// What a device would read.
    fn through_the_translation(ram: &Ram, region: &dyn Region) -> Vec<u8> {
        let file = std::fs::File::open(ram.path()).unwrap();
        let mut all = Vec::new();
        for run in region.translation().runs(0, region.len()) {
            let mut part = vec![0; run.len];
            file.read_exact_at(&mut part, run.address.0).unwrap();
            all.extend_from_slice(&part);
        }
        all
    }

    #[test]
    fn the_device_reads_the_bytes_that_the_program_has() {
        for granule in [Granule::CONTIGUOUS, Granule::from_bytes(4096).unwrap()] {
            let ram = Ram::new(8 << 20, granule).unwrap();
            let free = ram.free();
            for len in [1, 4095, 4096, 4097, 100_000] {
                let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + i / 256) as u8).collect();
                let region = QtestRegion::new(&ram, bytes.clone()).unwrap();
                assert_eq!(region.bytes(), bytes);
                assert_eq!(
                    through_the_translation(&ram, &*region),
                    bytes,
                    "{len} bytes"
                );
                let runs = region.translation().runs(0, len).count();
                let lead = region.base().addr().get() & 4095;
                let pages = (lead + len).div_ceil(4096);
                let expected = if granule == Granule::CONTIGUOUS {
                    1
                } else {
                    pages
                };
                assert_eq!(runs, expected, "{len} bytes, {lead} into a page");
            }
            assert_eq!(ram.free(), free);
            let empty = QtestRegion::new(&ram, Vec::new());
            assert_eq!(empty.err(), Some(PlatformError::OutOfMemory));
            let large = QtestRegion::new(&ram, vec![0; 8 << 20]);
            assert_eq!(large.err(), Some(PlatformError::OutOfMemory));
            assert_eq!(ram.free(), free);
        }
    }
}
