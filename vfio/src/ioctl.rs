//! The ioctls of VFIO and iommufd that are used here, each with a safe face where it has one.
//!
//! Numbers and semantics: Linux `include/uapi/linux/vfio.h` and `iommufd.h`; layouts from the
//! crates `vfio-bindings` and `iommufd-bindings`.

use std::ffi::{CStr, c_void};
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use iommufd_bindings::{iommu_ioas_alloc, iommu_ioas_iova_ranges, iommu_ioas_map};
use iommufd_bindings::{iommu_ioas_unmap, iommu_iova_range};
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, opcode};
use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_TYPE, vfio_device_attach_iommufd_pt, vfio_device_bind_iommufd,
    vfio_device_info, vfio_irq_info, vfio_pci_hot_reset, vfio_pci_hot_reset_info, vfio_region_info,
};

/// `VFIO_*`: `_IO(VFIO_TYPE, VFIO_BASE + number)`.
const fn vfio(number: u8) -> Opcode {
    opcode::none(VFIO_TYPE, VFIO_BASE as u8 + number)
}

const GROUP_GET_DEVICE_FD: Opcode = vfio(6);
const DEVICE_GET_INFO: Opcode = vfio(7);
const DEVICE_GET_REGION_INFO: Opcode = vfio(8);
const DEVICE_GET_IRQ_INFO: Opcode = vfio(9);
const DEVICE_SET_IRQS: Opcode = vfio(10);
const DEVICE_RESET: Opcode = vfio(11);
const DEVICE_GET_PCI_HOT_RESET_INFO: Opcode = vfio(12);
const DEVICE_PCI_HOT_RESET: Opcode = vfio(13);
const DEVICE_BIND_IOMMUFD: Opcode = vfio(18);
const DEVICE_ATTACH_IOMMUFD_PT: Opcode = vfio(19);

/// `IOMMU_*`: `_IO(IOMMUFD_TYPE, number)`.
const fn iommu(number: u32) -> Opcode {
    opcode::none(iommufd_bindings::IOMMUFD_TYPE, number as u8)
}

const IOAS_ALLOC: Opcode = iommu(iommufd_bindings::IOMMUFD_CMD_IOAS_ALLOC);
const IOAS_IOVA_RANGES: Opcode = iommu(iommufd_bindings::IOMMUFD_CMD_IOAS_IOVA_RANGES);
const IOAS_MAP: Opcode = iommu(iommufd_bindings::IOMMUFD_CMD_IOAS_MAP);
const IOAS_UNMAP: Opcode = iommu(iommufd_bindings::IOMMUFD_CMD_IOAS_UNMAP);

/// Longest answer that is accepted, in bytes: far more than any that Linux gives.
const LONGEST_ANSWER: usize = 64 << 10;

/// An ioctl with a pointer to what the kernel reads and writes, or with a plain number.
struct Call<'a> {
    opcode: Opcode,
    argument: *mut c_void,
    _borrowed: PhantomData<&'a mut c_void>,
}

// SAFETY: who makes a `Call` says with `call` that opcode and argument belong together; the
// output is the number that the kernel returned.
unsafe impl Ioctl for Call<'_> {
    type Output = IoctlOutput;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument
    }

    unsafe fn output_from_ptr(
        output: IoctlOutput,
        _argument: *mut c_void,
    ) -> rustix::io::Result<IoctlOutput> {
        Ok(output)
    }
}

/// Calls with a structure, which may be the head of a longer one: `argument` points to all of it.
///
/// # Safety
/// `opcode` expects at `argument` what is there, touches no byte beyond what the caller may write
/// there, and has no effect on memory that other code relies on.
unsafe fn call(fd: BorrowedFd<'_>, opcode: Opcode, argument: *mut c_void) -> Result<u32, Errno> {
    let call = Call {
        opcode,
        argument,
        _borrowed: PhantomData,
    };
    // SAFETY: the caller's promise.
    let output = unsafe { rustix::ioctl::ioctl(fd, call) }?;
    Ok(output.unsigned_abs())
}

/// A structure that begins with its own size, asked for and answered in place.
trait Sized32: Default {
    fn set_size(&mut self, bytes: u32);
}

macro_rules! sized {
    ($($structure:ty, $field:ident;)*) => {$(
        impl Sized32 for $structure {
            fn set_size(&mut self, bytes: u32) {
                self.$field = bytes;
            }
        }
    )*};
}

sized! {
    vfio_device_info, argsz;
    vfio_irq_info, argsz;
    vfio_device_bind_iommufd, argsz;
    vfio_device_attach_iommufd_pt, argsz;
    iommu_ioas_alloc, size;
    iommu_ioas_iova_ranges, size;
    iommu_ioas_map, size;
    iommu_ioas_unmap, size;
}

/// Calls with a structure of a fixed size.
///
/// # Safety
/// `opcode` expects a `T`, and nothing that it does to what the fields name breaks a promise of
/// other code.
unsafe fn ask<T: Sized32>(
    fd: BorrowedFd<'_>,
    opcode: Opcode,
    structure: &mut T,
) -> Result<u32, Errno> {
    structure.set_size(size_of::<T>() as u32);
    // SAFETY: the caller's promise; the kernel writes no more than the size that was just set.
    unsafe { call(fd, opcode, std::ptr::from_mut(structure).cast()) }
}

/// Calls with words of which the first is the size, in bytes; returns what the ioctl returned.
///
/// # Safety
/// As for [`ask`]; the kernel writes no more than the size.
unsafe fn ask_words(fd: BorrowedFd<'_>, opcode: Opcode, words: &mut [u32]) -> Result<u32, Errno> {
    let bytes = size_of_val(words) as u32;
    if let Some(size) = words.first_mut() {
        *size = bytes;
    }
    // SAFETY: the caller's promise; the kernel copies byte by byte, so any alignment will do.
    unsafe { call(fd, opcode, words.as_mut_ptr().cast()) }
}

/// Calls with a structure that begins with the words of `head` (the first is its size) and whose
/// answer may be longer: asked again with more room until it fits.
///
/// # Safety
/// As for [`ask_words`].
unsafe fn ask_long(fd: BorrowedFd<'_>, opcode: Opcode, head: &[u32]) -> Result<Vec<u8>, Errno> {
    let mut words = head.to_vec();
    words.resize(64.max(head.len()), 0);
    loop {
        let room = size_of_val(words.as_slice());
        // SAFETY: the caller's promise.
        let called = unsafe { ask_words(fd, opcode, &mut words) };
        // Hot reset says by an error that there is not enough room, the others by the size.
        let wanted = match called {
            Err(Errno::NOSPC) => room * 2,
            Err(errno) => return Err(errno),
            Ok(_) => words.first().map_or(0, |size| *size as usize),
        };
        if wanted <= room {
            return Ok(words.iter().flat_map(|word| word.to_ne_bytes()).collect());
        }
        if wanted > LONGEST_ANSWER {
            return Err(Errno::MSGSIZE);
        }
        words.clear();
        words.extend_from_slice(head);
        words.resize(wanted.div_ceil(4), 0);
    }
}

/// A new file for the device `name` of the group.
pub(crate) fn group_device(group: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    // SAFETY: the ioctl reads a string that ends with 0 and makes a file.
    let fd = unsafe { call(group, GROUP_GET_DEVICE_FD, name.as_ptr().cast_mut().cast()) }?;
    let fd = fd.cast_signed();
    // SAFETY: the file descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What the device is.
pub(crate) fn device_info(device: BorrowedFd<'_>) -> Result<vfio_device_info, Errno> {
    let mut info = vfio_device_info::default();
    // SAFETY: the ioctl fills in the structure.
    unsafe { ask(device, DEVICE_GET_INFO, &mut info) }?;
    Ok(info)
}

/// Region `index` of the device: a `vfio_region_info`, and its capabilities behind it.
pub(crate) fn region_info(device: BorrowedFd<'_>, index: u32) -> Result<Vec<u8>, Errno> {
    const { assert!(size_of::<vfio_region_info>() == 32) };
    let head = [0, 0, index, 0, 0, 0, 0, 0];
    // SAFETY: the ioctl fills in the structure, which begins with these words.
    unsafe { ask_long(device, DEVICE_GET_REGION_INFO, &head) }
}

/// Interrupts of kind `index`.
pub(crate) fn irq_info(device: BorrowedFd<'_>, index: u32) -> Result<vfio_irq_info, Errno> {
    let mut info = vfio_irq_info {
        index,
        ..Default::default()
    };
    // SAFETY: the ioctl fills in the structure.
    unsafe { ask(device, DEVICE_GET_IRQ_INFO, &mut info) }?;
    Ok(info)
}

/// Sets interrupts `start..start + count` of kind `index`; `data` is what `flags` say it is, in
/// words. Returns 0, or how many there could be if there are fewer.
pub(crate) fn set_irqs(
    device: BorrowedFd<'_>,
    flags: u32,
    index: u32,
    (start, count): (u32, u32),
    data: impl Iterator<Item = u32>,
) -> Result<u32, Errno> {
    let mut words = vec![0, flags, index, start, count];
    words.extend(data);
    // SAFETY: the ioctl reads the structure, which is these words; the kernel holds the eventfds
    // on its own, and signals them only.
    unsafe { ask_words(device, DEVICE_SET_IRQS, &mut words) }
}

/// Resets the function alone.
pub(crate) fn reset(device: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the ioctl has no argument; a function that was reset reaches no memory.
    unsafe { call(device, DEVICE_RESET, std::ptr::null_mut()) }.map(drop)
}

/// Whom a reset of the bus or slot hits: a `vfio_pci_hot_reset_info`, and the devices behind it.
pub(crate) fn hot_reset_info(device: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    const { assert!(size_of::<vfio_pci_hot_reset_info>() == 12) };
    // SAFETY: the ioctl fills in the structure, which begins with these words.
    unsafe { ask_long(device, DEVICE_GET_PCI_HOT_RESET_INFO, &[0, 0, 0]) }
}

/// Resets the bus or slot of the device; `owners` prove that all that it hits is ours (the
/// groups, or nobody for a device that an iommufd owns).
pub(crate) fn hot_reset(device: BorrowedFd<'_>, owners: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    const { assert!(size_of::<vfio_pci_hot_reset>() == 12) };
    let mut words = vec![0, 0, owners.len() as u32];
    words.extend(owners.iter().map(|owner| owner.as_raw_fd().cast_unsigned()));
    // SAFETY: the ioctl reads the structure, which is these words; functions that were reset
    // reach no memory.
    unsafe { ask_words(device, DEVICE_PCI_HOT_RESET, &mut words) }.map(drop)
}

/// Gives the device to the iommufd: from now on it is ours.
pub(crate) fn bind_iommufd(device: BorrowedFd<'_>, iommufd: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut bind = vfio_device_bind_iommufd {
        iommufd: iommufd.as_raw_fd(),
        ..Default::default()
    };
    // SAFETY: the ioctl reads and fills in the structure.
    unsafe { ask(device, DEVICE_BIND_IOMMUFD, &mut bind) }.map(drop)
}

/// Puts the device into the address space `ioas`.
pub(crate) fn attach_ioas(device: BorrowedFd<'_>, ioas: u32) -> Result<(), Errno> {
    let mut attach = vfio_device_attach_iommufd_pt {
        pt_id: ioas,
        ..Default::default()
    };
    // SAFETY: the ioctl reads and fills in the structure.
    unsafe { ask(device, DEVICE_ATTACH_IOMMUFD_PT, &mut attach) }.map(drop)
}

/// A new, empty address space.
pub(crate) fn ioas_alloc(iommufd: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut alloc = iommu_ioas_alloc::default();
    // SAFETY: the ioctl fills in the structure.
    unsafe { ask(iommufd, IOAS_ALLOC, &mut alloc) }?;
    Ok(alloc.out_ioas_id)
}

/// The usable addresses of an address space, first to last of each range, and the alignment of
/// mappings.
pub(crate) fn ioas_ranges(
    iommufd: BorrowedFd<'_>,
    ioas: u32,
) -> Result<(Vec<(u64, u64)>, u64), Errno> {
    let mut ranges = vec![iommu_iova_range::default(); 16];
    loop {
        let mut ask_for = iommu_ioas_iova_ranges {
            ioas_id: ioas,
            num_iovas: ranges.len() as u32,
            allowed_iovas: ranges.as_mut_ptr().addr() as u64,
            ..Default::default()
        };
        // The kernel writes through the address.
        let _exposed = ranges.as_mut_ptr().expose_provenance();
        // SAFETY: the ioctl fills in the structure, and at most `num_iovas` ranges at the
        // address, where there are as many.
        let called = unsafe { ask(iommufd, IOAS_IOVA_RANGES, &mut ask_for) };
        let count = ask_for.num_iovas as usize;
        match called {
            Ok(_) if count <= ranges.len() => {
                let found = ranges.iter().take(count);
                let found = found.map(|range| (range.start, range.last)).collect();
                return Ok((found, ask_for.out_iova_alignment));
            }
            Ok(_) | Err(Errno::MSGSIZE) if count > ranges.len() && count <= LONGEST_ANSWER / 16 => {
                ranges.resize(count, iommu_iova_range::default());
            }
            Ok(_) => return Err(Errno::MSGSIZE),
            Err(errno) => return Err(errno),
        }
    }
}

/// Maps `len` bytes at `memory` for the devices of `ioas`, at `iova`.
///
/// # Safety
/// The memory stays mapped until it has been unmapped for the devices, and nobody minds what a
/// device may do with it: read it, and write it if the flags say so.
pub(crate) unsafe fn ioas_map(
    iommufd: BorrowedFd<'_>,
    ioas: u32,
    flags: u32,
    (memory, len, iova): (u64, u64, u64),
) -> Result<(), Errno> {
    let mut map = iommu_ioas_map {
        flags,
        ioas_id: ioas,
        user_va: memory,
        length: len,
        iova,
        ..Default::default()
    };
    // SAFETY: the ioctl reads the structure; the caller answers for the memory that it names.
    unsafe { ask(iommufd, IOAS_MAP, &mut map) }.map(drop)
}

/// Undoes [`ioas_map`]; returns how many bytes were mapped there.
pub(crate) fn ioas_unmap(
    iommufd: BorrowedFd<'_>,
    ioas: u32,
    iova: u64,
    len: u64,
) -> Result<u64, Errno> {
    let mut unmap = iommu_ioas_unmap {
        ioas_id: ioas,
        iova,
        length: len,
        ..Default::default()
    };
    // SAFETY: the ioctl reads and fills in the structure; what is unmapped is reached no more.
    unsafe { ask(iommufd, IOAS_UNMAP, &mut unmap) }?;
    Ok(unmap.length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that Linux's headers come to, `';'` being 0x3b.
    #[test]
    fn numbers_are_those_of_the_headers() {
        assert_eq!(DEVICE_GET_INFO, 0x3b6b);
        assert_eq!(DEVICE_RESET, 0x3b6f);
        assert_eq!(DEVICE_BIND_IOMMUFD, 0x3b76);
        assert_eq!(IOAS_ALLOC, 0x3b81);
        assert_eq!(IOAS_MAP, 0x3b85);
        assert_eq!(IOAS_UNMAP, 0x3b86);
    }

    #[test]
    fn what_is_no_vfio_file_is_refused_by_the_kernel() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let fd = std::os::fd::AsFd::as_fd(&file);
        assert_eq!(device_info(fd), Err(Errno::NOTTY));
        assert_eq!(region_info(fd, 0), Err(Errno::NOTTY));
        assert_eq!(ioas_ranges(fd, 1), Err(Errno::NOTTY));
        assert!(group_device(fd, c"0000:00:00.0").is_err());
    }
}
