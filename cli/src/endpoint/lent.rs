//! What the stack and the device have of ours: texts, and ranges of files where they are.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use pagewire::hal::{DmaBuffer, DmaMemory, Granule, Instant, Nic, RegionId};
use pagewire_vfio::LiveFile;

use super::home::Refusal;
use super::{Endpoint, Home, MemoryOf, PAGE};
use crate::error::Failure;

/// The longest text.
pub(crate) const TEXT: usize = 4096;

/// The longest range of a file that is mapped at a time. Each costs a mapping, for the program and
/// for the device, and is given back whole.
const WINDOW: usize = 1 << 20;

/// Bytes of files that may be mapped for the device, and so locked in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// For one connection; also what it may have accepted and not acknowledged.
    pub(crate) connection: usize,
    /// For all of them.
    pub(crate) total: usize,
    /// Fewer in a row are copied, where short ones are; the sender's own threshold if there is none.
    pub(crate) share_min: Option<usize>,
}

/// Why nothing was mapped.
#[derive(Debug)]
pub(crate) enum NoRoom {
    /// Others have it: it comes back.
    Now,
    /// It will never be.
    Ever(String),
}

enum Kept<M: DmaMemory> {
    Text(Arc<DmaBuffer<M>>),
    /// A range of a file of so many bytes.
    Window(usize),
}

/// The books.
pub(super) struct Lent<M: DmaMemory> {
    budget: Budget,
    free: Vec<Arc<DmaBuffer<M>>>,
    kept: HashMap<RegionId, Kept<M>>,
    mapped: usize,
    most_mapped: usize,
}

impl<M: DmaMemory> Lent<M> {
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            budget,
            free: Vec::new(),
            kept: HashMap::new(),
            mapped: 0,
            most_mapped: 0,
        }
    }
}

/// What one connection has of these, the oldest first.
#[derive(Default)]
pub(crate) struct Claims {
    held: VecDeque<Claim>,
    mapped: usize,
}

struct Claim {
    id: RegionId,
    bytes: usize,
    /// `None`: the stack has none of it yet.
    since: Option<Instant>,
}

impl Claims {
    fn add(&mut self, id: RegionId, bytes: usize, since: Option<Instant>) {
        self.held.push_back(Claim { id, bytes, since });
        self.mapped += bytes;
    }

    /// The stack has begun to take a text.
    pub(crate) fn begin(&mut self, id: RegionId, now: Instant) {
        if let Some(claim) = self.held.iter_mut().find(|claim| claim.id == id) {
            claim.since.get_or_insert(now);
        }
    }

    /// How long the oldest has been held.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        let oldest = self.held.iter().find_map(|claim| claim.since);
        oldest.map_or(Duration::ZERO, |since| now.saturating_since(since))
    }
}

impl<H: Home> Endpoint<H> {
    /// Makes room for `count` texts.
    pub(crate) fn prepare_texts(&mut self, count: usize) -> Result<(), Failure> {
        for _ in 0..count {
            let memory = self.nic.allocate(TEXT, PAGE);
            let memory = memory.map_err(|error| {
                Failure::usage(format!("no memory for the heads of responses: {error}"))
            })?;
            self.lent.free.push(Arc::new(DmaBuffer::new(memory)));
        }
        Ok(())
    }

    /// Makes room for bytes that are copied instead of lent.
    pub(crate) fn prepare_copies(&mut self, bytes: usize) -> Result<(), Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::usage(format!("no memory for what is copied: {error}"))
        };
        let memory = self.nic.allocate(bytes, PAGE);
        let memory = memory.map_err(|error| failed(&error))?;
        let slot = Granule::from_bytes(PAGE).unwrap_or(Granule::CONTIGUOUS);
        let pool = self.stack.set_copy_pool(memory, slot);
        pool.map_err(|error| failed(&error))
    }

    /// Whether there is room for a text.
    pub(crate) fn has_room_for_text(&self) -> bool {
        !self.lent.free.is_empty()
    }

    /// Puts a text of at most [`TEXT`] bytes where the device reaches it. `None`: there is no room
    /// now.
    pub(crate) fn put_text(&mut self, text: &[u8], claims: &mut Claims) -> Option<RegionId> {
        let mut buffer = self.lent.free.pop()?;
        // Whoever had it before has given it back.
        let bytes = Arc::get_mut(&mut buffer)?.as_mut_slice();
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        let region: Arc<DmaBuffer<MemoryOf<H>>> = Arc::clone(&buffer);
        let id = self.stack.register(region).ok()?;
        self.lent.kept.insert(id, Kept::Text(buffer));
        claims.add(id, 0, None);
        Some(id)
    }

    /// Maps the bytes of a file from `position` on, up to `end`, or as many as are mapped at a time.
    /// Returns the region, and at which position of the file it begins and how long it is.
    pub(crate) fn map_window(
        &mut self,
        file: &File,
        (position, end): (u64, u64),
        claims: &mut Claims,
    ) -> Result<(RegionId, u64, usize), NoRoom> {
        let Budget {
            connection, total, ..
        } = self.lent.budget;
        let window = WINDOW.min(connection).next_multiple_of(PAGE) as u64;
        let start = position & !(PAGE as u64 - 1);
        let stop = (position / window + 1).saturating_mul(window).min(end);
        let len = usize::try_from(stop.saturating_sub(start)).unwrap_or(0);
        let is_over = |mapped: usize, most: usize| mapped > 0 && mapped + len > most;
        if is_over(claims.mapped, connection) || is_over(self.lent.mapped, total) {
            return Err(NoRoom::Now);
        }
        let ever = |error: &dyn std::fmt::Display| NoRoom::Ever(error.to_string());
        let file = file.try_clone().map_err(|error| ever(&error))?;
        let file = LiveFile::map(file, start, len).map_err(|error| ever(&error))?;
        let region = self.home.map(file).map_err(|refusal| match refusal {
            Refusal::Full(_) if self.lent.mapped > 0 => NoRoom::Now,
            Refusal::Full(why) | Refusal::Failed(why) => NoRoom::Ever(why),
        })?;
        let id = self.stack.register(region).map_err(|error| ever(&error))?;
        self.lent.kept.insert(id, Kept::Window(len));
        self.lent.mapped += len;
        self.lent.most_mapped = self.lent.most_mapped.max(self.lent.mapped);
        claims.add(id, len, Some(self.home.now()));
        Ok((id, start, len))
    }

    /// Gives back what a connection does not need any more: the oldest it has, and no other.
    pub(crate) fn give_up(&mut self, id: RegionId, claims: &mut Claims) {
        let place = claims.held.iter().position(|claim| claim.id == id);
        if let Some(claim) = place.and_then(|place| claims.held.remove(place)) {
            claims.mapped -= claim.bytes;
            self.release(id);
            // At once: what is still mapped counts, and others may wait for it.
            self.collect();
        }
    }

    /// Gives back all that a connection has: it is over.
    pub(crate) fn give_up_all(&mut self, claims: &mut Claims) {
        for claim in claims.held.drain(..) {
            self.release(claim.id);
        }
        claims.mapped = 0;
    }

    fn release(&mut self, id: RegionId) {
        if let Err(error) = self.stack.release_region(id) {
            log::error!("a region that was ours is not any more: {error}");
        }
    }

    /// Takes back what neither the stack nor the device uses any more; whether there was anything.
    pub(crate) fn collect(&mut self) -> bool {
        let mut worked = false;
        while let Some((id, region)) = self.stack.take_released() {
            worked = true;
            // Unmaps a file.
            drop(region);
            match self.lent.kept.remove(&id) {
                Some(Kept::Text(buffer)) => self.lent.free.push(buffer),
                Some(Kept::Window(len)) => self.lent.mapped -= len,
                None => {}
            }
        }
        worked
    }

    /// The most bytes of files that were mapped for the device at a time.
    pub(crate) fn most_mapped_bytes(&self) -> usize {
        self.lent.most_mapped
    }
}
