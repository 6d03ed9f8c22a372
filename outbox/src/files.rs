//! What the stack and the device have of ours: texts, and ranges of files where they are.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use pagewire_hal::{DmaBuffer, DmaMemory, Instant, Region, RegionId, TxQueue};
use pagewire_tcp::{SendError, Stack};
use pagewire_vfio::{LiveFile, VfioError, VfioHandle};

use crate::completions::OutboxError;
use crate::message::{Piece, Placed, Source};

/// Bytes of a buffer, for texts and for what is read of files: what [`Outbox::add_buffer`](crate::Outbox::add_buffer)
/// wants.
pub const BUFFER: usize = 4096;
/// Bytes that are copied when they could not be lent or mapped, before that is tried again.
pub(crate) const COPIED_BEFORE_RETRY: u64 = 64 << 10;
/// The longest window.
const LONGEST_WINDOW: u64 = 1 << 30;

/// Makes a range of a file reachable for a device, where it is.
pub trait MapFile {
    /// The region. When it is dropped the file is not mapped any more.
    ///
    /// # Errors
    /// [`NotMapped`]: it is read instead.
    fn map(&self, file: LiveFile) -> Result<Arc<dyn Region>, NotMapped>;
}

/// Why a range of a file is not reachable for a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotMapped {
    /// As much is mapped as may be, for now.
    Full(String),
    /// Anything else.
    Failed(String),
}

impl fmt::Display for NotMapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for NotMapped {}

impl MapFile for VfioHandle {
    fn map(&self, file: LiveFile) -> Result<Arc<dyn Region>, NotMapped> {
        match self.register(file) {
            Ok(region) => Ok(Arc::new(region)),
            Err(error @ (VfioError::MemlockTooSmall { .. } | VfioError::NoAddresses { .. })) => {
                Err(NotMapped::Full(error.to_string()))
            }
            Err(error) => Err(NotMapped::Failed(error.to_string())),
        }
    }
}

/// Bytes of files, in whole pages, that may be mapped for the device, and so locked in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// For one connection, but at least a page.
    pub connection: usize,
    /// For all of them. What is beyond is read.
    pub total: usize,
    /// The longest range that is mapped at a time, from a page to a gibibyte. Each costs a mapping, for the
    /// program and for the device, and is given back whole.
    pub window: usize,
    /// Connections that are sure of a buffer at any time, if there are as many buffers.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connection: 4 << 20,
            total: 64 << 20,
            window: 1 << 20,
            connections: 256,
        }
    }
}

/// What an outbox has done with files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Bytes of files, in whole pages, that are mapped for the device now.
    pub mapped: usize,
    /// The most that there were.
    pub most_mapped: usize,
    /// Bytes of files that were read, and of memory that was copied, as there was no room to map or to lend
    /// them, or as they could not be.
    pub copied: u64,
}

/// Why bytes are not reachable for the device.
pub(crate) enum Obstacle {
    /// There is no room now; it comes back.
    NoRoom,
    /// They never will be.
    Broken(OutboxError),
}

enum Kept<M: DmaMemory> {
    Buffer(Arc<DmaBuffer<M>>),
    /// A range of a file, in so many bytes of pages.
    Window(usize),
}

/// What one connection has of these, the oldest first.
#[derive(Default)]
pub(crate) struct Claims {
    held: VecDeque<Claim>,
    mapped: usize,
    buffers: usize,
}

struct Claim {
    id: RegionId,
    /// Of a file that is mapped; 0 for a buffer.
    mapped: usize,
    since: Instant,
}

impl Claims {
    fn add(&mut self, id: RegionId, mapped: usize, since: Instant) {
        self.held.push_back(Claim { id, mapped, since });
        self.mapped += mapped;
        self.buffers += usize::from(mapped == 0);
    }

    fn forget(&mut self, claim: &Claim) {
        self.mapped -= claim.mapped;
        self.buffers -= usize::from(claim.mapped == 0);
    }

    /// How long the oldest has been held.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        let oldest = self.held.front();
        oldest.map_or(Duration::ZERO, |claim| now.saturating_since(claim.since))
    }
}

/// The books.
pub(crate) struct Files<M: DmaMemory> {
    map: Box<dyn MapFile + Send>,
    limits: Limits,
    free: Vec<Arc<DmaBuffer<M>>>,
    kept: HashMap<RegionId, Kept<M>>,
    pub(crate) counters: Counters,
    /// The system let no more be mapped than so many bytes. Until some are given back it is not asked
    /// again, …
    full_at: usize,
    /// … or, if none were, until so many have been read.
    read_first: u64,
    /// Regions of the program's that were released.
    pub(crate) others: VecDeque<(RegionId, Arc<dyn Region>)>,
    /// The system's page: files are mapped from a multiple of it on.
    page: u64,
}

impl<M: DmaMemory> Files<M> {
    pub(crate) fn new(map: Box<dyn MapFile + Send>, limits: Limits) -> Self {
        Self {
            map,
            limits,
            free: Vec::new(),
            kept: HashMap::new(),
            counters: Counters::default(),
            full_at: usize::MAX,
            read_first: 0,
            others: VecDeque::new(),
            page: rustix::param::page_size() as u64,
        }
    }

    pub(crate) fn add_buffer(&mut self, memory: M) {
        self.free.push(Arc::new(DmaBuffer::new(memory)));
    }

    pub(crate) fn free_buffers(&self) -> usize {
        self.free.len()
    }

    /// Makes the next bytes of a piece reachable for the device, if they are not.
    pub(crate) fn place<Q: TxQueue>(
        &mut self,
        stack: &mut Stack<Q, M>,
        now: Instant,
        piece: &mut Piece,
        claims: &mut Claims,
    ) -> Result<(), Obstacle> {
        let is_direct = matches!(piece.source, Source::Memory(_)) && !piece.is_copied();
        if piece.placed.is_some() || is_direct {
            return Ok(());
        }
        if matches!(piece.source, Source::File(_)) && !piece.is_copied() {
            piece.placed = self.window(stack, now, piece, claims)?;
            if piece.placed.is_some() {
                return Ok(());
            }
        }
        let (region, len) = self.put(stack, now, piece, claims)?;
        let copied = !matches!(piece.source, Source::Text(_));
        if copied {
            self.counters.copied += len as u64;
            self.read_first = self.read_first.saturating_sub(len as u64);
        }
        piece.placed = Some(Placed {
            region,
            start: piece.position,
            len,
            copied,
        });
        Ok(())
    }

    /// Fills a buffer with the next bytes of a piece; returns its region and how many are in it.
    ///
    /// A connection that has none may have the last one; one that has some leaves one for each other.
    fn put<Q: TxQueue>(
        &mut self,
        stack: &mut Stack<Q, M>,
        now: Instant,
        piece: &Piece,
        claims: &mut Claims,
    ) -> Result<(RegionId, usize), Obstacle> {
        if claims.buffers > 0 && self.free.len() < self.limits.connections {
            return Err(Obstacle::NoRoom);
        }
        let mut buffer = self.free.pop().ok_or(Obstacle::NoRoom)?;
        // Whoever had it before has given it back.
        let bytes = Arc::get_mut(&mut buffer).map(DmaBuffer::as_mut_slice);
        let bytes = bytes.unwrap_or_default();
        let len = bytes.len().min(BUFFER);
        let len = len.min(usize::try_from(piece.rest()).unwrap_or(usize::MAX));
        let filled = fill(stack, piece, bytes.get_mut(..len).unwrap_or_default());
        let region: Arc<DmaBuffer<M>> = Arc::clone(&buffer);
        let registered = filled.and_then(|()| {
            let id = stack.register(region);
            id.map_err(|error| OutboxError::Send(SendError::Lend(error)))
        });
        match registered {
            Ok(id) => {
                self.kept.insert(id, Kept::Buffer(buffer));
                claims.add(id, 0, now);
                Ok((id, len))
            }
            Err(error) => {
                self.free.push(buffer);
                Err(Obstacle::Broken(error))
            }
        }
    }

    /// Maps the next bytes of a file, or as many as are mapped at a time. `None`: they are to be read.
    fn window<Q: TxQueue>(
        &mut self,
        stack: &mut Stack<Q, M>,
        now: Instant,
        piece: &mut Piece,
        claims: &mut Claims,
    ) -> Result<Option<Placed>, Obstacle> {
        let Source::File(file) = &piece.source else {
            return Ok(None);
        };
        let (start, len) = self.next_window(piece);
        let pages = len.next_multiple_of(self.page as usize);
        // What it has itself comes back by acknowledgments of its own; for what others have, which may
        // be slow, it does not wait.
        let waits_for_itself = claims.mapped > 0;
        if waits_for_itself && claims.mapped + pages > self.limits.connection {
            return Err(Obstacle::NoRoom);
        }
        let mapped = self.counters.mapped;
        let is_over = mapped + pages > self.limits.total || mapped >= self.full_at;
        if is_over || self.read_first > 0 {
            return match waits_for_itself {
                true => Err(Obstacle::NoRoom),
                false => Ok(None),
            };
        }
        let registered = self.map_live(file, start, len).and_then(|region| {
            let id = stack.register(region);
            id.map_err(|error| NotMapped::Failed(error.to_string()))
        });
        let region = match registered {
            Ok(region) => region,
            Err(why) => {
                log::debug!("a file is read, not lent: {why}");
                match why {
                    NotMapped::Full(_) if mapped > 0 => self.full_at = mapped,
                    NotMapped::Full(_) => self.read_first = COPIED_BEFORE_RETRY,
                    NotMapped::Failed(_) => piece.copy_next(COPIED_BEFORE_RETRY),
                }
                return match waits_for_itself && self.full_at <= mapped {
                    true => Err(Obstacle::NoRoom),
                    false => Ok(None),
                };
            }
        };
        self.kept.insert(region, Kept::Window(pages));
        self.counters.mapped += pages;
        self.counters.most_mapped = self.counters.most_mapped.max(self.counters.mapped);
        claims.add(region, pages, now);
        Ok(Some(Placed {
            region,
            start,
            len,
            copied: false,
        }))
    }

    /// The range of the file that is to be mapped: where it begins, and its length.
    fn next_window(&self, piece: &Piece) -> (u64, usize) {
        let Limits {
            connection,
            total,
            window,
            ..
        } = self.limits;
        let longest = (window.min(connection).min(total) as u64).min(LONGEST_WINDOW);
        let window = (longest & !(self.page - 1)).max(self.page);
        let start = piece.position & !(self.page - 1);
        let stop = (piece.position / window + 1).saturating_mul(window);
        let len = stop.min(piece.end).saturating_sub(start);
        (start, usize::try_from(len).unwrap_or(0))
    }

    fn map_live(&self, file: &File, start: u64, len: usize) -> Result<Arc<dyn Region>, NotMapped> {
        let failed = |error: &dyn fmt::Display| NotMapped::Failed(error.to_string());
        // A file has a mapping, and with it a descriptor, for each window.
        let file = file.try_clone().map_err(|error| failed(&error))?;
        let file = LiveFile::map(file, start, len).map_err(|error| failed(&error))?;
        self.map.map(file)
    }

    /// Gives back what a connection does not need any more.
    pub(crate) fn give_up<Q: TxQueue>(
        &mut self,
        stack: &mut Stack<Q, M>,
        id: RegionId,
        claims: &mut Claims,
    ) {
        let place = claims.held.iter().position(|claim| claim.id == id);
        if let Some(claim) = place.and_then(|place| claims.held.remove(place)) {
            claims.forget(&claim);
            release(stack, claim.id);
            // At once: what is still mapped counts, and others may wait for it.
            self.collect(stack);
        }
    }

    /// Gives back all that a connection has: it is over.
    pub(crate) fn give_up_all<Q: TxQueue>(&self, stack: &mut Stack<Q, M>, claims: &mut Claims) {
        while let Some(claim) = claims.held.pop_front() {
            claims.forget(&claim);
            release(stack, claim.id);
        }
    }

    /// Takes back what neither the stack nor the device uses any more; whether there was anything.
    pub(crate) fn collect<Q: TxQueue>(&mut self, stack: &mut Stack<Q, M>) -> bool {
        let mut worked = false;
        while let Some((id, region)) = stack.take_released() {
            worked = true;
            match self.kept.remove(&id) {
                Some(Kept::Buffer(buffer)) => {
                    drop(region);
                    self.free.push(buffer);
                }
                // The region unmaps the file when it is dropped.
                Some(Kept::Window(pages)) => {
                    self.counters.mapped -= pages;
                    self.full_at = usize::MAX;
                }
                None => self.others.push_back((id, region)),
            }
        }
        worked
    }
}

/// The next bytes of a piece.
fn fill<Q: TxQueue, M: DmaMemory>(
    stack: &Stack<Q, M>,
    piece: &Piece,
    into: &mut [u8],
) -> Result<(), OutboxError> {
    match &piece.source {
        Source::Memory(region) => {
            let start = usize::try_from(piece.position).unwrap_or(usize::MAX);
            let copied = stack.port().ledger().copy_now(*region, start, into);
            copied.map_err(|error| OutboxError::Send(SendError::Lend(error)))
        }
        Source::Text(bytes) => {
            let from = usize::try_from(piece.position).unwrap_or(usize::MAX);
            let rest = bytes.get(from..).unwrap_or_default();
            for (to, from) in into.iter_mut().zip(rest) {
                *to = *from;
            }
            Ok(())
        }
        Source::File(file) => {
            let read = LiveFile::read(file, piece.position, into);
            read.map_err(|error| OutboxError::Read(error.kind()))
        }
    }
}

fn release<Q: TxQueue, M: DmaMemory>(stack: &mut Stack<Q, M>, id: RegionId) {
    if let Err(error) = stack.release_region(id) {
        log::error!("a region that was ours is not any more: {error}");
    }
}
