//! A NIC that does everything right, or one thing wrong: two pairs of queues, head room, gather,
//! checksums and segmentation, completions in any order.

mod hash;
mod nic;

use std::collections::VecDeque;
use std::num::Wrapping;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pagewire_conformance::{Bench, FarEnd};
use pagewire_hal::{
    Capabilities, Causes, ChecksumOffload, DeviceAddress, DmaBuffer, DmaMemory, DomainId, Fragment,
    Instant, Offload, Region, Segmentation, Statistics, Token,
};

pub(crate) use nic::FakeNic;

/// What the fake does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    None,
    /// Hands back the tokens of one queue to the other.
    CrossedTokens,
    /// Forgets that the first fragment is the frame's.
    NoHeadRoom,
    /// Counts segments from one.
    WrongIdentification,
    /// Hands back each token when it is posted.
    EarlyTokens,
    /// Pads with what lies behind the frame.
    LeakyPadding,
    /// Loses a token in a reset.
    LostToken,
    /// Counts the frame check sequence in the longest frame.
    WrongLimit,
    /// Sends short frames short.
    NoPadding,
    /// Believes that a device knows after a reset what it was asked for before.
    StaleRequest,
    /// Counts a frame that is too long twice.
    GiantsTwice,
    /// A frame that is too long keeps its buffer until one is received.
    GiantsKeepBuffers,
    /// Does not count what it has no buffer for.
    LostUncounted,
    /// Drops frames for groups.
    NoGroups,
    /// Says the speed of a link that is down.
    SpeedWhileDown,
    /// Interrupts are off after a reset.
    InterruptsLost,
    /// An overrun hides a change of the link.
    OverrunHidesLink,
    /// The receive queue counts from nought after a reset.
    DeliveredLost,
    /// What was counted before a reset is lost.
    CountsLost,
    /// `poll` eats what was counted while there is work.
    PollEats,
    /// `poll` never says that the device hangs.
    NeverHung,
    /// `poll` looks at the place in the ring alone.
    HungInStep,
    /// `poll` remembers what was before a reset.
    HungAfterReset,
    /// Takes queues of any device.
    AnyQueues,
    /// Forgets a completion after its callback, not before.
    ConsumedLate,
    /// Does not look whether the device has stopped.
    QuietTooEarly,
    /// Says that the device was removed again and again.
    RemovedForEver,
    /// Hands tokens back at the restart that follows a release.
    TokensAgain,
    /// `poll` counts how often it was called.
    HungByCount,
    /// A pair that nobody has taken stays down after a reset.
    UntakenDown,
    /// A released device has failed.
    FailedAfterRelease,
    /// `receive` takes a frame before it looks at its budget.
    BudgetLate,
    /// `receive` takes all frames off the ring before it hands up the first.
    ReceivesAhead,
    /// The bytes of the hash are in the wrong order.
    HashBackwards,
    /// The hash of a connection is over its addresses alone.
    HashWithoutPorts,
    /// A frame that is not IP has a hash.
    HashOfNothing,
    /// There is a hash, and no capability for it.
    HashUnsaid,
    /// All frames go to the first queue.
    OneQueue,
    /// Only the first transmit queue is watched.
    FirstWatched,
    /// Tokens come back with the number of their queue, wherever that is in what was lent.
    TokensByNumber,
}

/// Limits of the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    pub(crate) capabilities: Capabilities,
    /// Fragments in a transmit ring, frames in a receive ring.
    pub(crate) ring: usize,
    pub(crate) rx_ring: usize,
}

pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
pub(crate) const PAIRS: usize = 2;

/// A frame in a ring.
pub(crate) struct Posted {
    pub(crate) token: Token,
    pub(crate) fragments: Vec<Fragment>,
    pub(crate) offload: Offload,
}

#[derive(Default)]
pub(crate) struct Queue {
    /// Posted and not shown to the device; shown; sent and not handed back.
    pub(crate) posted: VecDeque<Posted>,
    pub(crate) shown: VecDeque<Posted>,
    pub(crate) done: VecDeque<(Token, usize)>,
    pub(crate) used: usize,
    pub(crate) received: VecDeque<Vec<u8>>,
    pub(crate) down: bool,
}

/// The device and its wire.
pub(crate) struct World {
    pub(crate) fault: Fault,
    pub(crate) shape: Shape,
    pub(crate) domain: DomainId,
    pub(crate) queues: [Queue; PAIRS],
    pub(crate) to_far: VecDeque<Vec<u8>>,
    pub(crate) to_near: VecDeque<Vec<u8>>,
    pub(crate) statistics: Statistics,
    pub(crate) doorbells: u64,
    pub(crate) hold: bool,
    pub(crate) link: bool,
    /// The device stands still; it does not stop; it is not there.
    pub(crate) stalled: bool,
    pub(crate) stuck: bool,
    pub(crate) gone: bool,
    pub(crate) interrupts: bool,
    pub(crate) causes: Causes,
    /// Frames sent, or one too many segmented.
    pub(crate) sent: u64,
    /// Buffers that frames which were too long have kept.
    pub(crate) kept: usize,
    /// The last request before a reset, and that nothing has been sent since.
    pub(crate) before_reset: Option<Offload>,
    pub(crate) request: Option<Offload>,
    pub(crate) now: Duration,
    random: Wrapping<u64>,
}

pub(crate) type Shared = Arc<Mutex<World>>;

pub(crate) fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device that does much.
pub(crate) fn shape() -> Shape {
    Shape {
        capabilities: capabilities(),
        ring: 64,
        rx_ring: 32,
    }
}

fn capabilities() -> Capabilities {
    let mut capabilities = Capabilities::minimal();
    capabilities.dma_address_bits = 64;
    capabilities.max_fragments = 17;
    capabilities.max_fragment_len = 70_000;
    capabilities.head_room = 12;
    capabilities.tx_checksum = ChecksumOffload::all();
    capabilities.queue_pairs = PAIRS as u16;
    capabilities.statistics = true;
    capabilities.rx_hash = true;
    let mut segmentation = Segmentation::new(60_000, 128);
    segmentation.ipv4 = true;
    segmentation.ipv6 = true;
    capabilities.segmentation = Some(segmentation);
    capabilities
}

impl World {
    fn random(&mut self, bound: usize) -> usize {
        self.random = self.random * Wrapping(6_364_136_223_846_793_005) + Wrapping(1);
        (self.random.0 >> 33) as usize % bound
    }

    fn raise(&mut self, cause: Causes) {
        if self.interrupts {
            self.causes |= cause;
        }
    }

    fn step(&mut self) {
        if self.stalled || self.gone {
            return;
        }
        for index in 0..PAIRS {
            while self.link
                && let Some(posted) = self.queues[index].shown.pop_front()
            {
                self.send(&posted);
                self.sent += 1;
                self.raise(Causes::TRANSMIT);
                let done = (posted.token, posted.fragments.len());
                // In any order: devices need not keep that of the ring.
                let at = self.random(self.queues[index].done.len() + 1);
                self.queues[index].done.insert(at, done);
            }
        }
        while self.link
            && let Some(frame) = self.to_near.pop_front()
        {
            self.receive(frame);
        }
    }

    fn send(&mut self, posted: &Posted) {
        let mut bytes = Vec::new();
        for fragment in &posted.fragments {
            let pointer = std::ptr::with_exposed_provenance::<u8>(fragment.address.0 as usize);
            // SAFETY: `post` promised that the device may read the fragment until its token is
            // handed back, which it has not been; device addresses are those of the CPU here, and
            // `HeapMemory` has exposed its own.
            let part = unsafe { std::slice::from_raw_parts(pointer, fragment.len as usize) };
            bytes.extend_from_slice(part);
        }
        let before = self.before_reset.take();
        self.request = Some(posted.offload);
        if posted.offload.segment_len == 0 {
            let stale = self.fault == Fault::StaleRequest && before == self.request;
            if !stale {
                insert(&posted.offload, &mut bytes);
            }
            self.put(bytes);
            return;
        }
        for frame in self.segments(&posted.offload, &bytes) {
            self.put(frame);
        }
    }

    fn put(&mut self, mut frame: Vec<u8>) {
        if frame.len() < 60 && self.fault != Fault::NoPadding {
            let padding = if self.fault == Fault::LeakyPadding {
                0xc7
            } else {
                0
            };
            frame.resize(60, padding);
        }
        self.statistics.tx_frames += 1;
        self.statistics.tx_bytes += frame.len() as u64 + 4;
        self.to_far.push_back(frame);
    }

    fn segments(&self, offload: &Offload, bytes: &[u8]) -> Vec<Vec<u8>> {
        let l3 = usize::from(offload.l2_len);
        let l4 = l3 + usize::from(offload.l3_len);
        let (header, payload) = bytes.split_at(l4 + usize::from(offload.l4_len));
        let count = payload.len().div_ceil(usize::from(offload.segment_len));
        let first = u16::from(self.fault == Fault::WrongIdentification);
        let parts = payload.chunks(usize::from(offload.segment_len)).enumerate();
        parts
            .map(|(index, part)| {
                let mut frame = [header, part].concat();
                let len = frame.len();
                if offload.checksum.contains(ChecksumOffload::TCP_IPV4) {
                    set(&mut frame, l3 + 2, (len - l3) as u16);
                    let id = word(header, l3 + 4) + index as u16 + first;
                    set(&mut frame, l3 + 4, id);
                } else {
                    set(&mut frame, l3 + 4, (len - l3 - 40) as u16);
                }
                let sent = (index * usize::from(offload.segment_len)) as u32;
                let sequence = u32::from(word(header, l4 + 4)) << 16;
                let sequence = (sequence | u32::from(word(header, l4 + 6))) + sent;
                set(&mut frame, l4 + 4, (sequence >> 16) as u16);
                set(&mut frame, l4 + 6, sequence as u16);
                if index + 1 < count {
                    frame[l4 + 13] &= !0x09;
                }
                // The seed has no length in it.
                let seed = fold(u32::from(word(&frame, l4 + 16)) + (len - l4) as u32);
                set(&mut frame, l4 + 16, seed);
                insert(offload, &mut frame);
                frame
            })
            .collect()
    }

    fn receive(&mut self, mut frame: Vec<u8>) {
        if frame.len() < 14 || frame.len() > self.shape.capabilities.max_frame_len as usize {
            self.statistics.rx_length_errors += 1 + u64::from(self.fault == Fault::GiantsTwice);
            self.kept += usize::from(self.fault == Fault::GiantsKeepBuffers);
            return;
        }
        let group = frame[0] & 1 != 0;
        let kept = group && (self.fault != Fault::NoGroups || frame[..6] == [0xff; 6]);
        if frame[..6] != MAC && !kept {
            return;
        }
        frame.resize(frame.len().max(60), 0);
        let room = self.shape.rx_ring.saturating_sub(self.kept);
        let hash = hash::of(&frame, self.fault).filter(|_| self.fault != Fault::OneQueue);
        let pairs = usize::from(self.shape.capabilities.queue_pairs);
        let queue = hash.map_or(0, |hash| hash.value as usize % pairs);
        let queue = &mut self.queues[queue];
        if queue.received.len() >= room || queue.down {
            self.statistics.rx_missed += u64::from(self.fault != Fault::LostUncounted);
            self.raise(Causes::OVERRUN);
            return;
        }
        let bytes = frame.len() as u64 + 4;
        queue.received.push_back(frame);
        self.raise(Causes::RECEIVE);
        self.statistics.rx_frames += 1;
        self.statistics.rx_bytes += bytes;
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn set(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn fold(mut total: u32) -> u16 {
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    total as u16
}

fn complement(bytes: &[u8]) -> u16 {
    let even = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8);
    let odd = bytes.iter().skip(1).step_by(2).map(|byte| u32::from(*byte));
    !fold(
        even.chain(odd)
            .fold(0, |total, word| u32::from(fold(total + word))),
    )
}

/// Puts the checksums of `offload` into a frame.
fn insert(offload: &Offload, frame: &mut [u8]) {
    let l3 = usize::from(offload.l2_len);
    let l4 = l3 + usize::from(offload.l3_len);
    if offload.checksum.contains(ChecksumOffload::IPV4_HEADER) {
        let value = complement(&frame[l3..l4]);
        set(frame, l3 + 10, value);
    }
    if offload.checksum.intersects(ChecksumOffload::TRANSPORT) {
        let place = usize::from(offload.transport_checksum_offset());
        let value = match complement(&frame[l4..]) {
            0 if place == 6 => 0xffff,
            value => value,
        };
        set(frame, l4 + place, value);
    }
}

/// Bytes that never move.
pub(crate) struct HeapMemory {
    bytes: NonNull<u8>,
    len: usize,
    domain: DomainId,
}

impl HeapMemory {
    pub(crate) fn new(len: usize, domain: DomainId) -> Self {
        let bytes = Box::leak(vec![0u8; len.max(1)].into_boxed_slice());
        let pointer = NonNull::from(bytes).cast::<u8>();
        pointer.as_ptr().expose_provenance();
        Self {
            bytes: pointer,
            len,
            domain,
        }
    }
}

// SAFETY: the bytes belong to the value alone, which never looks at them.
unsafe impl Send for HeapMemory {}

// SAFETY: the bytes were leaked, so they are valid for ever; address and domain never change;
// device addresses are those of the CPU.
unsafe impl DmaMemory for HeapMemory {
    fn pointer(&self) -> NonNull<u8> {
        self.bytes
    }
    fn address(&self) -> DeviceAddress {
        DeviceAddress(self.bytes.as_ptr().expose_provenance() as u64)
    }
    fn len(&self) -> usize {
        self.len
    }
    fn domain(&self) -> DomainId {
        self.domain
    }
}

/// The far end.
struct Far(Shared);

impl FarEnd for Far {
    fn send(&mut self, frame: &[u8]) {
        lock(&self.0).to_near.push_back(frame.to_vec());
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        lock(&self.0).to_far.pop_front()
    }
}

/// A fake on a bench.
pub(crate) struct FakeBench {
    fault: Fault,
    shape: Shape,
    world: Shared,
    second: Option<Shared>,
    far: Far,
}

fn world(fault: Fault, shape: Shape, seed: u64) -> Shared {
    Arc::new(Mutex::new(World {
        fault,
        shape,
        domain: DomainId::new_unique(),
        queues: Default::default(),
        to_far: VecDeque::new(),
        to_near: VecDeque::new(),
        statistics: Statistics::default(),
        doorbells: 0,
        hold: false,
        link: true,
        stalled: false,
        stuck: false,
        gone: false,
        interrupts: false,
        causes: Causes::empty(),
        sent: 0,
        kept: 0,
        before_reset: None,
        request: None,
        now: Duration::ZERO,
        random: Wrapping(seed),
    }))
}

impl FakeBench {
    pub(crate) fn new(fault: Fault) -> Self {
        Self::with_shape(fault, shape())
    }

    pub(crate) fn with_shape(fault: Fault, shape: Shape) -> Self {
        let world = world(fault, shape, 0);
        let far = Far(Arc::clone(&world));
        Self {
            fault,
            shape,
            world,
            second: None,
            far,
        }
    }
}

impl Bench for FakeBench {
    type Nic = FakeNic;
    type Memory = HeapMemory;

    fn open(&mut self, seed: u64) -> Result<FakeNic, String> {
        self.world = world(self.fault, self.shape, seed);
        self.second = None;
        self.far = Far(Arc::clone(&self.world));
        Ok(FakeNic::new(&self.world))
    }

    fn open_second(&mut self, seed: u64) -> Option<Result<FakeNic, String>> {
        let second = world(self.fault, self.shape, seed);
        self.second = Some(Arc::clone(&second));
        Some(Ok(FakeNic::new(&second)))
    }

    fn far_end(&mut self) -> &mut dyn FarEnd {
        &mut self.far
    }

    fn advance(&mut self, duration: Duration) {
        for world in [Some(&self.world), self.second.as_ref()]
            .into_iter()
            .flatten()
        {
            let mut world = lock(world);
            world.now += duration;
            world.step();
        }
    }

    fn now(&self) -> Instant {
        Instant::ZERO + lock(&self.world).now
    }

    fn region(&mut self, bytes: Vec<u8>) -> Result<Arc<dyn Region>, String> {
        let mut buffer = DmaBuffer::new(HeapMemory::new(bytes.len(), lock(&self.world).domain));
        buffer.as_mut_slice().copy_from_slice(&bytes);
        Ok(Arc::new(buffer))
    }

    fn sees_frames_at_once(&self) -> bool {
        true
    }

    fn keeps_groups(&self) -> Option<bool> {
        Some(true)
    }

    fn longest_frame(&self) -> Option<u32> {
        Some(self.shape.capabilities.max_frame_len)
    }

    fn link_speed(&self) -> Option<u32> {
        Some(1000)
    }

    fn hash_key(&self) -> Option<Vec<u8>> {
        Some(hash::key().to_vec())
    }

    fn frames_at_once(&self) -> usize {
        self.shape.rx_ring.min(5)
    }

    fn stall(&mut self, stall: bool) -> bool {
        lock(&self.world).stalled = stall;
        true
    }

    fn never_quiet(&mut self) -> bool {
        lock(&self.world).stuck = true;
        true
    }

    fn remove(&mut self) -> bool {
        lock(&self.world).gone = true;
        true
    }

    fn set_link(&mut self, up: bool) -> bool {
        let mut world = lock(&self.world);
        if world.link != up {
            world.link = up;
            world.raise(Causes::LINK);
        }
        true
    }

    fn hold_completions(&mut self, hold: bool) -> bool {
        lock(&self.world).hold = hold;
        true
    }

    fn doorbells(&mut self) -> Option<u64> {
        Some(lock(&self.world).doorbells)
    }
}
