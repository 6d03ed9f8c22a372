//! What the stack and the device have of ours: texts, and ranges of files where they are.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use pagewire_hal::{DmaBuffer, DmaMemory, Instant, Region, RegionId, TxQueue};
use pagewire_tcp::Stack;
use pagewire_vfio::{LiveFile, VfioError, VfioHandle};

use crate::message::{Piece, Placed, Source};

/// Bytes of a buffer, for texts and for what is read of files: what [`Outbox::add_buffer`](crate::Outbox::add_buffer)
/// wants.
pub const BUFFER: usize = 4096;
/// Bytes that are read when the system let nothing more be locked, before it is asked again.
const READ_BEFORE_RETRY: u64 = 64 << 10;

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

/// Bytes of files that may be mapped for the device, and so locked in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// For one connection. The first window of each may be longer.
    pub connection: usize,
    /// For all of them. What is beyond is read.
    pub total: usize,
    /// The longest range that is mapped at a time, a multiple of the page. Each costs a mapping, for the
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
    /// Bytes of files that are mapped for the device now.
    pub mapped: usize,
    /// The most that there were.
    pub most_mapped: usize,
    /// Bytes of files that were read, as there was no room to map them, or as they could not be.
    pub read: u64,
}

/// There is none now; it comes back.
pub(crate) struct NoRoom;

enum Kept<M: DmaMemory> {
    Buffer(Arc<DmaBuffer<M>>),
    /// A range of a file of so many bytes.
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
    /// Bytes to read before the system is asked for more again.
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
    ) -> Result<(), NoRoom> {
        if piece.placed.is_some() {
            return Ok(());
        }
        if matches!(piece.source, Source::File(_)) && !piece.is_read {
            piece.placed = self.window(stack, now, piece, claims)?;
            if piece.placed.is_some() {
                return Ok(());
            }
        }
        let (position, rest) = (piece.position, piece.rest());
        let (region, len) = match &piece.source {
            Source::Memory(_) => return Ok(()),
            Source::Text(bytes) => self.put(stack, now, claims, |into| {
                let from = usize::try_from(position).unwrap_or(usize::MAX);
                let rest = bytes.get(from..).unwrap_or_default();
                let len = rest.len().min(into.len());
                for (to, from) in into.iter_mut().zip(rest) {
                    *to = *from;
                }
                len
            })?,
            Source::File(file) => self.put(stack, now, claims, |into| {
                let len = into.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
                LiveFile::read(file, position, into.get_mut(..len).unwrap_or_default());
                len
            })?,
        };
        let read = matches!(piece.source, Source::File(_));
        if read {
            self.counters.read += len as u64;
            self.read_first = self.read_first.saturating_sub(len as u64);
        }
        piece.placed = Some(Placed {
            region,
            start: position,
            len,
            read,
        });
        Ok(())
    }

    /// Fills a buffer; returns its region and how many bytes are in it.
    ///
    /// A connection that has none may have the last one; one that has some leaves as many as others may
    /// want.
    fn put<Q: TxQueue>(
        &mut self,
        stack: &mut Stack<Q, M>,
        now: Instant,
        claims: &mut Claims,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<(RegionId, usize), NoRoom> {
        if claims.buffers > 0 && self.free.len() <= self.limits.connections {
            return Err(NoRoom);
        }
        let mut buffer = self.free.pop().ok_or(NoRoom)?;
        // Whoever had it before has given it back.
        let Some(bytes) = Arc::get_mut(&mut buffer).map(DmaBuffer::as_mut_slice) else {
            log::error!("a buffer that was given back is in use");
            return Err(NoRoom);
        };
        let bytes_there = bytes.len().min(BUFFER);
        let len = fill(bytes.get_mut(..bytes_there).unwrap_or_default());
        let region: Arc<DmaBuffer<M>> = Arc::clone(&buffer);
        match stack.register(region) {
            Ok(id) => {
                self.kept.insert(id, Kept::Buffer(buffer));
                claims.add(id, 0, now);
                Ok((id, len))
            }
            Err(error) => {
                log::warn!("a buffer cannot be lent: {error}");
                self.free.push(buffer);
                Err(NoRoom)
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
    ) -> Result<Option<Placed>, NoRoom> {
        let Source::File(file) = &piece.source else {
            return Ok(None);
        };
        let (start, len) = self.next_window(piece);
        // What it has itself comes back by acknowledgments of its own; for what others have, which may
        // be slow, it does not wait.
        if claims.mapped > 0 && claims.mapped + len > self.limits.connection {
            return Err(NoRoom);
        }
        let mapped = self.counters.mapped;
        let is_full = self.read_first > 0 || (mapped > 0 && mapped + len > self.limits.total);
        if is_full {
            return if claims.mapped > 0 {
                Err(NoRoom)
            } else {
                Ok(None)
            };
        }
        let registered = self.map_live(file, start, len).and_then(|region| {
            let id = stack.register(region);
            id.map_err(|error| NotMapped::Failed(error.to_string()))
        });
        let region = match registered {
            Ok(region) => region,
            Err(NotMapped::Full(_)) if claims.mapped > 0 => return Err(NoRoom),
            Err(why) => {
                log::debug!("a file is read, not lent: {why}");
                match why {
                    NotMapped::Full(_) => self.read_first = READ_BEFORE_RETRY,
                    NotMapped::Failed(_) => piece.is_read = true,
                }
                return Ok(None);
            }
        };
        self.kept.insert(region, Kept::Window(len));
        self.counters.mapped += len;
        self.counters.most_mapped = self.counters.most_mapped.max(self.counters.mapped);
        claims.add(region, len, now);
        Ok(Some(Placed {
            region,
            start,
            len,
            read: false,
        }))
    }

    /// The range of the file that is to be mapped: where it begins, and its length.
    fn next_window(&self, piece: &Piece) -> (u64, usize) {
        let longest = self.limits.window.min(self.limits.connection) as u64;
        let window = longest.next_multiple_of(self.page).max(self.page);
        let start = piece.position & !(self.page - 1);
        let stop = (piece.position / window + 1).saturating_mul(window);
        let len = stop.min(piece.end).saturating_sub(start);
        (start, usize::try_from(len).unwrap_or(0))
    }

    fn map_live(&self, file: &File, start: u64, len: usize) -> Result<Arc<dyn Region>, NotMapped> {
        let failed = |error: &dyn fmt::Display| NotMapped::Failed(error.to_string());
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
                Some(Kept::Window(len)) => self.counters.mapped -= len,
                None => self.others.push_back((id, region)),
            }
        }
        worked
    }
}

fn release<Q: TxQueue, M: DmaMemory>(stack: &mut Stack<Q, M>, id: RegionId) {
    if let Err(error) = stack.release_region(id) {
        log::error!("a region that was ours is not any more: {error}");
    }
}
