//! Regions whose bytes are not simply read where the program has them: a device has their pages
//! pinned and reads those, whatever becomes of the program's mapping, and so must a model.

use std::ptr::NonNull;
use std::sync::Arc;

use pagewire_hal::{Lendable, Sharing};

/// The owners of such memory, each once for each registration. There are few.
#[derive(Default)]
pub(super) struct Specials {
    owners: Vec<Arc<dyn Lendable>>,
}

impl Specials {
    pub(super) fn add(&mut self, owner: Arc<dyn Lendable>) {
        self.owners.push(owner);
    }

    /// Removes one that was added.
    pub(super) fn remove(&mut self, owner: &Arc<dyn Lendable>) {
        let same = |other: &Arc<dyn Lendable>| Arc::ptr_eq(other, owner);
        if let Some(index) = self.owners.iter().position(same) {
            self.owners.swap_remove(index);
        }
    }

    /// Fills `target` with the bytes that a device finds at `pointer`; false if it does nothing, as
    /// they are simply there.
    #[inline]
    pub(super) fn read(&self, pointer: NonNull<u8>, target: &mut [u8]) -> bool {
        !self.owners.is_empty() && self.read_from_owner(pointer, target)
    }

    /// As [`read`](Self::read), behind the end of a frame.
    #[inline]
    pub(super) fn append(&self, pointer: NonNull<u8>, len: usize, frame: &mut Vec<u8>) -> bool {
        if self.owners.is_empty() {
            return false;
        }
        let before = frame.len();
        frame.resize(before + len, 0);
        let target = frame.get_mut(before..).unwrap_or_default();
        let read = self.read_from_owner(pointer, target);
        if !read {
            frame.truncate(before);
        }
        read
    }

    fn read_from_owner(&self, pointer: NonNull<u8>, target: &mut [u8]) -> bool {
        let offset = |owner: &&Arc<dyn Lendable>| {
            let offset = pointer.addr().get().checked_sub(owner.base().addr().get());
            offset.filter(|offset| *offset < owner.len())
        };
        let found = self
            .owners
            .iter()
            .find_map(|owner| Some((owner, offset(&owner)?)));
        let Some((owner, offset)) = found else {
            return false;
        };
        match owner.sharing() {
            Sharing::Owned => false,
            Sharing::Live(live) => {
                // Hardware has the pages, and so reads what is mapped. Where that is gone, as a file
                // became shorter, the owner knows better.
                if !read_mapped(pointer, target) {
                    live.copy_to(offset, target);
                }
                true
            }
            // Of what is not lent the program may be writing a part at this moment, and a driver in
            // error could name it: so the system reads it, where there is one.
            Sharing::Watched(_) => read_mapped(pointer, target),
        }
    }
}

/// Fills `target` from this process's own memory at `pointer`; false, instead of a signal, if not all
/// of it is there, or if the system does not let us.
#[cfg(target_os = "linux")]
fn read_mapped(pointer: NonNull<u8>, target: &mut [u8]) -> bool {
    let Ok(process) = libc::pid_t::try_from(std::process::id()) else {
        return false;
    };
    let into = libc::iovec {
        iov_base: target.as_mut_ptr().cast(),
        iov_len: target.len(),
    };
    let from = libc::iovec {
        iov_base: pointer.as_ptr().cast(),
        iov_len: target.len(),
    };
    // SAFETY: the system writes to `target` alone, at most its length, and checks every byte that
    // it reads; both lists have one entry and live through the call.
    let count =
        unsafe { libc::process_vm_readv(process, &raw const into, 1, &raw const from, 1, 0) };
    usize::try_from(count) == Ok(target.len())
}

#[cfg(not(target_os = "linux"))]
fn read_mapped(_: NonNull<u8>, _: &mut [u8]) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
#[allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is the failure"
)]
mod tests {
    use pagewire_hal::Live;

    use super::*;

    const LEN: usize = 4096;

    /// A page of its own, readable or not, and an owner who says that it is full of `o`.
    struct Page(NonNull<u8>);

    // SAFETY: the pointer is only handed out, and compared.
    unsafe impl Send for Page {}
    // SAFETY: as above.
    unsafe impl Sync for Page {}

    impl Page {
        fn new(protection: libc::c_int) -> Self {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let place = std::ptr::null_mut();
            // SAFETY: a new mapping at an address that the system chooses.
            let place = unsafe { libc::mmap(place, LEN, protection, flags, -1, 0) };
            assert_ne!(place, libc::MAP_FAILED);
            Self(NonNull::new(place.cast()).unwrap())
        }
    }

    // SAFETY: the mapping is there until the value is dropped; reads may fail, which `Live` allows.
    unsafe impl Lendable for Page {
        fn base(&self) -> NonNull<u8> {
            self.0
        }

        fn len(&self) -> usize {
            LEN
        }

        fn sharing(&self) -> Sharing<'_> {
            Sharing::Live(self)
        }
    }

    impl Live for Page {
        fn copy_to(&self, _: usize, into: &mut [u8]) {
            into.fill(b'o');
        }
    }

    impl Drop for Page {
        fn drop(&mut self) {
            // SAFETY: the mapping is the value's own.
            unsafe { libc::munmap(self.0.as_ptr().cast(), LEN) };
        }
    }

    fn read(page: Page) -> (Vec<u8>, Vec<u8>) {
        let place = NonNull::new(page.0.as_ptr().wrapping_add(100)).unwrap();
        let mut specials = Specials::default();
        specials.add(Arc::new(page));
        let (mut bytes, mut frame) = (vec![1; 4], vec![1]);
        assert!(specials.read(place, &mut bytes));
        assert!(specials.append(place, 4, &mut frame));
        (bytes, frame)
    }

    #[test]
    fn a_device_reads_what_is_mapped_and_asks_where_nothing_is() {
        // Zeros, as nobody has written there.
        let mapped = read(Page::new(libc::PROT_READ));
        assert_eq!(mapped, (vec![0; 4], vec![1, 0, 0, 0, 0]));
        let gone = read(Page::new(libc::PROT_NONE));
        assert_eq!(gone, (b"oooo".to_vec(), b"\x01oooo".to_vec()));
    }
}
