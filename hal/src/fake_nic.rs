//! A NIC for tests that does as it is told, and a port on it.

#![allow(clippy::unwrap_used, reason = "for tests only")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::vec::Vec;

use crate::test_support::{HeapMemory, HeapRegion, World, hostile_log, pattern};
use crate::*;

/// A frame in the fake ring.
#[derive(Debug)]
pub(crate) struct Posted {
    pub(crate) token: Token,
    pub(crate) fragments: Vec<Fragment>,
    /// CPU address of the first byte, 0 if the port gave none.
    pub(crate) first: usize,
    /// What the device found there when the frame was posted.
    pub(crate) bytes: Option<Vec<u8>>,
}

/// What the test does with a queue behind the port's back: the device's side.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    pub(crate) posted: Vec<Posted>,
    pub(crate) done: VecDeque<Token>,
    pub(crate) capacity: usize,
    pub(crate) refuse: Option<PostError>,
    pub(crate) fail: Option<QueueError>,
    pub(crate) panic_in_post: bool,
    pub(crate) doorbells: usize,
}

impl Ring {
    /// The device completes the frame at place `index` of those posted, which it read last now.
    pub(crate) fn complete(&mut self, index: usize) -> Posted {
        let posted = self.posted.remove(index);
        self.done.push_back(posted.token);
        posted
    }
}

/// A transmit queue whose device is the test.
#[derive(Debug)]
pub(crate) struct FakeQueue {
    world: World,
    pub(crate) capabilities: Capabilities,
    pub(crate) ring: Arc<Mutex<Ring>>,
}

impl FakeQueue {
    pub(crate) fn new(world: &World, max_fragments: u16) -> Self {
        let mut capabilities = Capabilities::minimal();
        capabilities.dma_address_bits = 64;
        capabilities.max_fragments = max_fragments;
        capabilities.max_fragment_len = 4096;
        capabilities.max_frame_len = 1 << 16;
        let ring = Ring {
            capacity: 64,
            ..Ring::default()
        };
        Self {
            world: world.clone(),
            capabilities,
            ring: Arc::new(Mutex::new(ring)),
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(|e| e.into_inner())
    }
}

// SAFETY: tokens come back only when the test completes them, each once; addresses are used
// only to read through the world, which checks them.
unsafe impl TxQueue for FakeQueue {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn domain(&self) -> DomainId {
        self.world.domain
    }

    unsafe fn post(&mut self, frame: &TxFrame<'_>, token: Token) -> Result<(), PostError> {
        let bytes = self.world.read(frame.fragments);
        frame
            .check(&self.capabilities)
            .map_err(PostError::Refused)?;
        let mut ring = self.ring();
        if let Some(error) = ring.refuse.take() {
            return Err(error);
        }
        if ring.posted.len() + ring.done.len() >= ring.capacity {
            return Err(PostError::Full);
        }
        ring.posted.push(Posted {
            token,
            fragments: frame.fragments.to_vec(),
            first: frame.first.map_or(0, |first| first.addr().get()),
            bytes,
        });
        assert!(!ring.panic_in_post, "the driver has a bug");
        Ok(())
    }

    fn doorbell(&mut self) {
        self.ring().doorbells += 1;
    }

    fn reclaim(&mut self, done: &mut impl FnMut(Token)) -> Result<usize, QueueError> {
        let mut count = 0;
        loop {
            let next = self.ring().done.front().copied();
            let Some(token) = next else { break };
            // Takes note of it only after the call: a callback that unwinds leaves it there.
            done(token);
            self.ring().done.pop_front();
            count += 1;
        }
        match self.ring().fail.take() {
            Some(error) => Err(error),
            None => Ok(count),
        }
    }

    fn has_room(&self, _fragments: usize) -> bool {
        self.outstanding() < self.ring().capacity
    }

    fn outstanding(&self) -> usize {
        let ring = self.ring();
        ring.posted.len() + ring.done.len()
    }
}

/// A receive queue on which nothing arrives.
#[derive(Debug)]
pub(crate) struct FakeRx;

impl RxQueue for FakeRx {
    fn receive(
        &mut self,
        _budget: usize,
        _frame: &mut impl FnMut(RxFrame<'_>),
    ) -> Result<usize, QueueError> {
        Ok(0)
    }

    fn counters(&self) -> RxCounters {
        RxCounters::default()
    }
}

/// A NIC with queues that were made beside it.
#[derive(Debug)]
pub(crate) struct FakeNic {
    pub(crate) world: World,
    pub(crate) capabilities: Capabilities,
    /// Queue pairs taken out.
    pub(crate) taken: usize,
    pub(crate) quiet: bool,
    /// What initialisation says after a restart.
    pub(crate) init: Result<(), NicError>,
}

impl FakeNic {
    pub(crate) fn new(world: &World, taken: usize) -> Self {
        Self {
            world: world.clone(),
            capabilities: Capabilities::minimal(),
            taken,
            quiet: true,
            init: Ok(()),
        }
    }
}

// SAFETY: tokens are handed back only when the test says that the device is quiet, with the
// place of their queue; nothing is swapped.
unsafe impl Nic for FakeNic {
    type Tx = FakeQueue;
    type Rx = FakeRx;
    type Memory = HeapMemory;

    fn name(&self) -> &'static str {
        "fake"
    }
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }
    fn mac_address(&self) -> MacAddress {
        MacAddress([2, 0, 0, 0, 0, 1])
    }
    fn domain(&self) -> DomainId {
        self.world.domain
    }
    fn allocate(&mut self, len: usize, align: usize) -> Result<HeapMemory, NicError> {
        if len > 1 << 24 {
            return Err(PlatformError::OutOfMemory.into());
        }
        Ok(self.world.memory(len, align))
    }
    fn take_queues(&mut self, _index: u16) -> Option<(FakeQueue, FakeRx)> {
        None
    }
    fn link(&mut self) -> LinkState {
        LinkState::default()
    }
    fn statistics(&mut self) -> Statistics {
        Statistics::default()
    }
    fn enable_interrupts(&mut self) -> Result<u16, NicError> {
        Ok(0)
    }
    fn take_interrupts(&mut self) -> Causes {
        Causes::empty()
    }
    fn poll(&mut self, _now: Instant) -> Result<Phase, NicError> {
        Ok(if self.quiet {
            Phase::Quiet
        } else {
            Phase::Stopping
        })
    }
    fn begin_reset(&mut self, _now: Instant) {}

    fn restart(
        &mut self,
        queues: &mut [QueuePair<'_, FakeQueue, FakeRx>],
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError> {
        self.release(queues, released)?;
        self.init
    }

    fn release(
        &mut self,
        queues: &mut [QueuePair<'_, FakeQueue, FakeRx>],
        released: &mut dyn FnMut(u16, Token),
    ) -> Result<(), NicError> {
        if !self.quiet {
            return Err(NicError::WrongPhase);
        }
        if queues.len() != self.taken {
            return Err(NicError::QueueMissing {
                index: queues.len() as u16,
            });
        }
        for (index, pair) in queues.iter_mut().enumerate() {
            let mut ring = pair.tx.ring();
            let done: Vec<_> = ring.done.drain(..).collect();
            let posted: Vec<_> = ring.posted.drain(..).map(|p| p.token).collect();
            for token in done.into_iter().chain(posted) {
                released(index as u16, token);
            }
        }
        Ok(())
    }
}

/// Words for a layout: the sizes of the port tests.
pub(crate) fn layout() -> PoolLayout {
    PoolLayout {
        small_len: 128,
        small_count: 8,
        large_len: 2048,
        large_count: 4,
        page: Granule::from_bytes(4096).unwrap(),
    }
}

/// A port on a fake queue, and the device's side of it.
pub(crate) fn port(
    world: &World,
    max_fragments: u16,
) -> (TxPort<FakeQueue, HeapMemory>, Arc<Mutex<Ring>>) {
    let queue = FakeQueue::new(world, max_fragments);
    let ring = queue.ring.clone();
    let port = TxPort::new(&mut FakeNic::new(world, 1), queue, &layout()).unwrap();
    (port, ring)
}

/// A port, the device's side of its queue, and two registered pages that the device sees apart.
pub(crate) struct Bench {
    pub(crate) world: World,
    pub(crate) port: TxPort<FakeQueue, HeapMemory>,
    pub(crate) ring: Arc<Mutex<Ring>>,
    pub(crate) region: Arc<HeapRegion>,
    pub(crate) id: RegionId,
}

pub(crate) fn bench(max_fragments: u16) -> Bench {
    hostile_log::install();
    let world = World::new();
    let (mut port, ring) = port(&world, max_fragments);
    let region = world.region(4096, 0, &pattern(8192, 7), |_| true);
    let id = port.ledger_mut().register(region.clone()).unwrap();
    Bench {
        world,
        port,
        ring,
        region,
        id,
    }
}

impl Bench {
    /// Posts 14 bytes of header and `len` bytes of the region from `start`.
    pub(crate) fn send(
        &mut self,
        loan: &Loan,
        start: usize,
        len: usize,
    ) -> Result<FrameId, PortError> {
        let buffer = self.port.buffer(14).unwrap();
        let mut frame = self.port.frame(buffer, 14);
        frame.attach(loan, start, len);
        frame.post(Offload::NONE)
    }

    pub(crate) fn complete(&mut self, index: usize) {
        self.ring.lock().unwrap().complete(index);
    }

    pub(crate) fn reclaim(&mut self) -> Result<usize, QueueError> {
        self.port.reclaim(&mut |_| {})
    }

    pub(crate) fn loans(&self) -> u64 {
        self.port.ledger().counters().loans
    }

    /// Reset as a program does it.
    pub(crate) fn reset(&mut self, start_again: bool) -> Result<(), NicError> {
        let mut nic = FakeNic::new(&self.world, 1);
        let pair = PortPair {
            tx: &mut self.port,
            rx: &mut FakeRx,
        };
        if start_again {
            restart(&mut nic, &mut [pair])
        } else {
            release(&mut nic, &mut [pair])
        }
    }
}
