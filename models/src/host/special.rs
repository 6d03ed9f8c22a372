//! Regions whose bytes are not simply read where the program has them: a device has their pages
//! pinned and reads those, whatever becomes of the program's mapping, and so must a model.

use std::ptr::NonNull;
use std::sync::Arc;

use pagewire_hal::{Lendable, Sharing, Watch};

/// The owners of such memory, each once for each registration. There are few.
#[derive(Default)]
pub(super) struct Specials {
    owners: Vec<Arc<dyn Lendable>>,
}

impl Specials {
    pub(super) fn add(&mut self, owner: Arc<dyn Lendable>) {
        self.owners.push(owner);
    }

    /// Removes one of those whose memory begins at `base`, if there is one.
    pub(super) fn remove(&mut self, base: NonNull<u8>) {
        if let Some(index) = self.owners.iter().position(|owner| owner.base() == base) {
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
                live.copy_to(offset, target);
                true
            }
            Sharing::Watched(watch) => read_watched(watch, owner.base(), offset, target),
        }
    }
}

/// Reads what is lent from where its watcher says it is; false if that is where it always is.
fn read_watched(watch: &dyn Watch, base: NonNull<u8>, offset: usize, target: &mut [u8]) -> bool {
    if watch.place(offset).is_none() {
        return false;
    }
    let mut at = offset;
    let mut rest = target;
    while !rest.is_empty() {
        let usual = NonNull::new(base.as_ptr().wrapping_byte_add(at)).unwrap_or(base);
        let (place, row) = watch.place(at).unwrap_or((usual, rest.len()));
        let (now, later) = rest.split_at_mut(row.clamp(1, rest.len()));
        // SAFETY: `Watch` promises so many readable bytes there, or that the rest is where the
        // owner has it: `target` is no longer than what is mapped from `offset` on.
        unsafe { super::access::copy(place, now) };
        at += now.len();
        rest = later;
    }
    true
}
