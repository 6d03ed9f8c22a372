//! How far each transmit queue is, for the control part to see that one stands still.
//!
//! A queue may be on another thread, and neither it nor the control part outlives the other. So
//! what they share is in neither: it is in a table of the crate's, where each transmit queue has
//! a place as long as it lives. A queue that finds no place works, but is not watched.
//!
//! Of a split ring the index that the device writes is read right here, as nobody else writes it
//! while the device runs. A packed ring has no such word: its descriptors are written by both
//! sides, and only the queue may look at them. There progress is what the program has reclaimed,
//! which may be late: so the limit is longer.

use core::hint::spin_loop;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use core::time::Duration;

use pagewire_hal::Instant;

/// No progress with work in the ring for so long is a hang.
pub(crate) const HANG_LIMIT: Duration = Duration::from_millis(500);
/// The same in a packed ring: longer than a program leaves completed frames in the ring.
pub(crate) const PACKED_HANG_LIMIT: Duration = Duration::from_secs(4);
/// Transmit queues that are watched, of all devices: 16 KiB of places.
const PLACES: usize = 256;

/// What one queue tells. A cache line, as neighbours are on other threads.
#[repr(align(64))]
struct Place {
    /// Whose it is; 0 if it is free.
    claim: AtomicU32,
    /// Held while `used` is read, and while it is withdrawn.
    is_held: AtomicBool,
    /// The first word of a used ring, whose upper half is the index; null for a packed ring.
    used: AtomicPtr<u32>,
    /// Buffers that the device was told of: in a split ring modulo 2^16.
    published: AtomicU32,
    /// Of these, those that came back, counted in the same way.
    consumed: AtomicU32,
    /// Frames that came back since the device was opened, modulo 2^32.
    completed: AtomicU32,
}

impl Place {
    const fn free() -> Self {
        Self {
            claim: AtomicU32::new(0),
            is_held: AtomicBool::new(false),
            used: AtomicPtr::new(null_mut()),
            published: AtomicU32::new(0),
            consumed: AtomicU32::new(0),
            completed: AtomicU32::new(0),
        }
    }

    fn try_hold(&self) -> bool {
        !self.is_held.swap(true, Ordering::Acquire)
    }

    fn let_go(&self) {
        self.is_held.store(false, Ordering::Release);
    }
}

static TABLE: [Place; PLACES] = [const { Place::free() }; PLACES];
static NEXT_CLAIM: AtomicU32 = AtomicU32::new(1);

/// The queue's side. Dropped before the ring's memory.
pub(crate) struct Progress {
    place: Option<&'static Place>,
    claim: u32,
}

impl Progress {
    /// Takes a place, if there is one. `used` is the first word of a split ring's used ring.
    ///
    /// # Safety
    /// `used` is aligned and may be read until the value is dropped, and nobody but the device
    /// writes it, unless nobody calls [`Watch::is_hung`] for this queue meanwhile.
    pub(crate) unsafe fn new(used: Option<NonNull<u32>>) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::in_table(&TABLE, used) }
    }

    /// # Safety
    /// As [`new`](Self::new).
    unsafe fn in_table(table: &'static [Place], used: Option<NonNull<u32>>) -> Self {
        // After 2^32 queues a claim may come again; 0 is none.
        let claim = NEXT_CLAIM.fetch_add(1, Ordering::Relaxed).max(1);
        let place = table.iter().find(|place| {
            let free = Ordering::Relaxed;
            let taken = place
                .claim
                .compare_exchange(0, claim, Ordering::AcqRel, free);
            taken.is_ok()
        });
        let progress = Self { place, claim };
        progress.note_published(0);
        progress.note_consumed(0, 0);
        if let Some(place) = place {
            let used = used.map_or(null_mut(), NonNull::as_ptr);
            place.used.store(used, Ordering::Release);
        }
        progress
    }

    /// So many buffers were published.
    #[inline(always)]
    pub(crate) fn note_published(&self, published: u32) {
        if let Some(place) = self.place {
            place.published.store(published, Ordering::Relaxed);
        }
    }

    /// So many buffers came back, `completed` since the device was opened.
    #[inline(always)]
    pub(crate) fn note_consumed(&self, consumed: u32, completed: u64) {
        if let Some(place) = self.place {
            place.consumed.store(consumed, Ordering::Relaxed);
            place.completed.store(completed as u32, Ordering::Relaxed);
        }
    }

    /// For the control part.
    pub(crate) fn watch(&self) -> Watch {
        Watch {
            place: self.place,
            claim: self.claim,
            since: None,
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        // Whoever holds it reads a few words.
        while !place.try_hold() {
            spin_loop();
        }
        place.used.store(null_mut(), Ordering::Relaxed);
        // Who takes the place sees it withdrawn: its compare-exchange acquires.
        place.claim.store(0, Ordering::Release);
        place.let_go();
    }
}

/// The control part's side.
#[derive(Clone, Copy)]
pub(crate) struct Watch {
    place: Option<&'static Place>,
    claim: u32,
    /// What was last seen, with work in the ring, and when for the first time.
    since: Option<(State, Instant)>,
}

/// What does not change while a device stands still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct State {
    completed: u32,
    /// Of a split ring.
    used: Option<u16>,
}

impl Watch {
    /// Of no queue.
    pub(crate) const NONE: Self = Self {
        place: None,
        claim: 0,
        since: None,
    };

    /// Forgets what was seen: the device was started anew.
    pub(crate) fn forget(&mut self) {
        self.since = None;
    }

    /// Whether the queue has had work and made no progress for too long.
    pub(crate) fn is_hung(&mut self, now: Instant) -> bool {
        let Some(state) = self.work() else {
            self.since = None;
            return false;
        };
        match self.since {
            Some((before, since)) if before == state => {
                let limit = match state.used {
                    Some(_) => HANG_LIMIT,
                    None => PACKED_HANG_LIMIT,
                };
                now.saturating_since(since) >= limit
            }
            _ => {
                self.since = Some((state, now));
                false
            }
        }
    }

    /// Where the queue is, if there is work in the ring. `None` also if it is gone, or if its
    /// place is held, as it is about to go.
    fn work(&self) -> Option<State> {
        let place = self.place?;
        if !place.try_hold() {
            return None;
        }
        let state = if place.claim.load(Ordering::Relaxed) == self.claim {
            Self::read(place)
        } else {
            None
        };
        place.let_go();
        state
    }

    fn read(place: &Place) -> Option<State> {
        let published = place.published.load(Ordering::Relaxed);
        let used = NonNull::new(place.used.load(Ordering::Acquire)).map(|used| {
            // SAFETY: `Progress::new` was promised that this may be read as long as the value
            // lives; its drop withdraws the pointer while it holds the place, as we do.
            let word = unsafe { used.read_volatile() };
            (u32::from_le(word) >> 16) as u16
        });
        let has_work = match used {
            Some(used) => used != published as u16,
            None => place.consumed.load(Ordering::Relaxed) != published,
        };
        has_work.then(|| State {
            completed: place.completed.load(Ordering::Relaxed),
            used,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn queue(table: &'static [Place]) -> Progress {
        // SAFETY: there is no word.
        unsafe { Progress::in_table(table, None) }
    }

    #[test]
    fn a_place_serves_one_queue_at_a_time_and_a_queue_without_one_is_not_watched() {
        static SMALL: [Place; 2] = [const { Place::free() }; 2];
        let (first, second, third) = (queue(&SMALL), queue(&SMALL), queue(&SMALL));
        let mut watches = [first.watch(), second.watch(), third.watch()];
        let mut hung = |millis: u64| watches.each_mut().map(|watch| watch.is_hung(at(millis)));
        for progress in [&first, &second, &third] {
            progress.note_published(1);
        }
        assert_eq!(hung(0), [false; 3]);
        assert_eq!(hung(3999), [false; 3]);
        assert_eq!(hung(4000), [true, true, false]);
        // The place is another's, and what stands still there is not the first's.
        drop(first);
        assert_eq!(hung(5000), [false, true, false]);
        let fourth = queue(&SMALL);
        fourth.note_published(1);
        assert_eq!(hung(6000), [false, true, false]);
        assert_eq!(hung(60_000), [false, true, false]);
        let mut watch = fourth.watch();
        assert!(!watch.is_hung(at(60_000)) && watch.is_hung(at(64_000)));
        second.note_consumed(1, 1);
        assert_eq!(hung(60_000), [false; 3]);
    }
}
