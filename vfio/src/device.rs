//! The device's own file: regions, configuration space, interrupts, resets. The same by either
//! API.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET, VFIO_IRQ_INFO_EVENTFD,
    VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE,
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSIX_IRQ_INDEX,
};

use crate::answers::{self, Region};
use crate::iommu::{Api, Iommu};
use crate::{PciAddress, VfioError, ioctl};

/// Memory BARs, I/O BARs, and those that are none, have the numbers 0 to 5.
pub(crate) const BARS: u8 = 6;

/// A PCI function that is open.
#[derive(Debug)]
pub(crate) struct Device {
    file: OwnedFd,
    address: PciAddress,
    config: Region,
    can_reset: bool,
    vectors: u32,
}

/// How a device was reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ResetKind {
    /// The function alone.
    Function,
    /// All functions of its bus or slot.
    Bus,
}

impl Device {
    pub(crate) fn new(file: OwnedFd, address: PciAddress) -> Result<Self, VfioError> {
        let info = ioctl::device_info(file.as_fd())
            .map_err(|errno| VfioError::system("cannot ask what the device is", errno))?;
        if info.flags & VFIO_DEVICE_FLAGS_PCI == 0 {
            return Err(VfioError::Nonsense("a PCI function that is no PCI device"));
        }
        let config = region(file.as_fd(), VFIO_PCI_CONFIG_REGION_INDEX)?;
        let msix = ioctl::irq_info(file.as_fd(), VFIO_PCI_MSIX_IRQ_INDEX)
            .map_err(|errno| VfioError::system("cannot ask for the device's interrupts", errno))?;
        let has_msix = msix.flags & VFIO_IRQ_INFO_EVENTFD != 0;
        Ok(Self {
            file,
            address,
            config,
            can_reset: info.flags & VFIO_DEVICE_FLAGS_RESET != 0,
            vectors: if has_msix { msix.count } else { 0 },
        })
    }

    pub(crate) fn address(&self) -> PciAddress {
        self.address
    }

    /// MSI-X vectors that the function has.
    pub(crate) fn vectors(&self) -> u32 {
        self.vectors
    }

    /// Region `index`, which is that of BAR `index` for 0 to 5.
    pub(crate) fn region(&self, index: u32) -> Result<Region, VfioError> {
        region(self.file.as_fd(), index)
    }

    /// Reads all of `bytes` at `offset` of the file; false if it cannot be.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> bool {
        let len = bytes.len();
        rustix::io::pread(&self.file, bytes, offset).is_ok_and(|read| read == len)
    }

    /// Writes all of `bytes` at `offset` of the file; false if it cannot be.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> bool {
        rustix::io::pwrite(&self.file, bytes, offset).is_ok_and(|written| written == bytes.len())
    }

    /// 32 bits of configuration space; all ones where there is nothing.
    pub(crate) fn read_config(&self, offset: u16) -> u32 {
        let mut bytes = [0xff; 4];
        match self.config_word(offset) {
            Some(at) if self.read(at, &mut bytes) => u32::from_le_bytes(bytes),
            _ => u32::MAX,
        }
    }

    /// Writes 32 bits of configuration space, of which the kernel lets through what is harmless
    /// to others.
    pub(crate) fn write_config(&self, offset: u16, value: u32) {
        if let Some(at) = self.config_word(offset)
            && !self.write(at, &value.to_le_bytes())
        {
            log::warn!(
                "{}: configuration space at {offset:#x} could not be written",
                self.address
            );
        }
    }

    /// Where in the file the word at `offset` of configuration space is.
    fn config_word(&self, offset: u16) -> Option<u64> {
        let offset = u64::from(offset);
        let inside = offset.is_multiple_of(4) && offset + 4 <= self.config.len;
        inside.then(|| self.config.offset + offset)
    }

    /// Connects the first MSI-X vectors with these eventfds, at least one; none is connected before.
    /// Returns how many there could be if that is less: none is connected then.
    pub(crate) fn connect(&self, eventfds: &[BorrowedFd<'_>]) -> Result<u32, Errno> {
        let count = eventfds.len() as u32;
        let on = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
        let possible = self.set_irqs(on, (0, count), eventfds)?;
        Ok(if possible == 0 { count } else { possible })
    }

    /// Turns MSI-X off, which is on.
    pub(crate) fn disconnect(&self) -> Result<(), Errno> {
        let off = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
        self.set_irqs(off, (0, 0), &[]).map(drop)
    }

    /// Lets the kernel act as if the device had sent the message of `vector`.
    pub(crate) fn trigger(&self, vector: u16) -> Result<(), Errno> {
        let one = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
        self.set_irqs(one, (u32::from(vector), 1), &[]).map(drop)
    }

    fn set_irqs(
        &self,
        flags: u32,
        range: (u32, u32),
        eventfds: &[BorrowedFd<'_>],
    ) -> Result<u32, Errno> {
        use std::os::fd::AsRawFd;
        let numbers = eventfds.iter().map(|fd| fd.as_raw_fd().cast_unsigned());
        ioctl::set_irqs(
            self.file.as_fd(),
            flags,
            VFIO_PCI_MSIX_IRQ_INDEX,
            range,
            numbers,
        )
    }

    /// Resets the function, or its bus if it has no reset of its own and nobody else is hit.
    pub(crate) fn reset(&self, iommu: &dyn Iommu) -> Result<ResetKind, VfioError> {
        if self.can_reset {
            ioctl::reset(self.file.as_fd())
                .map_err(|errno| VfioError::system("cannot reset the function", errno))?;
            return Ok(ResetKind::Function);
        }
        self.hot_reset(iommu)
    }

    /// Resets all functions of the bus or slot, if no other of them is in the hands of others.
    pub(crate) fn hot_reset(&self, iommu: &dyn Iommu) -> Result<ResetKind, VfioError> {
        let bytes = ioctl::hot_reset_info(self.file.as_fd()).map_err(|errno| match errno {
            // Linux: there is no slot or bus that could be reset.
            Errno::NODEV => VfioError::NoReset(self.address),
            errno => VfioError::system("cannot ask whom a reset of the bus would hit", errno),
        })?;
        let hit = answers::hit_by_reset(&bytes).map_err(VfioError::Nonsense)?;
        let own = hit.iter().find(|hit| hit.address == self.address);
        let own = own.map(|hit| hit.owner);
        let is_foreign = |hit: &&answers::Hit| match iommu.api() {
            // Functions of our own group are ours: nobody else can open it.
            Some(Api::Group) => Some(hit.owner) != own,
            Some(Api::Cdev) => hit.owner == u32::MAX,
            None => true,
        };
        let others: Vec<PciAddress> = hit
            .iter()
            .filter(is_foreign)
            .map(|hit| hit.address)
            .filter(|address| *address != self.address)
            .collect();
        let address = self.address;
        if !others.is_empty() {
            return Err(VfioError::ResetHitsOthers { address, others });
        }
        ioctl::hot_reset(self.file.as_fd(), &iommu.reset_owners()).map_err(
            |errno| match errno {
                Errno::NOTTY => VfioError::NoReset(address),
                errno => VfioError::system("cannot reset the bus", errno),
            },
        )?;
        Ok(ResetKind::Bus)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn region(device: BorrowedFd<'_>, index: u32) -> Result<Region, VfioError> {
    let bytes = ioctl::region_info(device, index)
        .map_err(|errno| VfioError::system("cannot ask for a region of the device", errno))?;
    let page = rustix::param::page_size() as u64;
    answers::region(&bytes, page).map_err(VfioError::Nonsense)
}

/// A device whose file is an ordinary one: its first 4 KiB are configuration space.
#[cfg(test)]
pub(crate) fn played(file: OwnedFd) -> Device {
    Device {
        file,
        address: PciAddress {
            domain: 0,
            bus: 3,
            device: 0,
            function: 0,
        },
        config: Region {
            len: 4096,
            offset: 0,
            mappable: Vec::new(),
        },
        can_reset: true,
        vectors: 0,
    }
}
