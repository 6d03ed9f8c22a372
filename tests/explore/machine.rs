//! A machine that does as the explorer says: memory, and a device that reads it through a map of
//! its own. The driver's side of it is in `device`.

use std::collections::VecDeque;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard};

use pagewire::hal::{
    DeviceAddress, DmaMemory, DomainId, Fragment, Granule, Region, Token, Translation,
};

/// Bytes that a region can be: the beginning of a page of any size that is used here.
#[repr(align(256))]
struct Pages([[u8; 256]; 3]);

/// Never changes and is there for ever, so no region can be wrong about its memory. What the
/// device may read is the map's business.
static PAGES: Pages = Pages(pattern());

const fn pattern() -> [[u8; 256]; 3] {
    let mut pages = [[0; 256]; 3];
    let mut at = 0;
    while at < 3 * 256 {
        pages[at / 256][at % 256] = (at * 151 + at / 256 * 7 + 1) as u8;
        at += 1;
    }
    pages
}

/// The bytes of page block `index`, from `start`.
pub(crate) fn bytes(index: usize, start: usize, len: usize) -> &'static [u8] {
    &PAGES.0[index][start..start + len]
}

/// A fault that the machine is made to have, for tests of the explorer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Reclaim hands back a frame that the device has not completed.
    HandsBackEarly,
    /// Reclaim hands back every second frame twice.
    HandsBackTwice,
    /// Every second completion is never handed back.
    LosesCompletions,
    /// A restart hands back frames although the device still reads.
    QuietTooEarly,
    /// A restart forgets what was completed and not yet handed back.
    RestartForgetsDone,
}

/// The token of a frame that was handed back early.
pub(crate) const GONE: Token = Token(u32::MAX);

/// How far a frame has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// The device has not been told of it.
    Posted,
    /// The device may read it at any time.
    Rung,
    /// The device is done, the port has not been told.
    Done,
}

/// A frame between post and the return of its token.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) token: Token,
    pub(crate) fragments: Vec<Fragment>,
    /// What the device found there at the post.
    pub(crate) bytes: Vec<u8>,
    pub(crate) stage: Stage,
}

/// Who owns mapped memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    Region(usize),
    Pool,
}

#[derive(Debug)]
struct Mapping {
    address: u64,
    pointer: NonNull<u8>,
    len: usize,
    owner: Owner,
}

// SAFETY: the pointer is only read through, under the lock of the machine, while the memory is
// mapped; whoever maps it keeps it valid on any thread until it is unmapped.
unsafe impl Send for Mapping {}

/// Where the device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Power {
    Running,
    Stopping,
    Quiet,
    /// It never became quiet.
    Failed,
}

/// All of the machine's state.
#[derive(Debug)]
pub(crate) struct State {
    map: Vec<Mapping>,
    next_address: u64,
    /// All frames that are out, in the order of posting.
    pub(crate) posted: Vec<Held>,
    /// Tokens of done frames in the order of completion.
    pub(crate) done: VecDeque<Token>,
    pub(crate) power: Power,
    /// Frames that the ring takes.
    pub(crate) capacity: usize,
    /// What a restart says of initialisation.
    pub(crate) initialises: bool,
    /// How often each region was dropped.
    pub(crate) drops: [u32; 3],
    /// Blocks of pool memory that were dropped.
    pub(crate) pool_drops: u32,
    pub(crate) fault: Fault,
    /// Tokens handed back by reclaim.
    pub(crate) reclaimed: u32,
    /// The bytes of all posts since somebody took them.
    pub(crate) log: Vec<Vec<u8>>,
    /// What the device was made to read and could not, or found changed.
    pub(crate) violations: Vec<String>,
}

/// The machine. A clone is the same one.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    domain: DomainId,
    state: Arc<Mutex<State>>,
}

impl Machine {
    pub(crate) fn new(capacity: usize, fault: Fault) -> Self {
        let state = State {
            map: Vec::new(),
            next_address: 0x1_0000,
            posted: Vec::new(),
            done: VecDeque::new(),
            power: Power::Running,
            capacity,
            initialises: true,
            drops: [0; 3],
            pool_drops: 0,
            fault,
            reclaimed: 0,
            log: Vec::new(),
            violations: Vec::new(),
        };
        Self {
            domain: DomainId::new_unique(),
            state: Arc::new(Mutex::new(state)),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Bytes `start..start + len` of page block `index`, as a region whose pages of `page` bytes
    /// the device sees apart.
    pub(crate) fn region(
        &self,
        index: usize,
        start: usize,
        len: usize,
        page: Granule,
    ) -> Arc<dyn Region> {
        let bytes = bytes(index, start, len);
        let lead = start & (page.bytes() - 1);
        let mut state = self.lock();
        let mut addresses = Vec::new();
        let mut at = 0;
        while at < len {
            let into_page = (start + at) & (page.bytes() - 1);
            let part = (page.bytes() - into_page).min(len - at);
            let address = state.map(&bytes[at..at + part], Owner::Region(index), into_page);
            addresses.push(DeviceAddress(address - into_page as u64));
            at += part;
        }
        Arc::new(PageRegion {
            machine: self.clone(),
            index,
            bytes,
            page,
            lead,
            addresses,
        })
    }

    pub(crate) fn domain(&self) -> DomainId {
        self.domain
    }

    /// Memory for the driver; none for an alignment that nobody here asks for.
    pub(crate) fn pool_memory(&self, len: usize, align: usize) -> Option<PoolMemory> {
        if align > align_of::<Line>() {
            return None;
        }
        let count = len.div_ceil(size_of::<Line>());
        let bytes = Box::into_raw(vec![Line([0; 256]); count].into_boxed_slice());
        let pointer = NonNull::new(bytes.cast::<u8>())?;
        let mut state = self.lock();
        let address = state.next_address;
        state.next_address += 0x1_0000;
        state.map.push(Mapping {
            address,
            pointer,
            len,
            owner: Owner::Pool,
        });
        Some(PoolMemory {
            machine: self.clone(),
            pointer,
            len,
            address,
        })
    }

    /// The end of the device: what the program has leaked for its sake is not needed any more.
    pub(crate) fn gone(&self) {
        let mut state = self.lock();
        let map = std::mem::take(&mut state.map);
        state.posted = Vec::new();
        drop(state);
        for mapping in map.iter().filter(|m| m.owner == Owner::Pool) {
            // SAFETY: made by `Box::into_raw` in `pool_memory`. Still mapped, so the value that owned
            // it was leaked and nobody will free it; the port is gone, as is the device.
            drop(unsafe { Box::from_raw(lines(mapping.pointer, mapping.len)) });
        }
    }
}

/// Pool memory comes in lines, so that it is aligned.
#[derive(Clone, Copy)]
#[repr(align(256))]
struct Line(#[allow(dead_code, reason = "read through pointers")] [u8; 256]);

/// The lines of a block of `len` bytes.
fn lines(pointer: NonNull<u8>, len: usize) -> *mut [Line] {
    let lines = len.div_ceil(size_of::<Line>());
    std::ptr::slice_from_raw_parts_mut(pointer.cast().as_ptr(), lines)
}

impl State {
    /// Maps bytes that outlive their mapping at an address of their own, `into_page` bytes into a
    /// granule.
    fn map(&mut self, bytes: &[u8], owner: Owner, into_page: usize) -> u64 {
        let address = self.next_address + into_page as u64;
        self.next_address += 0x1_0000;
        self.map.push(Mapping {
            address,
            pointer: NonNull::from(bytes).cast(),
            len: bytes.len(),
            owner,
        });
        address
    }

    fn find(&self, fragment: &Fragment) -> Option<(&Mapping, usize)> {
        let len = fragment.len as usize;
        self.map.iter().find_map(|m| {
            let into = usize::try_from(fragment.address.0.checked_sub(m.address)?).ok()?;
            (into.checked_add(len)? <= m.len).then_some((m, into))
        })
    }

    /// What a frame names of the regions: block and bytes of it, neighbours as one.
    pub(crate) fn parts(&self, held: &Held) -> Vec<(usize, Range<usize>)> {
        let mut parts: Vec<(usize, Range<usize>)> = Vec::new();
        for fragment in &held.fragments {
            let Some((mapping, into)) = self.find(fragment) else {
                continue;
            };
            let Owner::Region(index) = mapping.owner else {
                continue;
            };
            let base = PAGES.0[index].as_ptr().addr();
            let start = mapping.pointer.addr().get() - base + into;
            let end = start + fragment.len as usize;
            match parts.last_mut() {
                Some((last, range)) if *last == index && range.end == start => range.end = end,
                _ => parts.push((index, start..end)),
            }
        }
        parts
    }

    /// What the device reads.
    pub(crate) fn read(&self, fragments: &[Fragment]) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        for fragment in fragments {
            let (mapping, into) = self.find(fragment)?;
            // SAFETY: `find` checked that the fragment lies in the mapping.
            let first = unsafe { mapping.pointer.add(into) };
            let first = first.as_ptr();
            let len = fragment.len as usize;
            // SAFETY: the bytes are mapped, so they can be read; they are in no exclusive borrow
            // now, as the port lends its buffers out only while they are not posted.
            bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(first, len) });
        }
        Some(bytes)
    }

    /// Reads a frame once more and compares with the post.
    fn look_again(&mut self, index: usize) {
        let held = &self.posted[index];
        let now = self.read(&held.fragments);
        if now.as_ref() != Some(&held.bytes) {
            let what = match now {
                None => format!("the device reads released memory for {:?}", held.token),
                Some(_) => format!("bytes changed under the device for {:?}", held.token),
            };
            self.violations.push(what);
        }
    }

    /// Places in `posted` of what is at `stage`.
    pub(crate) fn at(&self, stage: Stage) -> Vec<usize> {
        let places = self.posted.iter().enumerate();
        places
            .filter(|(_, held)| held.stage == stage)
            .map(|(index, _)| index)
            .collect()
    }

    /// The device reads the `nth` frame that it knows a last time, and is done with it.
    pub(crate) fn complete(&mut self, nth: usize) {
        let index = self.at(Stage::Rung)[nth];
        self.look_again(index);
        self.posted[index].stage = Stage::Done;
        self.done.push_back(self.posted[index].token);
    }

    /// The device reads all that it may still read.
    pub(crate) fn look_at_all(&mut self) {
        for index in 0..self.posted.len() {
            if self.posted[index].stage == Stage::Rung {
                self.look_again(index);
            }
        }
    }

    pub(crate) fn take(&mut self, token: Token) {
        if let Some(index) = self.posted.iter().position(|held| held.token == token) {
            self.posted.remove(index);
        }
    }

    /// The next token that reclaim hands back, faults included; the token stays noted as done.
    pub(crate) fn next_done(&mut self) -> Option<Token> {
        if self.fault == Fault::HandsBackEarly && self.done.is_empty() {
            let early = self.posted.iter().filter(|held| held.stage == Stage::Rung);
            return early.map(|held| held.token).find(|token| *token != GONE);
        }
        if self.fault == Fault::LosesCompletions && self.done.len() > 1 {
            self.done.pop_front();
        }
        self.done.front().copied()
    }
}

/// Bytes of a page block, lent to the device.
#[derive(Debug)]
struct PageRegion {
    machine: Machine,
    index: usize,
    bytes: &'static [u8],
    page: Granule,
    lead: usize,
    addresses: Vec<DeviceAddress>,
}

// SAFETY: the bytes are static and immutable; the device finds them at these addresses until the
// value is dropped, and for ever if it is not.
unsafe impl Region for PageRegion {
    fn base(&self) -> NonNull<u8> {
        NonNull::from(self.bytes).cast()
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn domain(&self) -> DomainId {
        self.machine.domain
    }

    fn translation(&self) -> Translation<'_> {
        Translation::new(self.page, self.lead, self.bytes.len(), &self.addresses).unwrap()
    }
}

impl Drop for PageRegion {
    fn drop(&mut self) {
        let mut state = self.machine.lock();
        state.drops[self.index] += 1;
        let owner = Owner::Region(self.index);
        state.map.retain(|mapping| mapping.owner != owner);
    }
}

/// Memory of the device's own.
#[derive(Debug)]
pub(crate) struct PoolMemory {
    machine: Machine,
    pointer: NonNull<u8>,
    len: usize,
    address: u64,
}

// SAFETY: the value owns its block; the pointer is as good on another thread.
unsafe impl Send for PoolMemory {}

// SAFETY: the block has `len` initialised bytes, belongs to this value, does not move and is
// freed when the value is dropped, or if it was leaked at the end of the world (`Machine::gone`).
unsafe impl DmaMemory for PoolMemory {
    fn pointer(&self) -> NonNull<u8> {
        self.pointer
    }

    fn address(&self) -> DeviceAddress {
        DeviceAddress(self.address)
    }

    fn len(&self) -> usize {
        self.len
    }

    fn domain(&self) -> DomainId {
        self.machine.domain
    }
}

impl Drop for PoolMemory {
    fn drop(&mut self) {
        let mut state = self.machine.lock();
        state.pool_drops += 1;
        state.map.retain(|mapping| mapping.address != self.address);
        drop(state);
        // SAFETY: made by `Box::into_raw` in `pool_memory`, and mapped no more.
        drop(unsafe { Box::from_raw(lines(self.pointer, self.len)) });
    }
}
