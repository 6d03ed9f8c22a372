//! Memory that a program may write again at any moment, with a watcher that is a book and no
//! system: a write to what is lent is refused, noted, and can be tried again.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeSet;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use pagewire_hal::{Granule, Lendable, Live, Refused, Sharing, Watch};

pub(crate) const PAGE: usize = 4096;

/// A handle of the memory; each clone is the same.
#[derive(Clone)]
pub(crate) struct Guarded {
    inner: Arc<Inner>,
}

struct Inner {
    base: NonNull<u8>,
    layout: Layout,
    live: bool,
    /// Holders of each page.
    counts: Mutex<Vec<u32>>,
    wanted: Mutex<BTreeSet<usize>>,
    has_wanted: AtomicBool,
    refuses: AtomicBool,
}

// SAFETY: all access to the bytes is by `write` and `read`, of a test that has one thread, or by
// whoever has them lent, which `write` leaves alone.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Guarded {
    /// Zeroed pages.
    pub(crate) fn new(pages: usize) -> Self {
        Self::of_kind(pages, false)
    }

    /// As a file that others write.
    pub(crate) fn live(pages: usize) -> Self {
        Self::of_kind(pages, true)
    }

    fn of_kind(pages: usize, live: bool) -> Self {
        let layout = Layout::from_size_align(pages * PAGE, PAGE).unwrap();
        // SAFETY: the layout has a byte at least.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
        Self {
            inner: Arc::new(Inner {
                base,
                layout,
                live,
                counts: Mutex::new(vec![0; pages]),
                wanted: Mutex::default(),
                has_wanted: AtomicBool::new(false),
                refuses: AtomicBool::new(false),
            }),
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.inner.layout.size()
    }

    /// The program writes; false if a page of it is lent, of which somebody is told then.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) -> bool {
        assert!(at + bytes.len() <= self.size());
        let pages = at / PAGE..(at + bytes.len()).div_ceil(PAGE);
        let counts = self.inner.counts.lock().unwrap();
        let lent: Vec<usize> = pages.filter(|page| counts[*page] > 0).collect();
        let mut wanted = self.inner.wanted.lock().unwrap();
        if !lent.is_empty() && !self.inner.live {
            wanted.extend(lent);
            self.inner.has_wanted.store(true, Ordering::Relaxed);
            return false;
        }
        // SAFETY: the range lies in the memory.
        let to = unsafe { self.inner.base.add(at) };
        // SAFETY: as above, and none of its pages is lent.
        unsafe { to.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        true
    }

    /// The bytes as they are now.
    pub(crate) fn read(&self, range: Range<usize>) -> Vec<u8> {
        let mut bytes = vec![0; range.len()];
        assert!(range.end <= self.size());
        let to = NonNull::from(&mut bytes[..]).cast();
        // SAFETY: the range lies in the memory.
        let from = unsafe { self.inner.base.add(range.start) };
        // SAFETY: as above; the only writer is the thread that reads here.
        unsafe { from.copy_to_nonoverlapping(to, range.len()) };
        bytes
    }

    /// Whether all loans of these pages are refused from now on.
    pub(crate) fn refuse(&self, on: bool) {
        self.inner.refuses.store(on, Ordering::Relaxed);
    }

    /// Pages that are lent.
    pub(crate) fn lent_pages(&self) -> usize {
        let counts = self.inner.counts.lock().unwrap();
        counts.iter().filter(|count| **count > 0).count()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and nobody has it any more.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

// SAFETY: initialised memory that stays until the last handle is dropped.
unsafe impl Lendable for Guarded {
    fn base(&self) -> NonNull<u8> {
        self.inner.base
    }
    fn len(&self) -> usize {
        self.size()
    }
    fn sharing(&self) -> Sharing<'_> {
        if self.inner.live {
            Sharing::Live(self)
        } else {
            Sharing::Watched(self)
        }
    }
}

// SAFETY: `write` changes nothing of a page that is lent.
unsafe impl Watch for Guarded {
    fn page(&self) -> Granule {
        Granule::from_bytes(PAGE).unwrap()
    }
    fn lend(&self, range: Range<usize>) -> Result<(), Refused> {
        if self.inner.refuses.load(Ordering::Relaxed) {
            return Err(Refused::Unavailable);
        }
        let mut counts = self.inner.counts.lock().unwrap();
        (range.start / PAGE..range.end.div_ceil(PAGE)).for_each(|page| counts[page] += 1);
        Ok(())
    }
    unsafe fn release(&self, range: Range<usize>) {
        let mut counts = self.inner.counts.lock().unwrap();
        for page in range.start / PAGE..range.end.div_ceil(PAGE) {
            counts[page] = counts[page].checked_sub(1).expect("it was lent");
            if counts[page] == 0 {
                self.inner.wanted.lock().unwrap().remove(&page);
            }
        }
    }
    fn copy_to(&self, start: usize, into: &mut [u8]) -> Result<(), Refused> {
        let bytes = self.read(start..start + into.len());
        into.copy_from_slice(&bytes);
        Ok(())
    }
    fn has_wanted(&self) -> bool {
        self.inner.has_wanted.load(Ordering::Relaxed)
    }
    fn wanted(&self, each: &mut dyn FnMut(Range<usize>)) {
        let wanted = self.inner.wanted.lock().unwrap();
        self.inner
            .has_wanted
            .store(!wanted.is_empty(), Ordering::Relaxed);
        for page in wanted.iter() {
            each(page * PAGE..(page + 1) * PAGE);
        }
    }
}

impl Live for Guarded {
    fn copy_to(&self, start: usize, into: &mut [u8]) {
        let bytes = self.read(start..start + into.len());
        into.copy_from_slice(&bytes);
    }
}
