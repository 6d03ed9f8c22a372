//! The system calls of userfaultfd that are used here, each with a safe face where it has one.
//!
//! Numbers, layouts and semantics: Linux `include/uapi/linux/userfaultfd.h` (by the crate
//! `linux-raw-sys`) and `Documentation/admin-guide/mm/userfaultfd.rst`. The crate `userfaultfd`
//! is not used: it takes a full descriptor for one of user mode where the kernel is old, does not
//! try the system call where the device file may not be opened, and says neither which of them it
//! got nor which features there are.

use std::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use linux_raw_sys::general::{
    UFFD_API, UFFD_EVENT_PAGEFAULT, UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFD_FEATURE_SIGBUS,
    UFFD_FEATURE_THREAD_ID, UFFD_FEATURE_WP_HUGETLBFS_SHMEM, UFFD_USER_MODE_ONLY,
    UFFDIO_REGISTER_MODE_WP, USERFAULTFD_IOC, uffdio_api, uffdio_continue, uffdio_range,
    uffdio_register, uffdio_writeprotect,
};
use linux_raw_sys::ioctl::{
    UFFDIO_API, UFFDIO_CONTINUE, UFFDIO_REGISTER, UFFDIO_UNREGISTER, UFFDIO_WAKE,
    UFFDIO_WRITEPROTECT,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Setter, Updater, ioctl, opcode};
use rustix::mm::UserfaultfdFlags;

/// Makes a userfaultfd from `/dev/userfaultfd`; the argument is the flags of the system call.
const DEVICE_NEW: Opcode = opcode::none(USERFAULTFD_IOC as u8, 0);

/// `UFFDIO_WRITEPROTECT_MODE_WP`: sets the protection; without it, it is cleared and whoever waits
/// is woken. (An expression in the header, which bindings leave out.)
const PROTECT: u64 = 1;

/// What there must be: messages of writes, of memory that is shared (a file without a name), with
/// the thread that wrote.
const REQUIRED: u64 = (UFFD_FEATURE_PAGEFAULT_FLAG_WP
    | UFFD_FEATURE_WP_HUGETLBFS_SHMEM
    | UFFD_FEATURE_THREAD_ID) as u64;

/// SIGBUS instead of messages.
const SIGNAL: u64 = UFFD_FEATURE_SIGBUS as u64;

/// Bytes of a message, and where it has what.
const MESSAGE: usize = 32;
const ADDRESS: usize = 16;
const THREAD: usize = 24;
/// Messages that are read at once.
const BATCH: usize = 32;

/// How a descriptor is come by.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// The system call.
    Call,
    /// `/dev/userfaultfd`, opened by whoever may.
    Device(BorrowedFd<'a>),
}

impl Source<'_> {
    fn descriptor(&self, user_mode_only: bool) -> Result<OwnedFd, Errno> {
        let mut flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
        if user_mode_only {
            flags |= UserfaultfdFlags::from_bits_retain(UFFD_USER_MODE_ONLY);
        }
        match self {
            // SAFETY: the descriptor stays in this module, which only watches memory that it is
            // told to.
            Self::Call => unsafe { rustix::mm::userfaultfd(flags) },
            Self::Device(device) => {
                let call = NewDescriptor(flags.bits());
                // SAFETY: the ioctl of this number takes flags and returns a new descriptor; of
                // any other file it is an error.
                unsafe { ioctl(device, call) }
            }
        }
    }
}

/// [`DEVICE_NEW`] with flags.
struct NewDescriptor(u32);

// SAFETY: the argument is a number, which the kernel does not follow; what is returned, if there
// is no error, is a new descriptor that nobody else has.
unsafe impl Ioctl for NewDescriptor {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        DEVICE_NEW
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::without_provenance_mut(self.0 as usize)
    }

    unsafe fn output_from_ptr(
        output: IoctlOutput,
        _argument: *mut c_void,
    ) -> rustix::io::Result<OwnedFd> {
        // SAFETY: promised by the kernel, see above.
        Ok(unsafe { OwnedFd::from_raw_fd(output) })
    }
}

/// Why there is no descriptor.
#[derive(Debug)]
pub(crate) enum NotOpened {
    /// What the system said.
    System(Errno),
    /// The kernel has userfaultfd, but not all that is needed; these are its features.
    NoWriteProtection(u64),
}

/// A userfaultfd: the kernel tells it of writes to protected pages of this process.
#[derive(Debug)]
pub(crate) struct UserFault {
    descriptor: OwnedFd,
}

impl UserFault {
    /// A descriptor with the features that are needed.
    ///
    /// If `signal`, who writes gets SIGBUS instead of a message being written of it.
    pub(crate) fn open(
        source: &Source<'_>,
        user_mode_only: bool,
        signal: bool,
    ) -> Result<Self, NotOpened> {
        // Features are told once per descriptor, and asking for one that is not there is an error:
        // so the first is asked, and the second is used.
        let asked = source
            .descriptor(user_mode_only)
            .map_err(NotOpened::System)?;
        let there = handshake(&asked, 0).map_err(NotOpened::System)?;
        let wanted = REQUIRED | if signal { SIGNAL } else { 0 };
        if there & wanted != wanted {
            return Err(NotOpened::NoWriteProtection(there));
        }
        let descriptor = source
            .descriptor(user_mode_only)
            .map_err(NotOpened::System)?;
        handshake(&descriptor, wanted).map_err(NotOpened::System)?;
        Ok(Self { descriptor })
    }

    /// Watches memory: from now on it can be protected.
    ///
    /// # Safety
    /// The memory belongs to the caller, and is not unmapped or given to others before it was
    /// unregistered.
    pub(crate) unsafe fn register(&self, base: usize, len: usize) -> Result<(), Errno> {
        let mut register = uffdio_register {
            range: range(base, len),
            mode: u64::from(UFFDIO_REGISTER_MODE_WP),
            ioctls: 0,
        };
        // SAFETY: the structure is that of the call.
        let call = unsafe { Updater::<{ UFFDIO_REGISTER }, _>::new(&mut register) };
        // SAFETY: the caller's promise: nobody else's memory is watched.
        unsafe { ioctl(&self.descriptor, call) }
    }

    /// Watches it no more: clears all protections, wakes whoever waits.
    pub(crate) fn unregister(&self, base: usize, len: usize) -> Result<(), Errno> {
        // SAFETY: the structure is that of the call.
        let call = unsafe { Setter::<{ UFFDIO_UNREGISTER }, _>::new(range(base, len)) };
        // SAFETY: changes nothing but what this descriptor watches, which is no promise of Rust's.
        unsafe { ioctl(&self.descriptor, call) }
    }

    /// Protects pages: whoever writes there from now on stops, and a message tells of it.
    pub(crate) fn protect(&self, base: usize, len: usize) -> Result<(), Errno> {
        self.write_protect(base, len, PROTECT)
    }

    /// Clears the protection, and wakes whoever waits there.
    pub(crate) fn clear(&self, base: usize, len: usize) -> Result<(), Errno> {
        self.write_protect(base, len, 0)
    }

    /// Maps pages of a file in memory where none are mapped (what they have there are marks of a
    /// protection, if anything), not protected and to be written without a fault; wakes whoever waits
    /// there. An error if that has not been done for all of them.
    pub(crate) fn map(&self, base: usize, len: usize) -> Result<(), Errno> {
        let mut map = uffdio_continue {
            range: range(base, len),
            mode: 0,
            mapped: 0,
        };
        // SAFETY: the structure is that of the call.
        let call = unsafe { Updater::<{ UFFDIO_CONTINUE }, _>::new(&mut map) };
        // SAFETY: the kernel refuses memory that is not registered with this descriptor; it maps what
        // the mapping says, so no byte changes.
        unsafe { ioctl(&self.descriptor, call) }?;
        if usize::try_from(map.mapped) == Ok(len) {
            Ok(())
        } else {
            Err(Errno::AGAIN)
        }
    }

    /// Wakes whoever waits there, to try again.
    pub(crate) fn wake(&self, base: usize, len: usize) -> Result<(), Errno> {
        // SAFETY: the structure is that of the call.
        let call = unsafe { Setter::<{ UFFDIO_WAKE }, _>::new(range(base, len)) };
        // SAFETY: no byte and no protection changes.
        unsafe { ioctl(&self.descriptor, call) }
    }

    fn write_protect(&self, base: usize, len: usize, mode: u64) -> Result<(), Errno> {
        retry_on_intr(|| {
            let mut call = uffdio_writeprotect {
                range: range(base, len),
                mode,
            };
            // SAFETY: the structure is that of the call.
            let call = unsafe { Updater::<{ UFFDIO_WRITEPROTECT }, _>::new(&mut call) };
            // SAFETY: the kernel refuses memory that is not registered with this descriptor; no
            // byte changes.
            unsafe { ioctl(&self.descriptor, call) }
        })
    }

    /// The writes that were stopped since this was last asked, as far as they fit; an empty list if
    /// there are none, or all have been woken meanwhile.
    pub(crate) fn faults(&self) -> Result<impl Iterator<Item = Stopped>, Errno> {
        let mut messages = [0; MESSAGE * BATCH];
        let read = match retry_on_intr(|| rustix::io::read(&self.descriptor, &mut messages)) {
            Err(Errno::AGAIN) => 0,
            read => read?,
        };
        Ok((0..read / MESSAGE).filter_map(move |index| stopped(messages.get(index * MESSAGE..)?)))
    }
}

/// A write that was stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stopped {
    pub(crate) address: usize,
    /// Who wrote, by the kernel's number.
    pub(crate) thread: u32,
}

impl AsFd for UserFault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// What a message tells; `None` if it tells of something else, which it never does as no other event
/// was asked for.
fn stopped(message: &[u8]) -> Option<Stopped> {
    let event = *message.first()?;
    let address = message.get(ADDRESS..ADDRESS + 8)?.try_into().ok()?;
    let thread = message.get(THREAD..THREAD + 4)?.try_into().ok()?;
    (u32::from(event) == UFFD_EVENT_PAGEFAULT).then(|| Stopped {
        address: u64::from_ne_bytes(address) as usize,
        thread: u32::from_ne_bytes(thread),
    })
}

/// The features of the kernel, with those of `features` switched on.
fn handshake(descriptor: &OwnedFd, features: u64) -> Result<u64, Errno> {
    let mut api = uffdio_api {
        api: u64::from(UFFD_API),
        features,
        ioctls: 0,
    };
    // SAFETY: the structure is that of the call.
    let call = unsafe { Updater::<{ UFFDIO_API }, _>::new(&mut api) };
    // SAFETY: affects the descriptor only.
    unsafe { ioctl(descriptor, call) }?;
    Ok(api.features)
}

fn range(base: usize, len: usize) -> uffdio_range {
    uffdio_range {
        start: base as u64,
        len: len as u64,
    }
}
